"""Turns to commit, used if the lock is not shared between nodes.

A turn is a dangling symbolic link in the directory that all farmers share. One operation creates it, for one farmer
only; its text names that farmer's commit; one operation removes it. Like the lock it only keeps commits from colliding,
and it costs more. So only farmers that lost a commit recently use it. They wait for it for a limited time, and remove
the turn of a dead farmer when its text has not changed for too long.
"""

from __future__ import annotations

import os
import random
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from taskfarmer.storage import durable

CAREFUL = 100
"""Number of commits that use turns after a lost one: if locks are not shared, more would be lost."""
STUCK_AFTER = 5.0
"""Seconds after which a turn is taken from its owner."""
PATIENCE = 15.0
"""Seconds to wait for a turn."""
FIRST_PAUSE = 0.02
MOST_PAUSE = 2.0


class Turn:
    """The turn to commit on one farm. It is used for the next `careful` commits, and not otherwise.

    `between` is called while we wait.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        self.careful = 0
        self.between: Callable[[], None] = lambda: None

    def lost(self) -> None:
        """Record a lost commit."""
        self.careful = CAREFUL

    def won(self) -> None:
        """Record a successful commit."""
        self.careful = max(0, self.careful - 1)

    def do_as_others(self) -> None:
        """Use turns if another farmer has one now: the others have learned that they are needed."""
        if self._owner():
            self.careful = CAREFUL

    @contextmanager
    def taken(self, text: str, patience: float) -> Iterator[bool]:
        """Have the turn inside the block if it is available within `patience` seconds; yields whether we have it.

        `text` must be unique.
        """
        got = self.careful > 0 and self._wait(text, patience)
        start = time.monotonic()
        try:
            yield got
        finally:
            if got and (time.monotonic() - start < STUCK_AFTER / 2 or self._owner() == text):
                durable.unlink_quietly(self.path)

    def _wait(self, text: str, patience: float) -> bool:
        since = time.monotonic()
        end = since + patience
        pause, owner = FIRST_PAUSE, ""
        while True:
            try:
                os.symlink(text, self.path)
                return True
            except FileExistsError:
                found = self._owner()
            except OSError:
                return False  # a full disk, or no symbolic links here: `link` decides without a turn
            self.between()
            now = time.monotonic()
            if found == text:
                return True  # it was created, but the reply was lost
            if found != owner:
                owner, since = found, now
            elif now - since > STUCK_AFTER:
                durable.unlink_quietly(self.path)
                return False
            if now >= end:
                return False
            time.sleep(min(end - now, pause * random.uniform(0.5, 1.5)))
            pause = min(pause * 1.5, MOST_PAUSE)

    def _owner(self) -> str:
        """The text of the current turn; "" if it is missing or cannot be read."""
        try:
            return os.readlink(self.path)
        except OSError:
            return ""
