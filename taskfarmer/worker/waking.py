"""How a worker whose tasks are programs learns that some have ended, or that there are orders."""

from __future__ import annotations

import fcntl
import os
import select
import signal
import socket
from collections.abc import Collection
from types import FrameType
from typing import Any

Reaped = tuple[int, int, Any]
"""What `os.wait4` says: process, wait status, usage."""
_NO_PIDFD_PAUSE = 0.01
_WAKES = (signal.SIGCHLD, signal.SIGIO)


class Waking:
    """Waits for ends and orders. `running` are the processes of tasks, kept by the worker."""

    def __init__(self, running: Collection[int]) -> None:
        self.running = running

    def begun(self, pid: int) -> None:
        """A task runs as this process."""

    def wait(self, seconds: float | None) -> tuple[list[Reaped], bool]:
        """The tasks that have ended, and whether there may be orders; nothing where that takes longer than `seconds`.

        Processes that are nobody's tasks may be among them.
        """
        raise NotImplementedError

    def close(self) -> None:
        """Leave descriptors and signals as they were: tasks that still run are looked after in another way."""


class ByDescriptors(Waking):
    """A descriptor for each process (pidfd_open(2)). Signals are handled as they come: a runner of the user's own
    may start processes, which inherit what is blocked.
    """

    def __init__(self, running: Collection[int], poll: select.poll) -> None:
        super().__init__(running)
        self._poll = poll
        self._watched: dict[int, int] = {}  # descriptor -> process

    def begun(self, pid: int) -> None:
        try:
            fd = os.pidfd_open(pid)
        except (AttributeError, OSError):
            return
        self._watched[fd] = pid
        self._poll.register(fd, select.POLLIN)

    def wait(self, seconds: float | None) -> tuple[list[Reaped], bool]:
        ended: list[Reaped] = []
        if len(self._watched) < len(self.running):
            watched = frozenset(self._watched.values())
            ended = [one for pid in self.running if pid not in watched and (one := os.wait4(pid, os.WNOHANG))[0]]
            seconds = 0 if ended else _NO_PIDFD_PAUSE
        spoken = False
        for fd, _ in self._poll.poll(seconds if seconds is None else seconds * 1000):
            pid = self._watched.pop(fd, None)
            if pid is None:
                spoken = True
            else:
                self._poll.unregister(fd)
                os.close(fd)
                ended.append(os.wait4(pid, 0))
        return ended, spoken

    def close(self) -> None:
        for fd in self._watched:
            self._poll.unregister(fd)
            os.close(fd)
        self._watched.clear()


class BySignals(Waking):
    """SIGCHLD tells of ends and SIGIO of what comes through `heard`: a call for each task, where descriptors take four.

    These two signals wait until they are asked for. Others are handled as they come, and wake us since one of `heard`
    is the pipe that Python then writes into.
    """

    def __init__(self, running: Collection[int], heard: Collection[int]) -> None:
        super().__init__(running)
        self._heard = heard
        self._looked = False
        signal.signal(signal.SIGIO, _ignore)  # what else it does is to end us
        signal.pthread_sigmask(signal.SIG_BLOCK, _WAKES)
        for fd in heard:
            _signalled(fd, True)

    def wait(self, seconds: float | None) -> tuple[list[Reaped], bool]:
        if not self._looked:  # for what came before it was signalled
            self._looked = True
            return [], True
        told = signal.sigwaitinfo(_WAKES) if seconds is None else signal.sigtimedwait(_WAKES, seconds)
        if told is None:
            return [], False
        if told.si_signo == signal.SIGCHLD:
            return self._ended(), False
        # CPython 3.11 answers with any number where we were stopped until the time was over: then we look, too
        return [], True

    def _ended(self) -> list[Reaped]:
        ended: list[Reaped] = []
        left = len(self.running)
        while left and (one := os.wait4(-1, os.WNOHANG))[0]:
            ended.append(one)
            left -= one[0] in self.running
        return ended

    def close(self) -> None:
        for fd in self._heard:
            _signalled(fd, False)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _WAKES)


def orders_are_signalled() -> bool:
    """Whether this system sends SIGIO for what comes through a socket, and lets us wait for it: Linux does."""
    if not hasattr(signal, "sigtimedwait"):
        return False
    before = signal.signal(signal.SIGIO, _ignore)
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGIO,))
    ours, theirs = socket.socketpair()
    try:
        _signalled(ours.fileno(), True)
        theirs.send(b"?")
        return signal.sigtimedwait((signal.SIGIO,), 0) is not None
    except OSError:
        return False
    finally:
        ours.close()
        theirs.close()
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        signal.signal(signal.SIGIO, before)


def _signalled(fd: int, on: bool) -> None:
    """Let the system send us SIGIO when something comes or there is room again, or no longer."""
    fcntl.fcntl(fd, fcntl.F_SETOWN, os.getpid())
    flags = fcntl.fcntl(fd, fcntl.F_GETFL)
    fcntl.fcntl(fd, fcntl.F_SETFL, flags | os.O_ASYNC if on else flags & ~os.O_ASYNC)


def _ignore(number: int, frame: FrameType | None) -> None:
    pass
