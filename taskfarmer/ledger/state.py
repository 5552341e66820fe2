"""The state of a farm and all its transitions: pure functions `State -> State`.

No files, no clock, no randomness. A task is in exactly one place: beyond `next` of its segment or in `returned`
(unprocessed), in the claims of one farmer (held), or recorded in results (finished or failed). A transition only moves
tasks between these places, so their sum is constant. `problems` checks that, and `docs/workdir-format.md` describes
each member.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, NamedTuple

from taskfarmer.errors import Expelled, StaleView
from taskfarmer.formats.intervals import (
    Interval,
    count_tasks,
    each_interval,
    parse_group,
    parse_intervals,
    subtract,
    write_intervals,
)

_MAX_PROBLEMS = 100
"""Maximum number of problems to list."""
_MAX_ATTEMPTS = 10**9
FITS_AGAIN = 0.95
"""If a task runs out of time, its next attempt gets at least this share of the longest time of any farmer."""


@dataclass(frozen=True)
class Segment:
    """Tasks from one import: IDs `first` to `first + tasks - 1`, of which the first `next` were claimed at least once.

    `source_bytes` and `source_sha256` describe the part of the task list that is in this segment and all before it;
    `open_end` is set if the last line had no newline yet. `timed` is set if some tasks have an expected duration;
    `time` is the last duration in the list, in seconds, or 0. `source_crc` is the checksum of the segment's `.source`,
    "" if it has none.
    """

    file: str
    first: int
    tasks: int
    next: int = 0
    source_bytes: int = 0
    source_sha256: str = ""
    open_end: bool = False
    timed: bool = False
    time: float = 0.0
    source_crc: str = ""
    extra: Mapping[str, Any] = field(default_factory=dict)


class Entry(NamedTuple):
    """A farmer's entry: its claims, and the number of counted bytes of its journal."""

    seq: int
    claims: str
    journal: str
    bytes: int
    slots: int
    extra: tuple[Any, ...] = ()


@dataclass(frozen=True)
class State:
    """The state of a farm after one commit."""

    farm: str
    revision: int
    by: tuple[str, int]
    epoch: str
    epoch_from: int
    segments: tuple[Segment, ...] = ()
    returned: str = ""
    farmers: Mapping[str, Entry] = field(default_factory=dict)
    departed: Mapping[str, int] = field(default_factory=dict)
    closed_bytes: int = 0
    finished: int = 0
    failed: int = 0
    seconds: float = 0.0
    ended: int = 0
    times: Mapping[int, int] = field(default_factory=dict)
    longest: int = 0
    extra: Mapping[str, Any] = field(default_factory=dict)

    @cached_property
    def tasks(self) -> int:
        return sum(segment.tasks for segment in self.segments)

    @cached_property
    def timed(self) -> bool:
        """Whether some tasks have an expected duration."""
        return any(segment.timed for segment in self.segments)

    @cached_property
    def unprocessed(self) -> int:
        fresh = sum(segment.tasks - segment.next for segment in self.segments)
        return fresh + count_tasks(each_interval(self.returned))

    @property
    def has_unprocessed(self) -> bool:
        """Whether any task can be claimed; cheap even for large farms."""
        return bool(self.returned) or any(segment.next < segment.tasks for segment in self.segments)

    def has_claimable(self, seconds_left: float) -> bool:
        """Whether any task can be claimed that may finish in `seconds_left`, as far as is known."""
        if seconds_left == math.inf:
            return self.has_unprocessed
        if any(segment.next < segment.tasks for segment in self.segments):
            return True
        return any(float(word.partition("^")[2] or 0) <= seconds_left for word in self.returned.split())

    @cached_property
    def held(self) -> int:
        return sum(count_tasks(each_interval(entry.claims)) for entry in self.farmers.values())

    @property
    def journaled(self) -> int:
        """The counted bytes of results, over all journals that ever existed."""
        present = sum(entry.bytes for entry in self.farmers.values())
        return present + sum(self.departed.values()) + self.closed_bytes

    @cached_property
    def slots(self) -> int:
        return sum(entry.slots for entry in self.farmers.values())

    def segment_of(self, task_id: int) -> int | None:
        for number, segment in enumerate(self.segments):
            if segment.first <= task_id < segment.first + segment.tasks:
                return number
        return None

    def interval_of(self, task_id: int, attempt: int = 1) -> Interval:
        number = self.segment_of(task_id)
        if number is None:
            raise KeyError(task_id)
        return Interval(number, task_id - self.segments[number].first, 1, attempt)

    def first_id(self, interval: Interval) -> int:
        return self.segments[interval.segment].first + interval.start


