"""Compare-and-swap: revisions, one after the other, each written by exactly one farmer.

Owns `ledger/`. A commit prepares a file in `tmp/` of the current epoch and links it to the number after the newest
revision; the file system lets one farmer succeed. The farmer then *reads* which one did, from `by` of that revision or
from the number in its entry of a later one; it does not rely on the reply of `link`. A crash leaves a prepared file
that is never linked, or a complete revision. `HEAD` is a hint and may have any content.

An epoch is a directory with a random suffix in its name. After `epoch_length` revisions a commit names the next epoch.
The last but one is then removed, `tmp/` first, so that a farmer that slept since has no file left to link. If its epoch
is gone, a farmer searches for the newest revision again; if its *farm* is gone, it finds another `farm.json`, or none.
"""

from __future__ import annotations

import errno
import math
import os
import random
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Literal

from taskfarmer.errors import (
    AGAIN,
    Contended,
    Damaged,
    FarmGone,
    FileTooLarge,
    Forked,
    StaleView,
    StorageError,
    hit_a_limit,
    remedy,
)
from taskfarmer.formats.sealed import sealed, unsealed
from taskfarmer.ledger import epochs, farmfile, head
from taskfarmer.ledger.document import RESTORE, decode, refuse_contradictions, to_document
from taskfarmer.ledger.state import State, begin_epoch, stamp
from taskfarmer.storage import durable, locks, turns
from taskfarmer.storage.eventually import FOR_A_NAME, FOR_CONTENTS, wait_until_visible
from taskfarmer.storage.layout import Workdir, epoch_number, is_revision
from taskfarmer.storage.locks import FarmLock

PATIENCE = FOR_CONTENTS
FIRST_PAUSE = 0.02
MIN_BACKOFF, MAX_BACKOFF = 1.0, 5.0
"""Bounds of the longest pause after several lost commits, in seconds."""
BACKOFF_OF_A_FARMER = 8.0
"""That pause is so many times the time for which all farmers together hold the lock once."""
_GONE = (errno.ENOENT, errno.ESTALE, errno.ENOTDIR)
Change = Callable[[State], State]


def encode(state: State) -> bytes:
    return sealed(to_document(state))


def _whole_document(path: str) -> dict[str, object]:
    """The document in a revision; Damaged if its checksum is wrong, for instance if the file still looks short."""
    data = durable.read(path)
    document = unsealed(data)
    if document is None:
        raise Damaged(f"{path}: corrupt ({len(data)} bytes, checksum mismatch); {RESTORE}")
    return document


def _unreadable(path: str, error: OSError) -> StorageError:
    return StorageError(f"{path}: {error.strerror}; the ledger cannot be read; {remedy(error, RESTORE)}")


