"""Updates of the views while a farmer runs: each farmer appends its results a few seconds after they are committed.

The cost of an update depends only on the lines that it adds. If two farmers update at the same time, because the lock
is not shared, the sizes differ from `views.json`. Then no farmer appends any more, and the last farmer rebuilds the
views.

A farmer may be suspended in the middle of a write while other farmers expel it, complete the views and exit. So it
reads the newest revision after each write. A farmer that was expelled, or has left, continues until the views are exact
or another farmer has claims, and so will update the views later.
"""

from __future__ import annotations

import math
import random
import time
from collections.abc import Callable, Iterable, Mapping

from taskfarmer.ledger.ledger import Ledger
from taskfarmer.ledger.segments import SegmentReader
from taskfarmer.ledger.state import State, entry_of
from taskfarmer.peers.identity import Identity
from taskfarmer.storage.layout import Workdir
from taskfarmer.views import files
from taskfarmer.views.labels import farmer_events
from taskfarmer.views.rebuild import EXACT_TRIES, rebuild_unlocked, unprocessed, write_toprocess

UPDATE_EVERY = 5.0
"""Seconds between updates of a farmer, if few farmers run."""
SOON = 0.1
"""Fraction of that interval after which an update is due if many bytes are pending."""
MOST_PENDING = 64 << 20
"""Bytes of pending lines and slices above which they are dropped; the views are then rebuilt."""
MANY_PENDING = 4 << 20
"""Bytes of pending lines and slices above which an update is due soon, to save memory."""
CHEAP = 100_000
"""Unprocessed tasks times farmers up to which each farmer completes the views when it leaves."""
PAUSE_FACTOR = 20.0
"""The interval between updates is at least this many times as long as an update takes."""


def create_views(workdir: Workdir, state: State, between: Callable[[], None] = lambda: None) -> None:
    """Write the views of a new farm, with all tasks in `toprocess`.

    An existing view is never replaced: it is from a faster farmer, and may be newer than this state.
    """
    reader = SegmentReader(workdir)
    try:
        shared = workdir.shared
        sizes = {name: files.create(files.view_path(workdir, name), (), shared) for name in ("finished", "failed")}
        between()
        sizes[files.TIMELINE] = files.create(workdir.timeline, (files.TIMELINE_START, files.TIMELINE_END), shared)
        between()
        sizes["toprocess"] = files.create(workdir.toprocess, unprocessed(state, reader), shared)
        between()
        files.create(workdir.views, [files.encode(files.ViewsRecord(0, state.revision, sizes))], shared)
    except FileExistsError:
        pass
    finally:
        reader.close()