@dataclass(frozen=True)
class Settlement:
    """A farmer's report for one commit: `done` are recorded in its journal up to `bytes`; `returned` are released.

    `died` are released, too, each with one more death: they were running when their worker died. `overran` are released
    because the farmer's time ran out. `times` counts finished tasks by class of duration.
    """

    journal: str
    bytes: int
    done: tuple[Interval, ...] = ()
    returned: tuple[Interval, ...] = ()
    died: tuple[Interval, ...] = ()
    overran: tuple[Interval, ...] = ()
    finished: int = 0
    failed: int = 0
    seconds: float = 0.0
    ended: int = 0
    times: Mapping[int, int] = field(default_factory=dict)


def join(state: State, farmer: str, journal: str, slots: int) -> State:
    """Add the farmer to the ledger; no change if it is there."""
    if farmer in state.farmers:
        return state
    return replace(state, farmers={**state.farmers, farmer: Entry(0, "", journal, 0, slots)})


def entry_of(state: State, farmer: str) -> Entry:
    """The farmer's entry; Expelled if it has none."""
    try:
        return state.farmers[farmer]
    except KeyError:
        raise Expelled(
            "expelled as dead by other farmers (no heartbeat for the lease), which released its tasks; no more results "
            "are recorded. A longer --lease when the farm is created avoids this"
        ) from None


def settle(state: State, farmer: str, settlement: Settlement) -> State:
    """Record the farmer's `done` tasks, and release its `returned` ones with the next attempt number.

    If the farmer continued in a new journal, the old one departs with its counted bytes.
    """
    entry = entry_of(state, farmer)
    reported = (*settlement.done, *settlement.returned, *settlement.died, *settlement.overran)
    held = parse_intervals(entry.claims)
    claims = subtract(held, reported)
    if count_tasks(claims) + count_tasks(reported) != count_tasks(held):
        raise StaleView(
            f"{farmer} reports tasks that it no longer holds: the file system showed an older ledger; no task was "
            "recorded twice"
        )
    departed = state.departed
    if settlement.journal != entry.journal and entry.bytes:
        departed = {**departed, entry.journal: entry.bytes}
    entry = entry._replace(claims=write_intervals(claims), journal=settlement.journal, bytes=settlement.bytes)
    return replace(
        state,
        farmers={**state.farmers, farmer: entry},
        departed=departed,
        returned=_append_intervals(state.returned, _released(state, settlement)),
        finished=state.finished + settlement.finished,
        failed=state.failed + settlement.failed,
        seconds=round(state.seconds + settlement.seconds, 3),
        ended=state.ended + settlement.ended,
        times=_summed(state.times, settlement.times),
    )


def _released(state: State, settlement: Settlement) -> list[Interval]:
    """The released tasks at their next attempt. Those that ran out of time need more time than they had."""
    released = [one.next_attempt() for one in settlement.returned]
    released += [one.next_attempt(died=True) for one in settlement.died]
    tried = int(state.longest * FITS_AGAIN)
    for one in settlement.overran:
        released.append(one.next_attempt().with_needs(state.longest + 1 if one.needs >= tried else tried))
    return released


def _summed(times: Mapping[int, int], more: Mapping[int, int]) -> Mapping[int, int]:
    return {number: times.get(number, 0) + more.get(number, 0) for number in {*times, *more}} if more else times


def _append_intervals(text: str, more: list[Interval]) -> str:
    return " ".join(filter(None, (text, write_intervals(more))))


def claim(state: State, farmer: str, want: int, seconds_left: float = math.inf) -> State:
    """Give the farmer up to `want` tasks: first released ones, then the list in its order.

    Tasks that are known to need more than `seconds_left` are left to other farmers.
    """
    if want <= 0 or not state.has_unprocessed:
        return state
    entry = entry_of(state, farmer)
    returned, got = _claim_returned(state.returned, want, seconds_left)
    want -= count_tasks(got)
    segments = list(state.segments)
    for number, segment in enumerate(segments):
        count = min(want, segment.tasks - segment.next)
        if count:
            got.append(Interval(number, segment.next, count))
            segments[number] = replace(segment, next=segment.next + count)
            want -= count
    if not got:
        return state
    claims = write_intervals(sorted([*parse_intervals(entry.claims), *got], key=_sort_key))
    return replace(
        state,
        returned=returned,
        segments=tuple(segments),
        farmers={**state.farmers, farmer: entry._replace(claims=claims)},
        longest=max(state.longest, int(seconds_left)) if seconds_left < math.inf else state.longest,
    )


def _claim_returned(returned: str, want: int, seconds_left: float) -> tuple[str, list[Interval]]:
    """The remaining text of `returned`, and up to `want` of its tasks that need at most `seconds_left`."""
    skipped: list[str] = []
    got: list[Interval] = []
    while want and returned:
        word, _, returned = returned.partition(" ")
        group = parse_group(word)
        if group[0].needs > seconds_left:
            skipped.append(word)
            continue
        unclaimed: list[Interval] = []
        for one in group:
            count = min(want, one.count)
            got.append(one.slice(0, count))
            unclaimed.append(one.slice(count, one.count - count))
            want -= count
        returned = f"{write_intervals(unclaimed)} {returned}".strip()
    return " ".join(filter(None, (*skipped, returned))), got


