"""The signals that stop a farmer. Their handler only appends to a list.

A farmer calls `hold` first, so that signals wait until it has created `Signals`. Python writes each signal into the
pipe `wakeup`, which wakes the farmer's poll.
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
"""The signals that stop a farmer. Grid Engine sends SIGXCPU for `s_cpu` and `s_vmem`, LSF for its CPU limit."""
END_NOW = signal.SIGRTMIN
"""A farmer sends it to a worker of a custom runner when the grace time is over. Schedulers do not send it."""
_HELD = (*STOPS, END_NOW)


def hold() -> None:
    """Block the signals that stop a farmer or a worker, until their handlers are set."""
    signal.pthread_sigmask(signal.SIG_BLOCK, _HELD)


def release() -> None:
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _HELD)


class Signals:
    """The stop signals that have `arrived`, in order. The first one arrived at `since` on the monotonic clock."""

    def __init__(self) -> None:
        self.arrived: list[signal.Signals] = []
        self.since: float | None = None
        self.wakeup, self._written = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        signal.set_wakeup_fd(self._written, warn_on_full_buffer=False)
        for number in STOPS:
            # started with nohup: the farmer is to outlive its terminal
            if number == signal.SIGHUP and signal.getsignal(number) == signal.SIG_IGN:
                continue
            signal.signal(number, self._note)
        # if the parent process left SIGCHLD ignored, the kernel would discard the exit status of every child
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
        """Block the signals and reset their handlers: the farmer has ended, and signals no longer matter."""
        hold()
        signal.set_wakeup_fd(-1)
        for number in STOPS:
            if signal.getsignal(number) == self._note:
                signal.signal(number, signal.SIG_DFL)
        os.close(self.wakeup)
        os.close(self._written)
