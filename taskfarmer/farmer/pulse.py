"""What a farmer does between two file operations: it beats, and it breaks off when it is to stop.

A file operation may take seconds, and an exchange with the ledger is made of dozens of them, which cannot be
interrupted. So the code that makes many calls a `Pulse` in between (`between`, from `Commits` to `Intake`), after
three operations at the latest as a rule. The pulse

* writes a heartbeat if one is due, so that a farmer that is only slow is never silent;
* counts the time for which the file system served us, by which the silence of others is measured;
* passes a stop signal on to the tasks at once, so that their grace time runs while the operations go on;
* raises Stopped when the work under way has had its time since the signal.

Slurm kills a job step 30 s after SIGTERM (KillWait). So a farmer has 25 s from the signal to its exit, as long as
an operation takes 2 s or less and --grace is 10 s or less:

    seconds after the signal                     what may still be done
    WORK           2   at the latest, an exchange, an import or a look at others is broken off
    LEAVE         12   the commit with which the farmer leaves is broken off; it leaves with a note
    VIEWS         20   the views are left as they are

An operation that began before is waited for, and so are up to three that follow, among them the release of the lock.
What is broken off is left as a crash would leave it: the ledger is made for that.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable

from taskfarmer.errors import Stopped
from taskfarmer.signals import Signals

WORK, LEAVE, VIEWS = 2.0, 12.0, 20.0
LEAST = 3.0
"""Seconds that leaving and the views have at least, also if the tasks had a long grace time before ..."""
LONG = 1.5
"""... unless as few operations as there are between two calls take longer than this."""


class Pulse:
    """Called between file operations. `beat` shows that we live, `hear` acts on a stop signal.

    `broke_off` says that work was broken off: file operations take long.
    """

    def __init__(self, signals: Signals) -> None:
        self.signals = signals
        self.beat: Callable[[float], None] = _nothing
        self.hear: Callable[[float], None] = _nothing
        self.broke_off = False
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
        self.hear(now)
        if now > since + self._seconds and (now > self._least or took > LONG):
            self.broke_off = True
            raise Stopped("stopped by a signal before any task was started: run the same command again")

    def allow(self, seconds: float) -> None:
        """From now on work may go on for so many seconds after a stop signal."""
        self._seconds = seconds
        self._last = time.monotonic()
        self._least = self._last + LEAST


def _nothing(now: float) -> None:
    """There is nothing to do yet."""