def _sort_key(one: Interval) -> tuple[int, ...]:
    """The order in which the text of claims is shortest; it has no other meaning."""
    return one.segment, one.attempt, one.deaths, one.needs, one.start


def stamp(state: State, farmer: str, seq: int) -> State:
    """Write the number of the farmer's commit into its entry, from which it learns later that it won."""
    entry = state.farmers.get(farmer)
    if entry is None:
        return state
    return replace(state, farmers={**state.farmers, farmer: entry._replace(seq=seq)})


def leave(state: State, farmer: str) -> State:
    """Remove a farmer that holds no tasks; its journal departs with its counted bytes."""
    entry = entry_of(state, farmer)
    if entry.claims:
        raise ValueError(f"{farmer} cannot leave: it holds {entry.claims}")
    farmers = {name: other for name, other in state.farmers.items() if name != farmer}
    departed = {**state.departed, entry.journal: entry.bytes} if entry.bytes else state.departed
    return replace(state, farmers=farmers, departed=departed)


def expel(state: State, farmer: str, settlement: Settlement, died: tuple[Interval, ...] = ()) -> State:
    """Remove a dead farmer: `settlement` counts the results that it left; its other tasks are released.

    `died` are the tasks that were running when it died; each gets one more death.
    """
    if farmer not in state.farmers:
        return state
    state = settle(state, farmer, settlement)
    remaining = parse_intervals(state.farmers[farmer].claims)
    ran = [one for claimed in remaining for one in _intersection(claimed, died)]
    released = [one.next_attempt() for one in subtract(remaining, ran)] + [one.next_attempt(died=True) for one in ran]
    emptied = state.farmers[farmer]._replace(claims="")
    state = replace(
        state,
        farmers={**state.farmers, farmer: emptied},
        returned=_append_intervals(state.returned, released),
    )
    return leave(state, farmer)


def _intersection(claimed: Interval, others: tuple[Interval, ...]) -> list[Interval]:
    found = []
    for other in others:
        if (other.segment, other.attempt) == (claimed.segment, claimed.attempt):
            start, stop = max(claimed.start, other.start), min(claimed.stop, other.stop)
            if start < stop:
                found.append(claimed.slice(start - claimed.start, stop - start))
    return found


def retry(state: State, again: tuple[Interval, ...], finished: int, failed: int) -> State:
    """Make recorded tasks unprocessed again. `again` has the attempt number that each gets next."""
    return replace(
        state,
        returned=_append_intervals(state.returned, list(again)),
        finished=state.finished - finished,
        failed=state.failed - failed,
    )


def grow(state: State, segment: Segment) -> State:
    """Add new tasks from the end of the list. No change if another farmer has added them."""
    if segment.first != state.tasks:
        return state
    return replace(state, segments=(*state.segments, segment))


def begin_epoch(state: State, epoch: str, closed: Mapping[str, int]) -> State:
    """Continue in another directory from the next revision on; `closed` journals are forgotten."""
    departed = {name: size for name, size in state.departed.items() if name not in closed}
    return replace(
        state,
        epoch=epoch,
        epoch_from=state.revision + 1,
        departed=departed,
        closed_bytes=state.closed_bytes + sum(closed.values()),
    )


def problems(state: State) -> list[str]:
    """Inconsistencies of a state: tasks in two places, or in none. ValueError if the text of an interval is invalid.

    It needs one byte of memory for each task that was ever claimed, whatever the intervals are.
    """
    wrong = []
    places = [("returned", state.returned), *((f"held by {name}", one.claims) for name, one in state.farmers.items())]
    seen = [bytearray(segment.next) for segment in state.segments]
    for place, text in places:
        for one in each_interval(text):
            if not 0 <= one.segment < len(seen) or one.count < 1 or one.start < 0:
                wrong.append(f"{place}: {one} does not name tasks of this farm")
            elif one.stop > len(seen[one.segment]):
                wrong.append(f"{place}: {one} was never claimed")
            elif min(one.attempt - 1, one.deaths, one.needs) < 0 or max(one.attempt, one.deaths) > _MAX_ATTEMPTS:
                wrong.append(f"{place}: {one} has an invalid attempt, number of deaths, or needed time")
            else:
                tasks = seen[one.segment]
                if (twice := tasks.find(1, one.start, one.stop)) >= 0:
                    wrong.append(f"task {state.segments[one.segment].first + twice} is twice in the ledger: {place}")
                tasks[one.start : one.stop] = b"\1" * one.count
            if len(wrong) > _MAX_PROBLEMS:
                return wrong
    total = state.unprocessed + state.held + state.finished + state.failed
    if total != state.tasks:
        wrong.append(
            f"{state.tasks} tasks, but {state.unprocessed} unprocessed + {state.held} held + "
            f"{state.finished} finished + {state.failed} failed = {total}"
        )
    return wrong