class Commits:
    """The revisions of one farm.

    `lost` counts commits that another farmer won, `commits` those that we won. `exclusive` is a moving average of the
    seconds for which we hold the lock. `uncertain` means that our last commit failed and may have landed nevertheless.
    `between` is called between file operations. It may raise Stopped, which has the effect of a failed file operation.
    """

    def __init__(
        self, workdir: Workdir, farm: str, lock: FarmLock, epoch_length: int, patience: float = PATIENCE
    ) -> None:
        self.workdir = workdir
        self.farm = farm
        self.lock = lock
        self.turn = turns.Turn(workdir.turn)
        self.epoch_length = epoch_length
        self.patience = patience
        self.between: Callable[[], None] = lambda: None
        self.last_seen: State | None = None
        self.uncertain = False
        self._seen = (-1, "")
        self.lost = 0
        self.commits = 0
        self.exclusive = 0.0

    # --- reading -------------------------------------------------------------------------------

    def _load(self, epoch: str, number: int) -> State | None:
        """A revision; None if it does not exist or is not visible yet."""
        self.between()
        path = self.workdir.revision(epoch, number)
        try:
            document = wait_until_visible(lambda: _whole_document(path), FOR_A_NAME, 0.1, Damaged)
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            if error.errno == errno.ESTALE:
                return None
            raise _unreadable(path, error) from error
        state = decode(path, document)
        if state.farm == self.farm and state.revision >= self._seen[0]:
            self._seen = state.revision, epoch
        return state

    def _from_hint(self) -> State | None:
        """The revision in `HEAD`, if it is of this farm."""
        try:
            epoch, number = head.read(self.workdir)
            found = self._load(epoch, number)
        except (OSError, ValueError):
            return None
        return found if found is not None and found.farm == self.farm else None

    def _from_listing(self) -> State | None:
        """The newest revision of this farm, by the names in the directories."""
        names: list[tuple[int, str]] = []
        try:
            found = [name for name in os.listdir(self.workdir.ledger) if epoch_number(name) is not None]
        except OSError as error:
            if error.errno not in _GONE:
                raise _unreadable(self.workdir.ledger, error) from error
            return None
        for epoch in found:
            try:
                names += [(int(name), epoch) for name in os.listdir(self.workdir.epoch(epoch)) if is_revision(name)]
            except OSError as error:
                if hit_a_limit(error):
                    raise _unreadable(self.workdir.epoch(epoch), error) from error
        for number, epoch in sorted(names, reverse=True):
            state = self._load(epoch, number)
            if state is not None and state.farm == self.farm:
                return state
            if state is None and os.path.islink(self.workdir.revision(epoch, number)):
                raise Damaged(f"{self.workdir.revision(epoch, number)}: a dangling symbolic link; {RESTORE}")
        return None

    def check_farm(self) -> None:
        """Raise FarmGone unless the directory still contains our farm."""
        try:
            document = farmfile.document_of(self.workdir)
        except OSError as error:
            if error.errno not in (errno.ENOENT, errno.ENOTDIR, errno.ESTALE):
                advice = f"the farm cannot be read; {remedy(error, RESTORE)}"
                raise StorageError(f"{self.workdir.farm}: {error.strerror}; {advice}") from error
            document = {}
        if document is None or document.get("farm") != self.farm:
            raise FarmGone(f"{self.workdir.path}: the work directory was deleted or re-created while in use; stopping")

    def newest(self) -> State:
        """The newest visible revision, which is never older than one read before.

        Damaged if the first one that we read contradicts itself: a stranger may have written it.
        """
        state = wait_until_visible(self._newest_or_stale, self.patience, 0.125, jitter=0.075)
        if self.last_seen is None:
            refuse_contradictions(self.workdir.revision(self._seen[1], state.revision), state)
        self.last_seen = state
        return state

    def _newest_or_stale(self) -> State:
        """One attempt to find the newest revision; StaleView if it is not visible."""
        state = self._find_newest()
        if state is not None:
            return state
        self.check_farm()
        raise StaleView(
            f"{self.workdir.ledger}: no revision is as new as one seen before; the file system shows old contents, or "
            f"the ledger was deleted, or {self.workdir.farm} belongs to another farm; restore them from a snapshot, or "
            "start a new farm in another work directory (-w)"
        )

    def _find_newest(self) -> State | None:
        """The newest visible revision; None if it is older than one seen before."""
        state = self.last_seen
        hint = self._from_hint()
        confirmed = state is not None and hint is not None and hint.revision >= state.revision
        if hint is not None and (state is None or hint.revision > state.revision):
            state = hint
        if state is not None:
            start = state.revision
            state = self._follow(state)
            if confirmed or state.revision > start:
                return state
        listed = self._from_listing()
        if listed is None or (state is not None and listed.revision < state.revision):
            # the directory of our last revision may be cached, and then it is valid, or it was removed
            exists = state is not None and os.path.isdir(self.workdir.epoch(state.epoch))
            return state if exists else None
        return self._follow(listed)

    def _follow(self, state: State) -> State:
        """The last of the revisions after `state`."""
        while True:
            following = self._load(state.epoch, state.revision + 1)
            if following is None:
                return state
            if following.farm != self.farm or following.revision != state.revision + 1:
                self.check_farm()
                path = self.workdir.revision(state.epoch, state.revision + 1)
                raise Damaged(f"{path}: not a revision of this farm; {RESTORE}")
            state = following

    # --- writing -------------------------------------------------------------------------------

    def commit(self, change: Change, by: str, seq: int, patience: float = math.inf) -> State:
        """Apply `change` to the newest state and make the result the next revision, retrying after lost commits.

        `change` gets the newest state and returns the next state, or the same object if there is nothing to do. It is
        called again after each lost commit, so it must have no side effects. Contended if this takes longer than
        `patience` seconds, including the wait for the lock; there is at least one attempt.
        """
        attempt = 0
        end = time.monotonic() + patience
        stuck: tuple[int, float] | None = None
        while True:
            with self._exclusively(f"{by}.{seq}.{attempt}", end):
                start = time.monotonic()
                state = self.newest()
                mine = state.farmers.get(by)
                if state.by == (by, seq) or (mine is not None and mine.seq == seq):
                    self.uncertain = False
                    self.make_durable(state)
                    return state  # an earlier attempt won, although its reply was lost
                next_state = change(state)
                if next_state is state:
                    if self.uncertain:  # perhaps our earlier attempt did it
                        self.make_durable(state)
                    return state
                won = self._try(state, next_state, by, seq)
                self.exclusive += 0.3 * (time.monotonic() - start - self.exclusive)
            if won is not None:
                self.make_durable(won)  # outside of the lock: the next commit makes our name durable, too
                self.commits += 1
                self.turn.won()
                if won.epoch != state.epoch:
                    epochs.sweep(self.workdir, won.epoch, self.farm, self.between)
                return won
            self.lost += 1
            self.turn.lost()
            attempt += 1
            stuck = self._check_progress(state, stuck)
            if time.monotonic() > end:
                raise Contended(f"{self.workdir.ledger}: {attempt} commits were lost to other farmers")
            pause = self.backoff(attempt, len(state.farmers))
            self._sleep(random.uniform(0, min(pause, max(0.0, end - time.monotonic()))))

    @contextmanager
    def _exclusively(self, text: str, end: float) -> Iterator[None]:
        """Keep other farmers from committing inside the block, as far as possible, but wait no longer than `end`."""
        with self.lock.held(min(locks.PATIENCE, max(0.0, end - time.monotonic()))):
            if not self.commits:
                self.turn.do_as_others()
            with self.turn.taken(text, min(turns.PATIENCE, max(0.0, end - time.monotonic()))):
                yield

    def _sleep(self, seconds: float) -> None:
        """Sleep, and call `between` at least once per second."""
        while True:
            self.between()
            time.sleep(min(seconds, 1.0))
            seconds -= 1.0
            if seconds <= 0:
                return

    def backoff(self, attempt: int, farmers: int) -> float:
        """The maximum pause in seconds before the next attempt, after `attempt` lost commits.

        It grows fast until all farmers that may be retrying have enough time: if locks are not shared and many farmers
        start at once, early retries are lost again.
        """
        longest = min(MAX_BACKOFF, max(MIN_BACKOFF, BACKOFF_OF_A_FARMER * farmers * self.exclusive))
        return float(min(FIRST_PAUSE * 4 ** min(attempt, 8), longest))

    def _check_progress(self, state: State, since: tuple[int, float] | None) -> tuple[int, float]:
        """The revision after which commits are lost, and since when; StaleView if no farmer has won for too long."""
        now = time.monotonic()
        if since is None or since[0] != state.revision:
            return state.revision, now
        if now - since[1] > self.patience:
            raise StaleView(
                f"{self.workdir.prepared(state.epoch)}: all commits after revision {state.revision} fail: this "
                "directory is missing or not visible; restore it from a snapshot, or create a new farm (-w)"
            )
        return since

    def _try(self, state: State, next_state: State, by: str, seq: int) -> State | None:
        """One attempt at the revision after `state`: the revision if it is ours, None if we lost or that is unknown."""
        following = replace(stamp(next_state, by, seq), revision=state.revision + 1, by=(by, seq))
        new_epoch: str | None = None
        linked = False
        try:
            if 0 < state.revision < state.epoch_from:
                # the last revision is in another directory, which our sync of this one does not cover; the first
                # revision of all is in this one
                self.make_durable(state)
            if following.revision - state.epoch_from + 1 >= self.epoch_length:
                new_epoch = epochs.make(self.workdir, epochs.after(state.epoch))
                closed = epochs.close_journals(self.workdir, state.departed, state.farmers, self.between)
                following = begin_epoch(following, new_epoch, closed)
            prepared = os.path.join(self.workdir.prepared(state.epoch), f"{by}.{seq}.{durable.random_name()}")
            durable.prepare(prepared, encode(following), self.workdir.shared)
            self.between()
            linked = self.uncertain = True
            won = self._link(state, following, prepared)
            self.uncertain = won is None
        except OSError as error:
            if not linked:
                self._drop_epoch(new_epoch)
            if error.errno not in _GONE:
                where = error.filename or self.workdir.ledger
                outcome = "nothing was committed"
                if linked:
                    outcome = "outcome of the commit unknown; it will be resolved on the next attempt"
                kind = FileTooLarge if error.errno == errno.EFBIG else StorageError
                raise kind(f"{where}: {error.strerror}; {outcome}; {remedy(error, AGAIN)}") from error
            won = None
            self.check_farm()
        if not isinstance(won, State):
            # if the winner is unknown, a revision that we cannot see yet may name the new epoch: leave it to the
            # next sweep
            if won is False:
                self._drop_epoch(new_epoch)
            return None
        if new_epoch is not None and won.revision == following.revision and won.epoch != new_epoch:
            self._drop_epoch(new_epoch)  # our earlier attempt landed unseen, and names another epoch
        self.last_seen = won
        self.write_hint(self._seen[1], won.revision)
        return won

    def _drop_epoch(self, new_epoch: str | None) -> None:
        if new_epoch is not None:
            epochs.drop(self.workdir, new_epoch)

    def _link(self, state: State, following: State, prepared: str) -> State | Literal[False] | None:
        """The revision that we committed; False if we lost; None if that cannot be read, and is not in our entry.

        The revision is the one that was read: if an earlier attempt of the same commit landed unseen, it is not
        `following`.
        """
        answer = durable.publish(prepared, self.workdir.revision(state.epoch, following.revision))
        return wait_until_visible(lambda: self._read_winner(state, following, answer), self.patience, 0.05)

    def _read_winner(self, state: State, following: State, answer: OSError | None) -> State | Literal[False] | None:
        """One attempt to read which farmer won; StaleView if nothing is visible yet."""
        by, seq = following.by
        target = self.workdir.revision(state.epoch, following.revision)
        found = self._load(state.epoch, following.revision)
        if found is not None:
            if answer is None and found.by != following.by:
                raise Forked(
                    f"{target}: `link` reported success, but the revision is from {found.by[0]}; this file system "
                    "cannot be shared safely"
                )
            if found.by == following.by:
                return found
            self.last_seen = found
            return False
        later = self._from_listing()
        if later is not None and later.revision > state.revision:
            entry = later.farmers.get(by)  # we slept until the epoch was removed
            return later if entry is not None and entry.seq == seq else None
        if answer is not None and answer.errno != errno.EEXIST:
            raise answer
        self.check_farm()
        raise StaleView(f"{target}: `link` reports that it exists, but it cannot be read; {AGAIN}")

    def make_durable(self, state: State) -> None:
        """Make sure that a state, perhaps from another farmer, survives a power failure.

        This also makes all earlier revisions durable: the first commit of an epoch does this with the last revision of
        the epoch before.
        """
        number, epoch = self._seen
        if number != state.revision:
            return
        self.between()
        try:
            durable.sync_directory(self.workdir.epoch(epoch))
        except OSError as error:
            if error.errno in _GONE:
                self.check_farm()
                return
            path = self.workdir.epoch(epoch)
            raise StorageError(f"{path}: {error.strerror}; a commit may be lost; {remedy(error, AGAIN)}") from error

    def write_hint(self, epoch: str, number: int) -> None:
        head.write(self.workdir, epoch, number)
