"""A question to a scheduler's client, asked without waiting for the answer.

The client runs beside the farmer and writes into a file in memory. `answer` only looks whether it has ended; a client
that takes longer than `PATIENCE` is killed. One that cannot be started, hangs or fails has given no answer.
"""

from __future__ import annotations

import math
import os
import signal
import time
from collections.abc import Iterable, Sequence

from taskfarmer.proctree import send

PATIENCE = 30.0
LAST_BREATH = 2.0
"""Seconds for a killed client to end: the kernel may hold it, if a file system hangs."""
LONGEST_ANSWER = 1 << 24
MOST_DESCRIPTORS = 4096


class Question:
    """A client under way. `words` is its command line, `variables` are added to its environment.

    It gets none of our descriptors: with the lock on our alive file it would seem to be us when we are gone.
    """

    def __init__(self, words: Sequence[str], **variables: str) -> None:
        self.until = time.monotonic() + PATIENCE
        self._last_breath = math.inf
        self._text = ""
        self._pid = 0
        self._fd = null = -1
        try:
            self._fd = os.memfd_create("answer")
            null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
            files: list[tuple[int, ...]] = [(os.POSIX_SPAWN_CLOSE, fd) for fd in _inherited()]
            files += [(os.POSIX_SPAWN_DUP2, one, to) for one, to in ((null, 0), (self._fd, 1), (null, 2))]
            environment = {**os.environ, **variables}
            self._pid = os.posix_spawnp(words[0], list(words), environment, file_actions=files, setsigmask=())
        except OSError:
            self._close()
        finally:
            if null >= 0:
                os.close(null)

    def answer(self) -> str | None:
        """The client's output; empty if it failed or did not end in time, None while it runs.

        It is known when the client is gone, so that no zombie of it stays.
        """
        now = time.monotonic()
        if self._runs():
            if now < self.until:
                return None
            if self._last_breath == math.inf:
                send(self._pid, signal.SIGKILL)
                self._last_breath = now + LAST_BREATH
            if now < self._last_breath:
                return None
        self._close()
        return self._text

    def _runs(self) -> bool:
        if self._pid:
            try:
                gone, status = os.waitpid(self._pid, os.WNOHANG)
            except ChildProcessError:  # the pool reaped it, as it does when a worker was lost: its status is not known
                gone, status = self._pid, 1
            if gone:
                self._pid = 0
                if status == 0 and self._fd >= 0:
                    self._text = os.pread(self._fd, LONGEST_ANSWER, 0).decode("utf-8", "replace").strip()
        return self._pid != 0

    def _close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


def _inherited() -> list[int]:
    """Our descriptors that a program gets if nothing is done about it."""
    try:
        numbers: Iterable[int] = map(int, os.listdir("/proc/self/fd"))
    except OSError:
        numbers = range(MOST_DESCRIPTORS)  # without /proc; few farmers have more
    return [fd for fd in numbers if fd > 2 and _is_inherited(fd)]


def _is_inherited(fd: int) -> bool:
    try:
        return os.get_inheritable(fd)
    except OSError:  # not open, or the one with which they were listed
        return False
