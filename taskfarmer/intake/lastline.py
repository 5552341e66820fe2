"""When the last line of a list is complete although it has no newline.

A program that writes a list through a buffer leaves half a line at its end between two flushes. Half a command must
never run. So a last line without newline is complete only if

* the list was last changed more than a minute ago, by the clock of the file server; or
* this farmer saw it unchanged for ten seconds, by the monotonic clock of its own node.

Until then the line is *pending*, and the farmer stays. The clock of the file server is read from the time of a file
that was just made on the list's file system; the node's own clock is never compared with it. If no such file can be
made, the list counts as young, which costs ten seconds.
"""

from __future__ import annotations

import os
import random
import stat
import time

from taskfarmer.storage import durable

OLD = 60.0
"""Seconds after its last change from which a list is taken as it is."""
QUIET = 10.0
"""Seconds for which a younger list must stay unchanged."""
_SPREAD = 0.5
"""Seconds over which farmers that started together spread their last look: one of them is enough."""


class LastLine:
    """The last line of a list, as one farmer sees it. `pending`: it has no newline, and may be incomplete.

    `due` is when it is complete if the list does not change until then, on the monotonic clock.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        self.pending = False
        self.due = 0.0
        self._seen: tuple[int, ...] = ()

    def is_complete(self, status: os.stat_result, size: int, fresh: str) -> bool:
        """Whether the line is complete, in a list of this `status` that was read up to byte `size`; else it is pending.

        `fresh` is a file that this farmer has just made in its farm.
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
        """The list cannot be read now as far as it is complete: look at it again later."""
        if not self.pending:
            self.pending, self.due = True, time.monotonic() + QUIET

    def _is_old(self, status: os.stat_result, fresh: str) -> bool:
        # The change time is the file server's, too: it is later if the list was copied with its time, or renamed.
        if status.st_ctime - status.st_mtime > OLD:
            return True
        try:
            made = os.stat(fresh)
            if made.st_dev != status.st_dev:
                made = self._made_beside()
        except OSError:
            return False
        return made.st_dev == status.st_dev and made.st_ctime - status.st_mtime > OLD

    def _made_beside(self) -> os.stat_result:
        """The status of a file that was just made in the directory of the list, and is gone again."""
        path = os.path.join(os.path.dirname(os.path.realpath(self.path)), f".taskfarmer.{durable.random_name()}")
        descriptor = durable.open_exclusive(path, os.O_WRONLY)
        try:
            return os.fstat(descriptor)
        finally:
            durable.close_quietly(descriptor)
            durable.unlink_quietly(path)


def has_newline(path: str, status: os.stat_result) -> bool:
    """Whether a file ends with a newline, or is not a file with an end; an empty one does."""
    if not stat.S_ISREG(status.st_mode) or not status.st_size:
        return True
    with open(path, "rb") as stream:
        stream.seek(status.st_size - 1)
        return stream.read(1) == b"\n"
