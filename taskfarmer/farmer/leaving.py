"""How a farmer leaves the ledger: by a commit, or with a farewell note.

    leave -> commit -> gone
                    -> too late (commits of others win, or file operations are slow) -> journal -> note -> gone

When the farmer writes the note, none of its tasks runs, and all its results are in its journal, on disk. The note
contains the length of the journal. The next farmer that starts or runs out of tasks expels the one that left: it
counts the results in the journal and releases the other tasks. A farmer that is killed before it writes the note is
found dead like any other.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from taskfarmer.errors import Contended, Stopped, StorageError
from taskfarmer.farmer.exchanges import Exchanges
from taskfarmer.farmer.peers import PeerMonitor
from taskfarmer.farmer.pulse import LEAVE, Pulse
from taskfarmer.formats.intervals import Interval
from taskfarmer.ledger.ledger import Ledger

PATIENCE = 10.0
PATIENCE_STOPPED = 3.0
"""Seconds for which a stopped farmer tries to leave by a commit: hundreds may be stopped at the same time."""
SLOW_COMMIT = 5.0
"""If the exclusive section of commits takes more seconds than this, a farmer that got a signal does not commit."""


class Leaving:
    """`note_left`: the farmer left with a note."""

    def __init__(self, ledger: Ledger, exchanges: Exchanges, peers: PeerMonitor, pulse: Pulse) -> None:
        self.ledger = ledger
        self.exchanges = exchanges
        self.peers = peers
        self.pulse = pulse
        self.note_left = False

    @property
    def too_slow(self) -> bool:
        """Whether a commit, or an update of the views, would take too long after a signal."""
        slow = self.pulse.interrupted or self.ledger.commits.exclusive > SLOW_COMMIT
        return self.pulse.signals.since is not None and slow

    def leave(self, release: Callable[[list[Interval]], None], patience: Callable[[], float], stopped: bool) -> bool:
        """Settle the last results and leave; True if that succeeded by a commit, False if with a note.

        `release` is called with the tasks that were not started. Raises StorageError if the disk rejects the results
        for more than `patience()` seconds.
        """
        started = time.monotonic()
        self.pulse.allow(LEAVE)
        while not self.ledger.all_settled or self.ledger.registered:
            # an earlier commit that seemed to fail may have claimed tasks after all
            release(self.exchanges.remove_unstarted())
            if self.too_slow:
                return self._leave_note()
            try:
                self.exchanges.exchange(0, leave=True, patience=PATIENCE_STOPPED if stopped else PATIENCE)
            except (Contended, Stopped):
                return self.ledger.has_left() or self._leave_note()
            if not self.exchanges.storage_error:
                continue  # the commit that succeeded may have been an earlier one, which did not leave
            now = time.monotonic()
            self.pulse.on_signal(now)
            if now - started > patience():
                raise StorageError(self.exchanges.storage_error)
            self.peers.write_heartbeat([])  # so that others do not expel a farmer that only retries
            time.sleep(0.5)
        return True

    def _leave_note(self) -> bool:
        journal, size = self.ledger.flush_journal()
        try:
            self.peers.leave_note(journal, size)
        except OSError as error:
            raise StorageError(
                f"{error.filename}: {error.strerror}; other farmers take over after the lease"
            ) from error
        self.note_left = True
        self.exchanges.reporter.info("left with a note instead of a commit: the next farmer settles the journal")
        return False
