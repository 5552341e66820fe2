"""How a farmer leaves the ledger: by a commit, or with a note.

    leave -> commit -> gone
                    -> too late (others come first, or file operations take long) -> journal -> note -> gone

When the note is written, no task of ours runs, and everything that we have to tell is in our journal, on the disk.
The note contains the journal's length. The next farmer that starts, or finds nothing to take, expels us: it counts
the results that are in the journal, and releases the rest. A farmer that is killed before it wrote the note is
found dead like any other.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from taskfarmer.errors import Contended, Stopped, StorageError
from taskfarmer.farmer.exchanges import Exchanges
from taskfarmer.farmer.peers import Neighbours
from taskfarmer.farmer.pulse import LEAVE, Pulse
from taskfarmer.formats.intervals import Interval
from taskfarmer.ledger.ledger import Ledger

PATIENCE = 10.0
STOPPED = 3.0
"""Seconds for which a farmer that is stopped tries to leave by a commit: hundreds may be stopped at once."""
SLOW_COMMIT = 5.0
"""Seconds in the exclusive section of commits above which a farmer that got a signal does not try one more."""


class Leaving:
    """`note_left` says that the farmer left with a note."""

    def __init__(self, ledger: Ledger, exchanges: Exchanges, neighbours: Neighbours, pulse: Pulse) -> None:
        self.ledger = ledger
        self.exchanges = exchanges
        self.neighbours = neighbours
        self.pulse = pulse
        self.note_left = False

    @property
    def too_slow(self) -> bool:
        """Whether a commit, or the views, would take too long for a farmer that is to be gone after a signal."""
        slow = self.pulse.broke_off or self.ledger.commits.exclusive > SLOW_COMMIT
        return self.pulse.signals.since is not None and slow

    def leave(self, give_back: Callable[[list[Interval]], None], patience: Callable[[], float], stopped: bool) -> bool:
        """Tell the last news and leave; False if that was done with a note.

        `give_back` gets what we hold and did not begin. StorageError if the disk does not take the news for as
        long as we have `patience`, in seconds.
        """
        begin = time.monotonic()
        self.pulse.allow(LEAVE)
        while not self.ledger.all_settled or self.ledger.registered:
            # an earlier exchange that landed after all may have gained something
            give_back(self.exchanges.give_up())
            if self.too_slow:
                return self._leave_note()
            try:
                self.exchanges.make(0, leave=True, patience=STOPPED if stopped else PATIENCE)
            except (Contended, Stopped):
                return self.ledger.has_left() or self._leave_note()
            if not self.exchanges.trouble:
                continue  # what landed may have been an earlier exchange, that did not leave
            now = time.monotonic()
            self.pulse.hear(now)
            if now - begin > patience():
                raise StorageError(self.exchanges.trouble)
            self.neighbours.show([])  # whoever watches us must not take our patience for our death
            time.sleep(0.5)
        return True

    def _leave_note(self) -> bool:
        journal, size = self.ledger.flush_journal()
        try:
            self.neighbours.farewell(journal, size)
        except OSError as error:
            raise StorageError(
                f"{error.filename}: {error.strerror}; others take over when the lease is over"
            ) from error
        self.note_left = True
        self.exchanges.reporter.info("left with a note instead of a commit: the next farmer records what is left to do")
        return False
