"""Work between two file operations: the farmer writes heartbeats, and stops in time after a signal.

A file operation may take seconds, and an exchange with the ledger consists of dozens of them, which cannot be
interrupted. So code with many operations calls a `Pulse` between them (`between`, from `Commits` to `Intake`), usually
after at most three operations. The pulse

* writes a heartbeat if one is due, so that a slow farmer is never silent;
* counts the time in which the file system responded, which measures the silence of other farmers;
* passes a stop signal on to the tasks at once, so that their grace time runs during the operations;
* raises Stopped when the current work has used up its time since the signal.

Slurm kills a job step 30 s after SIGTERM (KillWait). A farmer exits within 25 s of the signal if each operation takes
at most 2 s and --grace is at most 10 s:

    seconds after the signal    which work is interrupted
    WORK           2            an exchange, an import, or a check of other farmers
    LEAVE         12            the commit with which the farmer leaves; it leaves with a note instead
    VIEWS         20            the update of the views; they stay stale

The farmer waits for the operation that runs at that time, and for up to three more, such as the release of the lock.
Interrupted work leaves the same files as a crash, for which the ledger is designed.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable

from taskfarmer.errors import Stopped
from taskfarmer.signals import Signals

WORK, LEAVE, VIEWS = 2.0, 12.0, 20.0
LEAST = 3.0
"""Seconds that leaving and the views have at least, even after a long grace time of the tasks ..."""
SLOW = 1.5
"""... unless the operations between two calls take more seconds than this."""


class Pulse:
    """Called between file operations. `beat` writes a heartbeat if one is due, `on_signal` handles a stop signal.

    `interrupted`: work was interrupted because file operations are slow.
    """

    def __init__(self, signals: Signals) -> None:
        self.signals = signals
        self.beat: Callable[[float], None] = _nothing
        self.on_signal: Callable[[float], None] = _nothing
        self.interrupted = False
        self._seconds = WORK
        self._least = -math.inf
        self._last = time.monotonic()

    def __call__(self) -> None:
        now = time.monotonic()
        took, self._last = now - self._last, now
        self.beat(now)
        since = self.signals.since
        if since is None:
            return
        self.on_signal(now)
        if now > since + self._seconds and (now > self._least or took > SLOW):
            self.interrupted = True
            raise Stopped("stopped by a signal before any task was started: run the same command again")

    def allow(self, seconds: float) -> None:
        """From now on, let work continue until `seconds` after a stop signal."""
        self._seconds = seconds
        self._last = time.monotonic()
        self._least = self._last + LEAST


def _nothing(now: float) -> None:
    """The default of `beat` and `on_signal`."""
