"""The views while a farmer runs: each shows its own results, a few seconds after they are committed.

Updates cost what they add. Two farmers that update at once (the lock is not shared) leave sizes that
disagree with `views.json`; then nobody appends any more, and the farmer that ends makes all anew.

A farmer may sleep in the middle of a write while others expel it, make the views exact and end. So each write is
followed by a look at the newest revision, and a farmer that was expelled, or has left, goes on until the views are
exact or a farmer that holds tasks will look at them later.
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

EVERY = 5.0
SOON = 0.1
MOST_KEPT = 64 << 20
MUCH = 4 << 20
"""Bytes of lines and slices that are shown as soon as they are committed: they would take memory."""
CHEAP = 100_000
SHARE = 20.0
"""How many times as long as an update takes there is none at least."""


def begin(workdir: Workdir, state: State, between: Callable[[], None] = lambda: None) -> None:
    """The views of a farm that was just made: everything is to be processed.

    Nothing is replaced: if a view exists, other farmers were faster, and theirs may be newer than this state.
    """
    reader = SegmentReader(workdir)
    try:
        shared = workdir.shared
        sizes = {name: files.create(files.path_of(workdir, name), (), shared) for name in ("finished", "failed")}
        between()
        sizes[files.TIMELINE] = files.create(workdir.timeline, (files.TIMELINE_START, files.TIMELINE_END), shared)
        between()
        sizes["toprocess"] = files.create(workdir.toprocess, unprocessed(state, reader), shared)
        between()
        files.create(workdir.views, [files.encoded(files.Shown(0, state.revision, sizes))], shared)
    except FileExistsError:
        pass
    finally:
        reader.close()


class Views:
    """What one farmer has to show: what is committed and not shown yet. `every` is the mean time between updates."""

    def __init__(self, workdir: Workdir, ledger: Ledger, identity: Identity) -> None:
        self.workdir = workdir
        self.ledger = ledger
        self.identity = identity
        self._parts: dict[str, list[bytes]] = {name: [] for name in files.GROWING}
        self._kept = 0
        self._results = 0
        self._named = False
        self._last = time.monotonic()
        self.every = EVERY
        self._spread = random.uniform(0.5, 1.5)
        self._took = 0.0
        self._written: files.Shown | None = None  # the content of `views.json`, if we wrote it under the lock we hold

    def add(self, told: Iterable[tuple[bytes, bytes, bytes]], results: int) -> None:
        """Remember what to show of results (`results` bytes of the journal) that are committed."""
        self._results += results
        for lines in told:
            for name, data in zip(files.GROWING, lines, strict=True):
                self._parts[name].append(data)
                self._kept += len(data)
        if self._kept > MOST_KEPT:
            self._forget()

    def _forget(self) -> None:
        """Too much to keep while the lock is away: `views.json` will not agree, and the views are made anew."""
        for parts in self._parts.values():
            parts.clear()
        self._kept = self._results = 0

    @property
    def due_at(self) -> float:
        """When there will be something to show, on the monotonic clock; never where there is nothing.

        Many farmers that have started at once are not to ask for the lock at once, again and again.
        """
        if not self._results:
            return math.inf
        wait = self.every * self._spread if self.every > EVERY else EVERY
        wait = max(wait, SHARE * max(self._took, self.ledger.commits.exclusive))  # if file operations take long
        return self._last + (SOON * wait if self._kept > MUCH else wait)

    def due(self, now: float) -> bool:
        return now >= self.due_at

    def show(self, patience: float = 0.2) -> None:
        """Bring the views up to date with our own results, if the lock can be had and they are sound.

        Expelled if other farmers have expelled us meanwhile: they may have ended, and `mend` is up to us.
        """
        self._put_off()
        if not self._results:
            return
        with self.ledger.lock.held(patience) as got:
            wrote = self._append_if_we_may(got)
        if wrote:
            state = self.ledger.refresh()
            if self.ledger.registered:
                entry_of(state, self.identity.farmer)
        self._took = time.monotonic() - self._last

    def _append_if_we_may(self, got: bool) -> bool:
        """Under the lock, or where there is none to be had at all; whether anything was written."""
        self.ledger.commits.check_farm()  # a farm that was made anew has views of its own
        return (got or self.ledger.lock.unusable) and self._append()

    def _put_off(self) -> None:
        self._last = time.monotonic()
        self._spread = random.uniform(0.5, 1.5)

    def _append(self) -> bool:
        self.ledger.commits.between()
        shown = files.load(self.workdir)
        names = [name for name, parts in self._parts.items() if name == files.TIMELINE or any(parts)]
        others = [name for name in files.GROWING if name not in names]
        if shown is None or files.sizes(self.workdir, others) != {name: shown.sizes.get(name) for name in others}:
            self._forget()
            return False
        self.ledger.commits.between()
        with files.growing(self.workdir, shown, names) as opened:
            if opened is None:  # not ours to write, or it does not show what counts: it is made anew
                self._forget()
                return False
            self._write(shown, opened)
        self._forget()
        return True

    def _write(self, shown: files.Shown, opened: Mapping[str, int]) -> None:
        """Write what we have to show into the open views, and what they show then into `views.json`."""
        parts, sizes = self._parts, dict(shown.sizes)
        if not self._named:
            self._named = True
            parts[files.TIMELINE].insert(0, farmer_events(self.identity, self.identity.farmer, self.identity.slots))
        for name, fd in opened.items():
            path = files.path_of(self.workdir, name)
            if name == files.TIMELINE:
                sizes[name] += files.extend_timeline(path, fd, parts[name], sizes[name])
            else:
                sizes[name] += files.append(path, fd, parts[name])
        self._written = files.Shown(shown.results + self._results, shown.revision, sizes)
        files.save(self.workdir, self._written)

    def finish(self, state: State) -> None:
        """The farmer ends: make the views exact where nobody else will, or where that is cheap."""
        if self._others_will(state):
            self.show(patience=10.0)
            if self._others_will(self.ledger.state):  # as it is now, if anything was written
                return
        with self.ledger.lock.held(patience=10.0) as got:
            self._written = None
            if self._results:
                self._append_if_we_may(got)
            self._make_exact()

    def mend(self) -> None:
        """We were expelled, and may have written since: make the views exact unless others will."""
        if not self._others_will(self.ledger.refresh()):
            with self.ledger.lock.held(patience=10.0):
                self._make_exact()

    def _others_will(self, state: State) -> bool:
        """Whether the views are left to others, since they are not cheap for us."""
        return not self._last_of(state) and state.unprocessed * len(state.farmers) > CHEAP

    def _last_of(self, state: State) -> bool:
        """Whether nobody else has anything to tell. One that holds nothing may be dead, or will look for itself."""
        return not any(entry.claims for farmer, entry in state.farmers.items() if farmer != self.identity.farmer)

    def _make_exact(self) -> None:
        """Make the views exact, and compare them with the ledger again after each write.

        Others may have left meanwhile, also while we slept in the middle of a write; or, where the lock is not shared,
        they have written at the same time. Whoever holds tasks then looks at the views after us.
        """
        for number in range(EXACT_TRIES):
            # if nobody else was registered a moment ago, the look after the write will do
            state = self.ledger.refresh() if number or self.ledger.state.farmers else self.ledger.state
            if not self._write_exact(state, self._last_of(state)):
                return
            now = self.ledger.refresh()
            if not self._last_of(now) or exact(self.workdir, now, files.load(self.workdir)):
                return

    def _write_exact(self, state: State, last: bool) -> bool:
        """Make the views show this state if they are sound or we are the `last`; whether anything was written."""
        between = self.ledger.commits.between
        between()
        shown, self._written = self._written, None
        if shown is None or shown.results != state.journaled:
            shown = files.load(self.workdir)
            are_sound = sound(self.workdir, state, shown)
        else:  # written by us a moment ago: the look after the next write finds what others wrote meanwhile
            are_sound = True
        if not are_sound:
            if last:
                rebuild_unlocked(self.workdir, state, between)
            return last
        assert shown is not None
        between()
        if exact(self.workdir, state, shown, growing=False):
            return False
        reader = SegmentReader(self.workdir)
        try:
            size = write_toprocess(self.workdir, state, reader)
        finally:
            reader.close()
        files.save(self.workdir, files.Shown(shown.results, state.revision, {**shown.sizes, "toprocess": size}))
        return True


def exact(workdir: Workdir, state: State, shown: files.Shown | None, growing: bool = True) -> bool:
    """Whether all views show this state; without `growing`, whether `toprocess` does."""
    if shown is None or shown.revision != state.revision or (growing and not sound(workdir, state, shown)):
        return False
    return files.sizes(workdir, ["toprocess"])["toprocess"] == shown.sizes.get("toprocess")


def sound(workdir: Workdir, state: State, shown: files.Shown | None) -> bool:
    """Whether `finished`, `failed` and the timeline show exactly the results that count."""
    if shown is None or shown.results != state.journaled:
        return False
    sizes = files.sizes(workdir, files.GROWING)
    return all(sizes[name] == shown.sizes.get(name) for name in files.GROWING)
