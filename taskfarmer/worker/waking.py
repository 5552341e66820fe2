"""Wait until a task exits or a command arrives, with one `poll`."""

from __future__ import annotations

import os
import select
from collections.abc import Collection
from typing import Any

Reaped = tuple[int, int, Any]
"""The result of `os.wait4`: process, wait status, usage."""
_PAUSE_WITHOUT_PIDFD = 0.01


class ExitWatcher:
    """Watches each task by a descriptor (pidfd_open(2)), besides the descriptors that `poll` watches already.

    `running` contains the processes of tasks; their worker adds and removes them.
    """

    def __init__(self, running: Collection[int], poll: select.poll) -> None:
        self._running = running
        self._poll = poll
        self._watched: dict[int, int] = {}  # descriptor -> process

    def add(self, pid: int) -> None:
        """Watch the process of a task that has just started."""
        try:
            fd = os.pidfd_open(pid)
        except (AttributeError, OSError):  # Linux before 5.3, or no descriptor is free: `wait` asks for its status
            return
        self._watched[fd] = pid
        self._poll.register(fd, select.POLLIN)

    def wait(self, seconds: float | None) -> tuple[list[Reaped], bool]:
        """Wait up to `seconds`; return the tasks that have exited, and whether another descriptor is ready."""
        ended: list[Reaped] = []
        if len(self._watched) < len(self._running):
            watched = frozenset(self._watched.values())
            unwatched = (pid for pid in self._running if pid not in watched)
            ended = [reaped for pid in unwatched if (reaped := os.wait4(pid, os.WNOHANG))[0]]
            pause = 0.0 if ended else _PAUSE_WITHOUT_PIDFD
            seconds = pause if seconds is None else min(seconds, pause)
        others_ready = False
        for fd, _ in self._poll.poll(seconds if seconds is None else seconds * 1000):
            pid = self._watched.pop(fd, None)
            if pid is None:
                others_ready = True
            else:
                self._poll.unregister(fd)
                os.close(fd)
                ended.append(os.wait4(pid, 0))
        return ended, others_ready

    def close(self) -> None:
        """Stop watching. The worker waits for tasks that still run in another way."""
        for fd in self._watched:
            self._poll.unregister(fd)
            os.close(fd)
        self._watched.clear()
