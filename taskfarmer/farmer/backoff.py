"""A farmer that cannot start tasks, for reasons that are not theirs: it waits, and gives up in the end."""

from __future__ import annotations

from taskfarmer.options import Reporter
from taskfarmer.worker.output.limit import has_room

START_TROUBLE_FOR = 60.0


class Hold:
    """`until` is when the next task may be begun; `text` why not before."""

    def __init__(self, reporter: Reporter, logs_fd: int) -> None:
        self.reporter = reporter
        self.logs_fd = logs_fd
        self.until = 0.0
        self.text = ""
        self._since: float | None = None

    def renew(self, now: float, text: str) -> None:
        """A task could not be begun again: wait longer than before."""
        if self._since is None or now > self.until + START_TROUBLE_FOR:
            self._since = now
            self.reporter.warning(f"{text}; no task is started until this is over")
        self.text = text
        self.until = now + min(5.0, 0.5 + (now - self._since) / 4)

    def lasts_too_long(self, now: float) -> bool:
        return self._since is not None and now - self._since > START_TROUBLE_FOR

    def full(self, now: float) -> bool:
        """Whether the disk of the logs, for which no task could be begun, is still full."""
        if self._since is None or now < self.until:
            return False
        if now > self.until + START_TROUBLE_FOR:
            self._since = None
            return False
        return not has_room(self.logs_fd)

    def over(self) -> None:
        """A task was begun, and ended well."""
        self._since = None
