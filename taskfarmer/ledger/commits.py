"""The compare-and-swap: revisions, one after the other, each written by exactly one farmer.

Owns `ledger/`. A commit prepares a file in `tmp/` of the current epoch and links it to the number
after the newest revision; the file system lets one succeed. Who did is *read*, never believed: from
`by` of that revision, or from the number in the farmer's own entry of a later one. What a crash leaves
is a prepared file that nobody links, or a whole revision. `HEAD` is a hint and may hold anything.

An epoch is a directory with a random part in its name. After `epoch_length` revisions a commit names
the next one; the one before the last is then removed, `tmp/` first, so that whoever slept since has
nothing left to link. A farmer whose epoch is gone looks again from nothing; a farmer whose *farm* is
gone finds another `farm.json`, or none.
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
LEAST_ROOM = 1.0
MOST_ROOM = 5.0
ROOM = 8.0
_GONE = (errno.ENOENT, errno.ESTALE, errno.ENOTDIR)
Change = Callable[[State], State]


def encode(state: State) -> bytes:
    return sealed(to_document(state))


def _whole_document(path: str) -> dict[str, object]:
    """The document in a revision; Damaged if its checksum is wrong, for instance since it looks short yet."""
    data = durable.read(path)
    document = unsealed(data)
    if document is None:
        raise Damaged(f"{path}: not what was written into it ({len(data)} bytes, wrong checksum); {RESTORE}")
    return document


def _unreadable(path: str, error: OSError) -> StorageError:
    return StorageError(f"{path}: {error.strerror}; the ledger cannot be read; {remedy(error, RESTORE)}")


class Commits:
    """The revisions of one farm, read and written.

    `lost` counts commits that another farmer won, `commits` those that we won, `exclusive` is a moving
    average of the seconds between taking and leaving the lock. `uncertain` says that a commit of ours failed in
    such a way that it may have landed. `between` is called between file operations, and may raise Stopped: that is
    like a file operation that fails.
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
        """A revision, or None where there is none (or none that can be seen yet)."""
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

    def _hinted(self) -> State | None:
        try:
            epoch, number = head.read(self.workdir)
            found = self._load(epoch, number)
        except (OSError, ValueError):
            return None
        return found if found is not None and found.farm == self.farm else None

    def _listed(self) -> State | None:
        """The newest revision by the names in the directories, and none of another farm's."""
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
                raise Damaged(f"{self.workdir.revision(epoch, number)}: a symbolic link to nowhere; {RESTORE}")
        return None

    def check_farm(self) -> None:
        """Raise FarmGone unless the directory still holds the farm that we know."""
        try:
            document = farmfile.document_of(self.workdir)
        except OSError as error:
            if error.errno not in (errno.ENOENT, errno.ENOTDIR, errno.ESTALE):
                what = f"the farm cannot be read; {remedy(error, RESTORE)}"
                raise StorageError(f"{self.workdir.farm}: {error.strerror}; {what}") from error
            document = {}
        if document is None or document.get("farm") != self.farm:
            raise FarmGone(
                f"{self.workdir.path}: the work directory was deleted or made anew while in use; its tasks are "
                "ended here and nothing is written into it"
            )

    def newest(self) -> State:
        """The newest revision that can be seen; never one older than was seen before.

        Damaged if the first one that we see contradicts itself: it may be anybody's.
        """
        state = wait_until_visible(self._newest, self.patience, 0.125, jitter=0.075)
        if self.last_seen is None:
            refuse_contradictions(self.workdir.revision(self._seen[1], state.revision), state)
        self.last_seen = state
        return state

    def _newest(self) -> State:
        state = self._look()
        if state is not None:
            return state
        self.check_farm()
        raise StaleView(
            f"{self.workdir.ledger}: no revision can be seen that is as new as one seen before; the file "
            f"system shows old contents, or the ledger is lost, or {self.workdir.farm} is of another farm: "
            "restore them from a snapshot, or start anew in another work directory (-w)"
        )

    def _look(self) -> State | None:
        state = self.last_seen
        hint = self._hinted()
        confirmed = state is not None and hint is not None and hint.revision >= state.revision
        if hint is not None and (state is None or hint.revision > state.revision):
            state = hint
        if state is not None:
            start = state.revision
            state = self._forwards(state)
            if confirmed or state.revision > start:
                return state
        listed = self._listed()
        if listed is None or (state is not None and listed.revision < state.revision):
            # the directory of what we know may be cached, or removed: only the first is still true
            return state if state is not None and self._stands(state) else None
        return self._forwards(listed)

    def _stands(self, state: State) -> bool:
        return os.path.isdir(self.workdir.epoch(state.epoch))

    def _forwards(self, state: State) -> State:
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
        """Make `change` of the newest state the next revision, however often others come first.

        `change` gets the newest state and returns the next, or the same object for "nothing to do". It is
        called again after each lost commit, so it must have no effect but its result. Contended where that
        takes longer than `patience` seconds, waiting for the lock included; it is tried once at least.
        """
        attempt = 0
        end = time.monotonic() + patience
        stuck: tuple[int, float] | None = None
        while True:
            with self._alone(f"{by}.{seq}.{attempt}", end):
                start = time.monotonic()
                state = self.newest()
                mine = state.farmers.get(by)
                if state.by == (by, seq) or (mine is not None and mine.seq == seq):
                    self.uncertain = False
                    self.make_durable(state)
                    return state  # an earlier try won, although its reply was lost
                wanted = change(state)
                if wanted is state:
                    if self.uncertain:  # perhaps it was us who did it
                        self.make_durable(state)
                    return state
                won = self._try(state, wanted, by, seq)
                self.exclusive += 0.3 * (time.monotonic() - start - self.exclusive)
            if won is not None:
                self.make_durable(won)  # the others need not wait for it: theirs brings our name to the disk, too
                self.commits += 1
                self.turn.won()
                if won.epoch != state.epoch:
                    epochs.sweep(self.workdir, won.epoch, self.farm, self.between)
                return won
            self.lost += 1
            self.turn.lost()
            attempt += 1
            stuck = self._stuck(state, stuck)
            if time.monotonic() > end:
                raise Contended(f"{self.workdir.ledger}: {attempt} commits of others came first")
            pause = self.backoff(attempt, len(state.farmers))
            self._rest(random.uniform(0, min(pause, max(0.0, end - time.monotonic()))))

    @contextmanager
    def _alone(self, text: str, end: float) -> Iterator[None]:
        """Keep the others away inside the block, as far as they can be kept away, and not after `end`."""
        with self.lock.held(min(locks.PATIENCE, max(0.0, end - time.monotonic()))):
            if not self.commits:
                self.turn.do_as_others()
            with self.turn.taken(text, min(turns.PATIENCE, max(0.0, end - time.monotonic()))):
                yield

    def _rest(self, seconds: float) -> None:
        while True:
            self.between()
            time.sleep(min(seconds, 1.0))
            seconds -= 1.0
            if seconds <= 0:
                return

    def backoff(self, attempt: int, farmers: int) -> float:
        """Seconds within which to try again after so many lost commits.

        It grows fast until all that may be trying, too, have room: where locks are not shared and many start at
        once, what is tried too soon is lost again.
        """
        room = min(MOST_ROOM, max(LEAST_ROOM, ROOM * farmers * self.exclusive))
        return float(min(FIRST_PAUSE * 4 ** min(attempt, 8), room))

    def _stuck(self, state: State, since: tuple[int, float] | None) -> tuple[int, float]:
        """Since when commits after this revision are lost; StaleView where that is too long: nobody wins them."""
        now = time.monotonic()
        if since is None or since[0] != state.revision:
            return state.revision, now
        if now - since[1] > self.patience:
            raise StaleView(
                f"{self.workdir.prepared(state.epoch)}: nothing can be committed after revision {state.revision}: this "
                "directory is missing, or cannot be seen; restore it from a snapshot, or make a new farm (-w)"
            )
        return since

    def _try(self, state: State, wanted: State, by: str, seq: int) -> State | None:
        """One attempt at the revision after `state`: the revision if it is ours, None if it is lost."""
        following = replace(stamp(wanted, by, seq), revision=state.revision + 1, by=(by, seq))
        fresh: str | None = None
        linked = False
        try:
            if 0 < state.revision < state.epoch_from:
                # the last name in another directory, which our own sync of this one does not bring to the disk; the
                # very first one is in this
                self.make_durable(state)
            if following.revision - state.epoch_from + 1 >= self.epoch_length:
                fresh = epochs.make(self.workdir, epochs.after(state.epoch))
                closed = epochs.close_journals(self.workdir, state.departed, state.farmers, self.between)
                following = begin_epoch(following, fresh, closed)
            prepared = os.path.join(self.workdir.prepared(state.epoch), f"{by}.{seq}.{durable.random_name()}")
            durable.prepare(prepared, encode(following), self.workdir.shared)
            self.between()
            linked = self.uncertain = True
            won = self._link(state, following, prepared)
            self.uncertain = won is None
        except OSError as error:
            if not linked:
                self._drop(fresh)
            if error.errno not in _GONE:
                where = error.filename or self.workdir.ledger
                what = (
                    "it is not known what was committed, and found out next time" if linked else "nothing was committed"
                )
                kind = FileTooLarge if error.errno == errno.EFBIG else StorageError
                raise kind(f"{where}: {error.strerror}; {what}; {remedy(error, AGAIN)}") from error
            won = None
            self.check_farm()
        if not isinstance(won, State):
            # where it is not certain who won, the fresh epoch may be named by a revision that we cannot see yet:
            # it is left to the next sweep
            if won is False:
                self._drop(fresh)
            return None
        if fresh is not None and won.revision == following.revision and won.epoch != fresh:
            self._drop(fresh)  # an earlier try of ours landed unseen, and names another one
        self.last_seen = won
        self.write_hint(self._seen[1], won.revision)
        return won

    def _drop(self, fresh: str | None) -> None:
        if fresh is not None:
            epochs.drop(self.workdir, fresh)

    def _link(self, state: State, following: State, prepared: str) -> State | Literal[False] | None:
        """The state that we made; False if we lost; None where that cannot be read, and is not in our entry.

        It is as it was read: where an earlier try of the same commit landed unseen, it is not `following`.
        """
        answer = durable.publish(prepared, self.workdir.revision(state.epoch, following.revision))
        return wait_until_visible(lambda: self._winner(state, following, answer), self.patience, 0.05)

    def _winner(self, state: State, following: State, answer: OSError | None) -> State | Literal[False] | None:
        """One attempt to read who won; StaleView if nothing can be read yet."""
        by, seq = following.by
        target = self.workdir.revision(state.epoch, following.revision)
        found = self._load(state.epoch, following.revision)
        if found is not None:
            if answer is None and found.by != following.by:
                raise Forked(
                    f"{target}: `link` said that it is ours, but it is from {found.by[0]}; this file system "
                    "cannot be shared safely"
                )
            if found.by == following.by:
                return found
            self.last_seen = found
            return False
        later = self._listed()
        if later is not None and later.revision > state.revision:
            entry = later.farmers.get(by)  # we slept through the epoch
            return later if entry is not None and entry.seq == seq else None
        if answer is not None and answer.errno != errno.EEXIST:
            raise answer
        self.check_farm()
        raise StaleView(f"{target}: `link` says that it is there, but it cannot be read; {AGAIN}")

    def make_durable(self, state: State) -> None:
        """Make sure that a state that we have seen, perhaps another one's, is there after a power failure.

        That brings all before it to the disk too: who begins in a fresh epoch does this with the last revision
        of the one before.
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
            raise StorageError(f"{path}: {error.strerror}; a commit may not last; {remedy(error, AGAIN)}") from error

    def write_hint(self, epoch: str, number: int) -> None:
        head.write(self.workdir, epoch, number)