class Views:
    """The results of one farmer that are committed, but not in the views yet.

    `every` is the mean time between updates, in seconds.
    """

    def __init__(self, workdir: Workdir, ledger: Ledger, identity: Identity) -> None:
        self.workdir = workdir
        self.ledger = ledger
        self.identity = identity
        self._pending: dict[str, list[bytes]] = {name: [] for name in files.GROWING}
        self._pending_bytes = 0
        self._results = 0
        self._named = False
        self._last = time.monotonic()
        self.every = UPDATE_EVERY
        self._spread = random.uniform(0.5, 1.5)
        self._took = 0.0
        self._written: files.ViewsRecord | None = None  # `views.json`, if written under the lock that is held

    def add(self, lines: Iterable[tuple[bytes, bytes, bytes]], results: int) -> None:
        """Add committed results: their lines for each view, and their bytes in the journal."""
        self._results += results
        for line in lines:
            for name, data in zip(files.GROWING, line, strict=True):
                self._pending[name].append(data)
                self._pending_bytes += len(data)
        if self._pending_bytes > MOST_PENDING:
            self._drop_pending()

    def _drop_pending(self) -> None:
        """Forget the pending lines: they were written, or the views must be rebuilt anyway.

        If they were not written, the results in `views.json` differ from those in the ledger, so the views are rebuilt.
        """
        for pending in self._pending.values():
            pending.clear()
        self._pending_bytes = self._results = 0

    @property
    def due_at(self) -> float:
        """When the next update is due, on the monotonic clock; infinity if no results are pending.

        With many farmers the interval is random, so that those that started together do not lock together.
        """
        if not self._results:
            return math.inf
        wait = self.every * self._spread if self.every > UPDATE_EVERY else UPDATE_EVERY
        wait = max(wait, PAUSE_FACTOR * max(self._took, self.ledger.commits.exclusive))  # if file operations are slow
        return self._last + (SOON * wait if self._pending_bytes > MANY_PENDING else wait)

    def due(self, now: float) -> bool:
        return now >= self.due_at

    def update(self, patience: float = 0.2) -> None:
        """Append the pending results, if the lock is available and the views are valid.

        Raises Expelled if other farmers have expelled this one: they may have exited, so `complete_after_expulsion`
        must be called.
        """
        self._schedule_next()
        if not self._results:
            return
        with self.ledger.lock.held(patience) as got:
            wrote = self._append_if_locked(got)
        if wrote:
            state = self.ledger.refresh()
            if self.ledger.registered:
                entry_of(state, self.identity.farmer)
        self._took = time.monotonic() - self._last

    def _append_if_locked(self, got: bool) -> bool:
        """Append if this farmer `got` the lock, or if locks do not work here. Return whether anything was written."""
        self.ledger.commits.check_farm()  # a farm that was re-created has other views
        return (got or self.ledger.lock.unusable) and self._append()

    def _schedule_next(self) -> None:
        self._last = time.monotonic()
        self._spread = random.uniform(0.5, 1.5)

    def _append(self) -> bool:
        self.ledger.commits.between()
        shown = files.load(self.workdir)
        names = [name for name, pending in self._pending.items() if name == files.TIMELINE or any(pending)]
        others = [name for name in files.GROWING if name not in names]
        if shown is None or files.sizes(self.workdir, others) != {name: shown.sizes.get(name) for name in others}:
            self._drop_pending()
            return False
        self.ledger.commits.between()
        with files.open_growing(self.workdir, shown, names) as opened:
            if opened is None:  # a view is missing, belongs to another user, or has another size: rebuild them later
                self._drop_pending()
                return False
            self._write(shown, opened)
        self._drop_pending()
        return True

    def _write(self, shown: files.ViewsRecord, opened: Mapping[str, int]) -> None:
        """Append the pending lines to the open views, and record the new state in `views.json`."""
        pending, sizes = self._pending, dict(shown.sizes)
        if not self._named:
            self._named = True
            pending[files.TIMELINE].insert(0, farmer_events(self.identity, self.identity.farmer, self.identity.slots))
        for name, fd in opened.items():
            path = files.view_path(self.workdir, name)
            if name == files.TIMELINE:
                sizes[name] += files.extend_timeline(path, fd, pending[name], sizes[name])
            else:
                sizes[name] += files.append(path, fd, pending[name])
        self._written = files.ViewsRecord(shown.results + self._results, shown.revision, sizes)
        files.save(self.workdir, self._written)

    def finish(self, state: State) -> None:
        """The farmer leaves: make the views exact, unless other farmers will and it is not cheap."""
        if self._left_to_others(state):
            self.update(patience=10.0)
            if self._left_to_others(self.ledger.state):  # its newest state, if anything was written
                return
        with self.ledger.lock.held(patience=10.0) as got:
            self._written = None
            if self._results:
                self._append_if_locked(got)
            self._make_exact()

    def complete_after_expulsion(self) -> None:
        """This farmer was expelled, and may have written since: make the views exact, unless other farmers will."""
        if not self._left_to_others(self.ledger.refresh()):
            with self.ledger.lock.held(patience=10.0):
                self._make_exact()

    def _left_to_others(self, state: State) -> bool:
        """Whether other farmers will make the views exact, and it would not be cheap for this one."""
        return not self._is_last(state) and state.unprocessed * len(state.farmers) > CHEAP

    def _is_last(self, state: State) -> bool:
        """Whether no other farmer has claims. A farmer without claims may be dead, or checks the views itself."""
        return not any(entry.claims for farmer, entry in state.farmers.items() if farmer != self.identity.farmer)

    def _make_exact(self) -> None:
        """Make the views exact, and compare them with the ledger again after each write.

        Other farmers may have left meanwhile, also while this one was suspended in the middle of a write. If the lock
        is not shared, they may have written at the same time. If one of them has claims, it updates the views later.
        """
        for number in range(EXACT_TRIES):
            # if no other farmer was registered just now, to read the ledger after the write is enough
            state = self.ledger.refresh() if number or self.ledger.state.farmers else self.ledger.state
            if not self._write_exact(state, self._is_last(state)):
                return
            now = self.ledger.refresh()
            if not self._is_last(now) or are_exact(self.workdir, now, files.load(self.workdir)):
                return

    def _write_exact(self, state: State, last: bool) -> bool:
        """Make the views show this state, if they are valid or this farmer is the `last`.

        Return whether anything was written.
        """
        between = self.ledger.commits.between
        between()
        shown, self._written = self._written, None
        if shown is None or shown.results != state.journaled:
            shown = files.load(self.workdir)
            valid = are_valid(self.workdir, state, shown)
        else:  # written by this farmer just now: writes of others since then are found after the next write
            valid = True
        if not valid:
            if last:
                rebuild_unlocked(self.workdir, state, between)
            return last
        assert shown is not None
        between()
        if are_exact(self.workdir, state, shown, growing=False):
            return False
        reader = SegmentReader(self.workdir)
        try:
            size = write_toprocess(self.workdir, state, reader)
        finally:
            reader.close()
        files.save(self.workdir, files.ViewsRecord(shown.results, state.revision, {**shown.sizes, "toprocess": size}))
        return True


def are_exact(workdir: Workdir, state: State, shown: files.ViewsRecord | None, growing: bool = True) -> bool:
    """Whether all views show this state. If `growing` is false, only `toprocess` is compared."""
    if shown is None or shown.revision != state.revision or (growing and not are_valid(workdir, state, shown)):
        return False
    return files.sizes(workdir, ["toprocess"])["toprocess"] == shown.sizes.get("toprocess")


def are_valid(workdir: Workdir, state: State, shown: files.ViewsRecord | None) -> bool:
    """Whether `finished`, `failed` and the timeline show exactly the counted results."""
    if shown is None or shown.results != state.journaled:
        return False
    sizes = files.sizes(workdir, files.GROWING)
    return all(sizes[name] == shown.sizes.get(name) for name in files.GROWING)
