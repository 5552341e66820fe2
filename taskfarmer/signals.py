"""Signals become flags; nothing else happens in a handler.

`hold` is the first statement of a farmer: until `Signals` stands, a signal waits. A signal that
arrives wakes the farmer's poll through `wakeup`, a pipe that the interpreter writes into.
"""

from __future__ import annotations

import os
import signal
import time
from types import FrameType

STOPS = (
    signal.SIGUSR1,
    signal.SIGUSR2,
    signal.SIGTERM,
    signal.SIGINT,
    signal.SIGHUP,
    signal.SIGQUIT,
    signal.SIGXCPU,
)
"""What stops a farmer. SIGXCPU is Grid Engine's warning of `s_cpu` and `s_vmem`, and LSF's of its CPU limit."""
END_NOW = signal.SIGRTMIN
"""What a farmer sends to the worker of a user's own runner when the grace time is over; schedulers do not send it."""
_HELD = (*STOPS, END_NOW)


def hold() -> None:
    """Let the signals that stop a farmer, or a worker that it makes, wait until somebody can handle them."""
    signal.pthread_sigmask(signal.SIG_BLOCK, _HELD)


def release() -> None:
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _HELD)


class Signals:
    """The stop signals that have arrived, in order; `since` is when the first one came, on the monotonic clock."""

    def __init__(self) -> None:
        self.arrived: list[signal.Signals] = []
        self.since: float | None = None
        self.wakeup, self._written = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        signal.set_wakeup_fd(self._written, warn_on_full_buffer=False)
        for number in STOPS:
            # nohup means it: a farmer that was started to outlive its terminal does
            if number == signal.SIGHUP and signal.getsignal(number) == signal.SIG_IGN:
                continue
            signal.signal(number, self._note)
        # ignored, as whoever started us may have left it, it would take the exit status of every child away
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        release()

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self.since is None:
            self.since = time.monotonic()
        self.arrived.append(signal.Signals(number))

    def drain(self) -> None:
        """Empty the pipe, so that the next poll waits for the next signal."""
        try:
            while os.read(self.wakeup, 512):
                pass
        except BlockingIOError:
            pass

    def restore(self) -> None:
        """Default dispositions again, all of them held: the farmer is past the point where they matter."""
        hold()
        signal.set_wakeup_fd(-1)
        for number in STOPS:
            if signal.getsignal(number) == self._note:
                signal.signal(number, signal.SIG_DFL)
        os.close(self.wakeup)
        os.close(self._written)
