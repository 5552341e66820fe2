"""Decides whether the last line of a list is complete although it has no newline.

A program that writes a list through a buffer leaves half a line at its end between two flushes. Half a command must
never run. So a last line without newline counts as complete only if

* the list was last changed more than a minute ago, by the clock of the file server; or
* this farmer has seen it unchanged for ten seconds, by its monotonic clock.

Until then the line is *pending*, and the farmer stays. To read the clock of the file server, the farmer creates a file
on the file system of the list and compares the times of both files. The clock of the node is not used for that. If the
file cannot be created, the list counts as young, which costs ten seconds.
"""

from __future__ import annotations

import os
import random
import stat
import time

from taskfarmer.storage import durable

OLD = 60.0
"""A list that was not changed for this many seconds is complete."""
QUIET = 10.0
"""Seconds for which a list that was changed recently must stay unchanged."""
_SPREAD = 0.5
"""Farmers that started together spread their last check over this many seconds: one of them is enough."""


class LastLine:
    """The last line of a list, as one farmer sees it. `pending`: it has no newline, and may be incomplete.

    `due`, on the monotonic clock, is when it counts as complete if the list does not change until then.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        self.pending = False
        self.due = 0.0
        self._seen: tuple[int, ...] = ()

    def is_complete(self, status: os.stat_result, size: int, fresh: str) -> bool:
        """Return whether the line is complete; if not, it becomes pending.

        The list has this `status` and was read up to byte `size`. `fresh` is a file that this farmer has just created
        in its farm.
        """
        now = time.monotonic()
        seen = (status.st_dev, status.st_ino, size, status.st_mtime_ns)
        if seen == self._seen:
            complete = now >= self.due
        else:
            complete = size == status.st_size and self._is_old(status, fresh)
            self._seen, self.due = seen, now + QUIET + random.uniform(0.0, _SPREAD)
        self.pending = not (complete or not stat.S_ISREG(status.st_mode))  # a pipe was read to its end
        return not self.pending

    def wait(self) -> None:
        """Check again later, because the complete lines alone cannot be read now."""
        if not self.pending:
            self.pending, self.due = True, time.monotonic() + QUIET

    def _is_old(self, status: os.stat_result, fresh: str) -> bool:
        # ctime is from the file server, too: it is later than mtime if the list was renamed, or copied with its time.
        if status.st_ctime - status.st_mtime > OLD:
            return True
        try:
            made = os.stat(fresh)
            if made.st_dev != status.st_dev:
                made = self._probe_status()
        except OSError:
            return False
        return made.st_dev == status.st_dev and made.st_ctime - status.st_mtime > OLD

    def _probe_status(self) -> os.stat_result:
        """Create and remove a file in the directory of the list; return its status."""
        path = os.path.join(os.path.dirname(os.path.realpath(self.path)), f".taskfarmer.{durable.random_name()}")
        descriptor = durable.open_exclusive(path, os.O_WRONLY)
        try:
            return os.fstat(descriptor)
        finally:
            durable.close_quietly(descriptor)
            durable.unlink_quietly(path)


def has_newline(path: str, status: os.stat_result) -> bool:
    """Whether a file ends with a newline, is empty, or is not a regular file."""
    if not stat.S_ISREG(status.st_mode) or not status.st_size:
        return True
    with open(path, "rb") as stream:
        stream.seek(status.st_size - 1)
        return stream.read(1) == b"\n"
