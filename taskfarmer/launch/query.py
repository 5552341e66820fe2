"""An asynchronous query of a scheduler's client.

The client runs in the background and writes into a file in memory. `answer` polls and never waits; a client that runs
longer than `PATIENCE` is killed. If the client cannot be started, hangs or fails, the answer is empty.
"""

from __future__ import annotations

import math
import os
import signal
import time
from collections.abc import Iterable, Sequence

from taskfarmer.proctree import send

PATIENCE = 30.0
KILL_PATIENCE = 2.0
"""Seconds to wait for a killed client: the kernel may keep it while a file system hangs."""
LONGEST_ANSWER = 1 << 24
MOST_DESCRIPTORS = 4096


class Question:
    """A running client. `words` is its command line; `variables` are added to its environment.

    It inherits none of this process's descriptors: if it kept the lock on the alive file, this farmer would seem to
    be alive after its death.
    """

    def __init__(self, words: Sequence[str], **variables: str) -> None:
        self.deadline = time.monotonic() + PATIENCE
        self._kill_deadline = math.inf
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
        """The client's output; empty if it failed or timed out, None while it runs.

        The answer is final only after the client was reaped, so that it does not remain as a zombie.
        """
        now = time.monotonic()
        if self._runs():
            if now < self.deadline:
                return None
            if self._kill_deadline == math.inf:
                send(self._pid, signal.SIGKILL)
                self._kill_deadline = now + KILL_PATIENCE
            if now < self._kill_deadline:
                return None
        self._close()
        return self._text

    def _runs(self) -> bool:
        if self._pid:
            try:
                gone, status = os.waitpid(self._pid, os.WNOHANG)
            except ChildProcessError:  # the pool reaped it, as it does after losing a worker: its status is unknown
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
    """The descriptors of this process that a child would inherit."""
    try:
        numbers: Iterable[int] = map(int, os.listdir("/proc/self/fd"))
    except OSError:
        numbers = range(MOST_DESCRIPTORS)  # /proc is missing; few farmers have more descriptors
    return [fd for fd in numbers if fd > 2 and _is_inherited(fd)]


def _is_inherited(fd: int) -> bool:
    try:
        return os.get_inheritable(fd)
    except OSError:  # closed; or it was the descriptor of the listing itself
        return False
