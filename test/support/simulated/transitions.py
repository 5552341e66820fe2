"""A state machine over the pure transitions: farmers act on their last seen state, and each revision has one name.

Each farmer reads the head from time to time, and computes its next state from it; that becomes the head only if the
head has not changed. The oracle knows each task's place, attempt and deaths, and does not use intervals.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, rule

from taskfarmer.errors import Expelled, StaleView
from taskfarmer.formats.intervals import Interval, merge_adjacent, parse_intervals
from taskfarmer.ledger import state as states
from taskfarmer.ledger.document import from_document, to_document
from taskfarmer.ledger.state import Segment, Settlement, State

NAMES = ("a", "b", "c")
Place = tuple[str, int, int]


class Histories(RuleBasedStateMachine):
    """`head` is the newest revision; `seen` each farmer's last state; `place` the oracle's place, attempt, deaths."""

    def __init__(self) -> None:
        super().__init__()
        self.head = State("farm", 0, ("import", 0), "000000-00000000", 1, (Segment("first", 0, 7),))
        self.seen: dict[str, State] = dict.fromkeys(NAMES, self.head)
        self.once: dict[str, dict[int, Place]] = {name: {} for name in NAMES}
        self.place: dict[int, Place] = dict.fromkeys(range(7), ("unprocessed", 1, 0))
        self.lines: dict[str, int] = {}
        self.counted: dict[str, int] = {}
        self.turns = 0

    # --- the oracle's knowledge -----------------------------------------------------------------------

    def tasks_in(self, *where: str) -> list[int]:
        return sorted(task for task, place in self.place.items() if place[0] in where)

    def some(self, data: st.DataObject, tasks: list[int]) -> list[int]:
        return sorted(data.draw(st.sets(st.sampled_from(tasks)))) if tasks else []

    def intervals(self, tasks: list[int], places: dict[int, Place]) -> tuple[Interval, ...]:
        ones = ((self.head.interval_of(task), *places[task][1:]) for task in tasks)
        return tuple(
            merge_adjacent(Interval(one.segment, one.start, 1, attempt, deaths) for one, attempt, deaths in ones)
        )

    def back(self, tasks: list[int], died: bool = False) -> None:
        for task in tasks:
            _, attempt, deaths = self.place[task]
            self.place[task] = ("unprocessed", attempt + 1, deaths + died)

    def commit(self, farmer: str, new: State) -> bool:
        """Make a state the next revision if the farmer saw the newest one."""
        if self.seen[farmer].revision != self.head.revision:
            self.seen[farmer] = self.head  # lost
            return False
        self.head = self.seen[farmer] = replace(new, revision=self.head.revision + 1)
        return True

    def held(self, state: State, farmer: str) -> dict[int, Place]:
        """The tasks that a farmer holds in a state."""
        found = {}
        for one in parse_intervals(state.farmers[farmer].claims):
            for task in range(state.first_id(one), state.first_id(one) + one.count):
                found[task] = (farmer, one.attempt, one.deaths)
        return found

    # --- actions of farmers ---------------------------------------------------------------------------

    @rule(farmer=st.sampled_from(NAMES))
    def look(self, farmer: str) -> None:
        self.seen[farmer] = self.head

    @rule(farmer=st.sampled_from(NAMES), want=st.integers(0, 9))
    def join_and_claim(self, farmer: str, want: int) -> None:
        seen = self.seen[farmer]
        journal = f"{farmer}{seen.revision}"
        joins = farmer not in seen.farmers
        new = states.claim(states.join(seen, farmer, journal, 2), farmer, want)
        if self.commit(farmer, new):
            if joins:
                self.lines[farmer] = 0
            before = self.tasks_in("unprocessed")
            back = self.tasks_of_returned(seen)
            gained = [task for task in self.held(self.head, farmer) if self.place[task][0] != farmer]
            assert len(gained) == min(want, len(before))
            assert set(gained) <= set(back) or set(back) <= set(gained), "the list was taken before what came back"
            for task in gained:
                assert self.place[task][0] == "unprocessed"
                self.place[task] = (farmer, *self.place[task][1:])
            self.compare()

    def tasks_of_returned(self, state: State) -> list[int]:
        intervals = parse_intervals(state.returned)
        return [task for one in intervals for task in range(state.first_id(one), state.first_id(one) + one.count)]

    def told(self, data: st.DataObject, farmer: str) -> tuple[Settlement, Callable[[], None]]:
        """A random report of a farmer about tasks that it holds in its view, and the effect if it is accepted."""
        places = self.held(self.seen[farmer], farmer)
        tasks = sorted(places)
        cut = sorted(data.draw(st.lists(st.integers(0, len(tasks)), min_size=4, max_size=4)))
        good, bad, back, died = (tasks[start:stop] for start, stop in zip([0, *cut], cut, strict=False))
        size = self.lines[farmer] + len(good) + len(bad)
        entry = self.seen[farmer].farmers[farmer]
        moves = data.draw(st.booleans())
        journal = f"{entry.journal}-r" if moves else entry.journal
        if moves:
            size -= entry.bytes
        done = self.intervals(good + bad, places)
        returned, killed = self.intervals(back, places), self.intervals(died, places)
        what = Settlement(journal, size, done, returned, killed, finished=len(good), failed=len(bad))

        def believed() -> None:
            if moves:
                self.counted[entry.journal] = entry.bytes
            self.lines[farmer] = size
            for task in good + bad:
                self.place[task] = ("finished" if task in good else "failed", *places[task][1:])
            self.back(back)
            self.back(died, died=True)

        return what, believed

    @rule(farmer=st.sampled_from(NAMES), data=st.data())
    def settle(self, farmer: str, data: st.DataObject) -> None:
        if farmer in self.seen[farmer].farmers and farmer in self.head.farmers:
            what, believed = self.told(data, farmer)
            if self.commit(farmer, states.settle(self.seen[farmer], farmer, what)):
                believed()
                self.compare()

    def refuses_what_is_old(self) -> None:
        """A farmer cannot settle an attempt that it held once but does not hold any more."""
        for farmer, once in self.once.items():
            for task, place in once.items():
                if self.place[task] != place:
                    what = Settlement("x", 99, self.intervals([task], once), finished=1)
                    try:
                        states.settle(self.head, farmer, what)
                    except (StaleView, Expelled):
                        continue
                    raise AssertionError(f"{farmer} settled {task} as {place}; it is {self.place[task]}")
            if farmer in self.head.farmers:
                once.update(self.held(self.head, farmer))

    @rule(farmer=st.sampled_from(NAMES), other=st.sampled_from(NAMES), data=st.data())
    def expel(self, farmer: str, other: str, data: st.DataObject) -> None:
        seen = self.seen[farmer]
        if other not in seen.farmers:
            assert states.expel(seen, other, Settlement("x", 0)) is seen
            return
        if seen.revision != self.head.revision:
            self.seen[farmer] = self.head
            return
        self.seen[other] = seen if data.draw(st.booleans()) else self.seen[other]
        places = self.held(seen, other)
        tasks = sorted(places)
        done = self.some(data, tasks)
        ran = self.some(data, tasks)
        older = data.draw(st.booleans())
        announced = {task: (where, attempt - older, deaths) for task, (where, attempt, deaths) in places.items()}
        size = self.lines[other] + len(done)
        what = Settlement(seen.farmers[other].journal, size, self.intervals(done, places), finished=len(done))
        new = states.expel(seen, other, what, self.intervals(ran, announced))
        assert self.commit(farmer, new)
        self.counted[what.journal] = size
        for task in done:
            self.place[task] = ("finished", *places[task][1:])
        rest = [task for task in tasks if task not in done]
        self.back([task for task in rest if older or task not in ran])
        self.back([task for task in rest if not older and task in ran], died=True)
        self.compare()

    @rule(farmer=st.sampled_from(NAMES))
    def leave(self, farmer: str) -> None:
        seen = self.seen[farmer]
        if farmer not in seen.farmers:
            return
        journal = seen.farmers[farmer].journal
        try:
            new = states.leave(seen, farmer)
        except ValueError:
            assert self.held(seen, farmer)
            return
        assert not self.held(seen, farmer), "it left with what it held"
        if self.commit(farmer, new):
            self.counted[journal] = self.lines[farmer]
            self.compare()

    @rule(farmer=st.sampled_from(NAMES), data=st.data())
    def retry(self, farmer: str, data: st.DataObject) -> None:
        if self.seen[farmer].revision != self.head.revision:
            return
        good, bad = self.some(data, self.tasks_in("finished")), self.some(data, self.tasks_in("failed"))
        again = tuple(one.next_attempt() for one in self.intervals(good + bad, self.place))
        assert self.commit(farmer, states.retry(self.head, again, len(good), len(bad)))
        self.back(good + bad)
        self.compare()

    @rule(farmer=st.sampled_from(NAMES), tasks=st.integers(1, 5))
    def grow(self, farmer: str, tasks: int) -> None:
        """Two farmers may have read the same list: only the first one imports it."""
        first = len(self.place)
        if first < 50:
            seen = self.seen[farmer]
            old = seen.tasks
            grown = states.grow(self.head, Segment(f"from{old}", old, tasks))
            assert (grown is self.head) == (old != first), "a segment was taken in over another one"
            if self.commit(farmer, states.grow(seen, Segment(f"from{old}", old, tasks))):
                self.place.update(dict.fromkeys(range(first, first + tasks), ("unprocessed", 1, 0)))
                self.compare()

    @rule(farmer=st.sampled_from(NAMES), data=st.data())
    def turn(self, farmer: str, data: st.DataObject) -> None:
        seen = self.seen[farmer]
        closed = self.some_names(data, sorted(seen.departed))
        sizes = {name: seen.departed[name] for name in closed}
        if self.commit(farmer, states.begin_epoch(seen, f"{self.turns + 1:06d}-00000000", sizes)):
            self.turns += 1
            self.compare()

    def some_names(self, data: st.DataObject, names: list[str]) -> list[str]:
        return sorted(data.draw(st.sets(st.sampled_from(names)))) if names else []

    # --- after each step ------------------------------------------------------------------------------

    def compare(self) -> None:
        """Each task is exactly where the oracle expects it; sums are right; serialization loses nothing."""
        state = self.head
        found: dict[int, list[Place]] = {task: [] for task in self.place}
        for segment in state.segments:
            for task in range(segment.first + segment.next, segment.first + segment.tasks):
                found[task].append(("unprocessed", 1, 0))
        for one in parse_intervals(state.returned):
            for task in range(state.first_id(one), state.first_id(one) + one.count):
                found[task].append(("unprocessed", one.attempt, one.deaths))
        for farmer in state.farmers:
            for task, place in self.held(state, farmer).items():
                found[task].append(place)
        recorded = ("finished", "failed")
        assert found == {task: [] if place[0] in recorded else [place] for task, place in self.place.items()}
        places = [place for place, _, _ in self.place.values()]
        assert (state.finished, state.failed) == (places.count("finished"), places.count("failed"))
        assert state.unprocessed == places.count("unprocessed")
        assert state.journaled == sum(self.counted.values()) + sum(self.lines[name] for name in state.farmers)
        self.refuses_what_is_old()
        assert from_document(json.loads(json.dumps(to_document(state)))) == state
