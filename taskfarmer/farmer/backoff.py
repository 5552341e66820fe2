"""Backoff of a farmer that cannot start tasks through no fault of the tasks: it waits, and finally gives up."""

from __future__ import annotations

from taskfarmer.options import Reporter
from taskfarmer.worker.output.limit import has_room

GIVE_UP_AFTER = 60.0


class Backoff:
    """No task is started before `until`, because of `reason`."""

    def __init__(self, reporter: Reporter, logs_fd: int) -> None:
        self.reporter = reporter
        self.logs_fd = logs_fd
        self.until = 0.0
        self.reason = ""
        self._since: float | None = None

    def extend(self, now: float, reason: str) -> None:
        """Wait longer than before, because another start failed."""
        if self._since is None or now > self.until + GIVE_UP_AFTER:
            self._since = now
            self.reporter.warning(f"{reason}; not starting tasks until this is resolved")
        self.reason = reason
        self.until = now + min(5.0, 0.5 + (now - self._since) / 4)

    def has_timed_out(self, now: float) -> bool:
        return self._since is not None and now - self._since > GIVE_UP_AFTER

    def disk_still_full(self, now: float) -> bool:
        """Whether the disk of the logs, which kept tasks from starting, is still full."""
        if self._since is None or now < self.until:
            return False
        if now > self.until + GIVE_UP_AFTER:
            self._since = None
            return False
        return not has_room(self.logs_fd)

    def reset(self) -> None:
        """End the backoff, because a task has finished."""
        self._since = None
