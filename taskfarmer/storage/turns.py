"""Whose turn it is to commit, where the lock is not shared between nodes.

A symbolic link that leads nowhere, in the directory that all farmers share: one operation makes it, for one farmer
only, its text says whose turn it is, and one operation removes it. Nothing is decided by it: it keeps farmers from
colliding, like the lock, and costs more than that. So it is for those whose commits were lost lately. They wait for it
for a bounded time, and what a dead farmer left there is removed by whoever sees the same text for too long.
"""

from __future__ import annotations

import os
import random
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from taskfarmer.storage import durable

CAREFUL = 100
"""Commits for which it is remembered that one was lost: where locks are not shared more are to come."""
STUCK_AFTER = 5.0
"""Seconds that one farmer may have its turn."""
PATIENCE = 15.0
"""Seconds that it is waited for."""
FIRST_PAUSE = 0.02
MOST_PAUSE = 2.0


class Turn:
    """The turn at the commits of one farm. It is taken for the next `careful` commits, and not asked for otherwise.

    `between` is called while we wait.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        self.careful = 0
        self.between: Callable[[], None] = lambda: None

    def lost(self) -> None:
        """A commit was lost."""
        self.careful = CAREFUL

    def won(self) -> None:
        """A commit was made."""
        self.careful = max(0, self.careful - 1)

    def do_as_others(self) -> None:
        """Be careful where somebody has the turn now: others have found out that it is needed."""
        if self._whose():
            self.careful = CAREFUL

    @contextmanager
    def taken(self, text: str, patience: float) -> Iterator[bool]:
        """Have the turn inside the block, or not; yields whether. It is waited for `patience` seconds.

        `text` is that of no other turn.
        """
        got = self.careful > 0 and self._wait(text, patience)
        start = time.monotonic()
        try:
            yield got
        finally:
            if got and (time.monotonic() - start < STUCK_AFTER / 2 or self._whose() == text):
                durable.unlink_quietly(self.path)

    def _wait(self, text: str, patience: float) -> bool:
        since = time.monotonic()
        end = since + patience
        pause, whose = FIRST_PAUSE, ""
        while True:
            try:
                os.symlink(text, self.path)
                return True
            except FileExistsError:
                found = self._whose()
            except OSError:
                return False  # no room, no symbolic links here: `link` finds out who wins
            self.between()
            now = time.monotonic()
            if found == text:
                return True  # it was made, and the reply was lost
            if found != whose:
                whose, since = found, now
            elif now - since > STUCK_AFTER:
                durable.unlink_quietly(self.path)
                return False
            if now >= end:
                return False
            time.sleep(min(end - now, pause * random.uniform(0.5, 1.5)))
            pause = min(pause * 1.5, MOST_PAUSE)

    def _whose(self) -> str:
        """The text of the one whose turn it is; "" where nobody has it, or it cannot be seen."""
        try:
            return os.readlink(self.path)
        except OSError:
            return ""
