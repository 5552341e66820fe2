"""The views while a farmer runs: each shows its own results, a few seconds after they are committed.

Updates cost what they add. Two farmers that update at once (the lock is not shared) leave sizes that
disagree with `views.json`; then nobody appends any more, and the farmer that ends makes all anew.
"""

from __future__ import annotations

import math
import random
import time
from collections.abc import Callable, Iterable

from taskfarmer.ledger.ledger import Ledger
from taskfarmer.ledger.liveness import Identity
from taskfarmer.ledger.segments import SegmentReader
from taskfarmer.ledger.state import State
from taskfarmer.views import files
from taskfarmer.views.names import farmer_events
from taskfarmer.views.rebuild import rebuild_unlocked, write_toprocess
from taskfarmer.workdir import Workdir

EVERY = 5.0
SOON = 0.1
MOST_KEPT = 64 << 20
MUCH = 4 << 20
"""Bytes of lines and slices that are shown as soon as they are committed: they would take memory."""
CHEAP = 100_000
SHARE = 20.0
"""How many times as long as an update takes there is none at least."""
EXACT_TRIES = 5


def begin(workdir: Workdir, state: State, between: Callable[[], None] = lambda: None) -> None:
    """The views of a farm that was just made: everything is to be processed."""
    reader = SegmentReader(workdir)
    try:
        shared = workdir.shared
        sizes = {name: files.write_anew(files.path_of(workdir, name), (), shared) for name in ("finished", "failed")}
        between()
        sizes["timeline.json"] = files.write_anew(workdir.timeline, (files.TIMELINE_START, files.TIMELINE_END), shared)
        between()
        sizes["toprocess"] = write_toprocess(workdir, state, reader)
        between()
    finally:
        reader.close()
    files.save(workdir, files.Shown(0, state.revision, sizes))


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
        """Bring the views up to date with our own results, if the lock can be had and they are sound."""
        self._put_off()
        if not self._results:
            return
        with self.ledger.lock.held(patience) as got:
            self._append_if_we_may(got)
        self._took = time.monotonic() - self._last

    def _append_if_we_may(self, got: bool) -> None:
        """Under the lock, or where there is none to be had at all."""
        self.ledger.commits.check_farm()  # a farm that was made anew has views of its own
        if got or self.ledger.lock.unusable:
            self._append()

    def _put_off(self) -> None:
        self._last = time.monotonic()
        self._spread = random.uniform(0.5, 1.5)

    def _append(self) -> None:
        self.ledger.commits.between()
        shown = files.load(self.workdir)
        sizes = files.sizes(self.workdir, files.GROWING)
        self.ledger.commits.between()
        if shown is None or any(sizes[name] != shown.sizes.get(name) for name in files.GROWING):
            self._forget()
            return
        if not self._named:
            self._named = True
            self._parts["timeline.json"].insert(
                0, farmer_events(self.identity, self.identity.farmer, self.identity.slots)
            )
        parts = self._parts
        timeline = "timeline.json"
        try:
            grown = {
                "finished": files.append(self.workdir.finished, parts["finished"]),
                "failed": files.append(self.workdir.failed, parts["failed"]),
                timeline: files.extend_timeline(self.workdir.timeline, parts[timeline], sizes[timeline]),
            }
        except PermissionError:
            self._forget()  # not ours to write: it does not show what counts, and is made anew
            return
        self.ledger.commits.between()
        now = {name: sizes[name] + grown[name] for name in files.GROWING}
        files.save(
            self.workdir,
            files.Shown(shown.results + self._results, shown.revision, {**shown.sizes, **now}),
        )
        self._forget()

    def finish(self, state: State) -> None:
        """The farmer ends: make the views exact where nobody else will, or where that is cheap."""
        if not self._last_of(state) and state.unprocessed * len(state.farmers) > CHEAP:
            self.show(patience=10.0)
            return
        with self.ledger.lock.held(patience=10.0) as got:
            if self._results:
                self._append_if_we_may(got)
            # others may have left meanwhile, or, where the lock is not shared, written at the same time
            for _ in range(EXACT_TRIES):
                state = self.ledger.look()
                last = self._last_of(state)
                self._make_exact(state, last)
                if not last or sound(self.workdir, self.ledger.look(), files.load(self.workdir)):
                    break

    def _last_of(self, state: State) -> bool:
        """Whether nobody else has anything to tell. One that holds nothing may be dead, or will look for itself."""
        return not any(entry.claims for farmer, entry in state.farmers.items() if farmer != self.identity.farmer)

    def _make_exact(self, state: State, last: bool) -> None:
        self.ledger.commits.between()
        shown = files.load(self.workdir)
        if not sound(self.workdir, state, shown):
            if last:
                rebuild_unlocked(self.workdir, state, self.ledger.commits.between)
            return
        assert shown is not None
        self.ledger.commits.between()
        there = files.sizes(self.workdir, ("toprocess",))["toprocess"]
        if shown.revision == state.revision and there == shown.sizes.get("toprocess"):
            return
        reader = SegmentReader(self.workdir)
        try:
            size = write_toprocess(self.workdir, state, reader)
        finally:
            reader.close()
        files.save(self.workdir, files.Shown(shown.results, state.revision, {**shown.sizes, "toprocess": size}))


def sound(workdir: Workdir, state: State, shown: files.Shown | None) -> bool:
    """Whether `finished`, `failed` and the timeline show exactly the results that count."""
    if shown is None or shown.results != state.journaled:
        return False
    sizes = files.sizes(workdir, files.GROWING)
    return all(sizes[name] == shown.sizes.get(name) for name in files.GROWING)
