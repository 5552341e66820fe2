"""The pure transitions, compared with a model that knows each task's place and does not use intervals."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from taskfarmer.errors import Expelled, StaleView
from taskfarmer.formats.intervals import Interval, merge_adjacent, parse_intervals, write_intervals
from taskfarmer.ledger import state as states
from taskfarmer.ledger.document import from_document, to_document
from taskfarmer.ledger.state import Segment, Settlement, State, problems

NAMES = ("a", "b", "c", "d")


def fresh(tasks: int) -> State:
    return State("farm", 0, ("import", 0), "000000-00000000", 1, (Segment("first", 0, tasks),))


def ids(state: State, intervals: list[Interval]) -> list[tuple[int, int]]:
    return [(state.first_id(one) + place, one.attempt) for one in intervals for place in range(one.count)]


class Histories(RuleBasedStateMachine):
    """Random histories.

    `place` is the model: task -> (place, attempt), with a farmer or one of three words as place.
    """

    def __init__(self) -> None:
        super().__init__()
        self.state = fresh(7)
        self.place: dict[int, tuple[str, int]] = dict.fromkeys(range(7), ("unprocessed", 1))
        self.lines: dict[str, int] = {}
        self.recorded: set[tuple[int, int]] = set()

    def some(self, data: st.DataObject, where: str) -> list[int]:
        tasks = sorted(task for task, (place, _) in self.place.items() if place == where)
        return sorted(data.draw(st.sets(st.sampled_from(tasks)))) if tasks else []

    def intervals(self, tasks: list[int]) -> tuple[Interval, ...]:
        return tuple(merge_adjacent(self.state.interval_of(task, self.place[task][1]) for task in tasks))

    def end(self, tasks: list[int], outcome: str) -> None:
        for task in tasks:
            self.recorded.add((task, self.place[task][1]))
            self.place[task] = (outcome, self.place[task][1])

    def back(self, tasks: list[int]) -> None:
        for task in tasks:
            self.place[task] = ("unprocessed", self.place[task][1] + 1)

    def report(self, data: st.DataObject, farmer: str, returning: bool = True) -> Settlement:
        """A farmer's report about its tasks; the model contains it from now on."""
        held = self.some(data, farmer)
        cut = sorted(data.draw(st.lists(st.integers(0, len(held)), min_size=3, max_size=3)))
        finished, failed, returned = held[: cut[0]], held[cut[0] : cut[1]], held[cut[1] : cut[2]] * returning
        done = self.intervals(finished + failed)
        more = self.intervals(returned)
        self.end(finished, "finished")
        self.end(failed, "failed")
        self.back(returned)
        self.lines[farmer] += len(finished) + len(failed)
        journal = self.state.farmers[farmer].journal
        return Settlement(journal, self.lines[farmer], done, more, finished=len(finished), failed=len(failed))

    @rule(farmer=st.sampled_from(NAMES))
    def join(self, farmer: str) -> None:
        if farmer not in self.state.farmers:
            self.lines[farmer] = 0
            journal = f"{farmer}{self.state.revision}"
            self.state = states.join(self.state, farmer, journal, 2)
        assert states.join(self.state, farmer, "x", 2) is self.state

    @precondition(lambda self: self.state.farmers)
    @rule(data=st.data(), want=st.integers(0, 9))
    def claim(self, data: st.DataObject, want: int) -> None:
        farmer = data.draw(st.sampled_from(sorted(self.state.farmers)))
        before = sum(place == "unprocessed" for place, _ in self.place.values())
        held = ids(self.state, parse_intervals(self.state.farmers[farmer].claims))
        self.state = states.claim(self.state, farmer, want)
        gained = [one for one in ids(self.state, parse_intervals(self.state.farmers[farmer].claims)) if one not in held]
        assert len(gained) == min(want, before)
        for task, attempt in gained:
            assert self.place[task] == ("unprocessed", attempt)
            self.place[task] = (farmer, attempt)

    @precondition(lambda self: self.state.farmers)
    @rule(data=st.data())
    def settle(self, data: st.DataObject) -> None:
        farmer = data.draw(st.sampled_from(sorted(self.state.farmers)))
        self.state = states.settle(self.state, farmer, self.report(data, farmer))

    @precondition(lambda self: self.state.farmers)
    @rule(data=st.data())
    def expel(self, data: st.DataObject) -> None:
        farmer = data.draw(st.sampled_from(sorted(self.state.farmers)))
        what = self.report(data, farmer, returning=False)
        rest = [task for task, (place, _) in self.place.items() if place == farmer]
        ran = self.intervals(sorted(data.draw(st.sets(st.sampled_from(sorted(rest)))))) if rest else ()
        self.state = states.expel(self.state, farmer, what, ran)
        self.back(rest)
        assert states.expel(self.state, farmer, what) is self.state
        with pytest.raises(Expelled):
            states.settle(self.state, farmer, what)

    @precondition(lambda self: self.state.farmers)
    @rule(data=st.data())
    def leave(self, data: st.DataObject) -> None:
        farmer = data.draw(st.sampled_from(sorted(self.state.farmers)))
        if any(place == farmer for place, _ in self.place.values()):
            with pytest.raises(ValueError, match="cannot leave"):
                states.leave(self.state, farmer)
        else:
            self.state = states.leave(self.state, farmer)

    @rule(data=st.data())
    def retry(self, data: st.DataObject) -> None:
        finished, failed = self.some(data, "finished"), self.some(data, "failed")
        again = tuple(one.next_attempt() for one in self.intervals(finished + failed))
        self.state = states.retry(self.state, again, len(finished), len(failed))
        self.back(finished + failed)

    @rule(tasks=st.integers(1, 5))
    def grow(self, tasks: int) -> None:
        first = len(self.place)
        if first > 60:
            return
        self.state = states.grow(self.state, Segment(f"from{first}", first, tasks))
        self.place.update(dict.fromkeys(range(first, first + tasks), ("unprocessed", 1)))
        assert states.grow(self.state, Segment("late", first, tasks)) is self.state

    @rule(data=st.data())
    def turn(self, data: st.DataObject) -> None:
        closed = data.draw(st.sets(st.sampled_from(sorted(self.state.departed)))) if self.state.departed else set()
        sizes = {name: self.state.departed[name] for name in closed}
        self.state = states.begin_epoch(self.state, "000001-00000000", sizes)

    @invariant()
    def each_task_is_where_the_model_has_it(self) -> None:
        self.state = replace(self.state, revision=self.state.revision + 1)
        assert problems(self.state) == []
        found = dict.fromkeys(self.place, ("recorded", 0))
        for task, attempt in ids(self.state, parse_intervals(self.state.returned)):
            found[task] = ("unprocessed", attempt)
        for segment in self.state.segments:
            for task in range(segment.first + segment.next, segment.first + segment.tasks):
                found[task] = ("unprocessed", 1)
        for farmer, entry in self.state.farmers.items():
            for task, attempt in ids(self.state, parse_intervals(entry.claims)):
                found[task] = (farmer, attempt)
        recorded = {task for task, (place, _) in self.place.items() if place in ("finished", "failed")}
        assert {task: one for task, one in found.items() if one[0] != "recorded"} == {
            task: one for task, one in self.place.items() if task not in recorded
        }

    @invariant()
    def counters_are_those_of_the_model(self) -> None:
        places = [place for place, _ in self.place.values()]
        assert (self.state.finished, self.state.failed) == (places.count("finished"), places.count("failed"))
        assert self.state.unprocessed == places.count("unprocessed")
        assert self.state.has_unprocessed == ("unprocessed" in places)
        assert self.state.journaled == len(self.recorded)

    @invariant()
    def a_revision_holds_the_whole_state(self) -> None:
        assert from_document(json.loads(json.dumps(to_document(self.state)))) == self.state


TestHistories = Histories.TestCase
TestHistories.settings = settings(
    max_examples=300, stateful_step_count=40, deadline=None, suppress_health_check=list(HealthCheck)
)


def test_released_tasks_are_handed_out_before_the_rest_of_the_list() -> None:
    state = states.claim(states.join(fresh(10), "a", "a", 1), "a", 3)
    state = states.settle(state, "a", Settlement("a", 0, returned=(Interval(0, 1, 1),)))
    state = states.claim(states.join(state, "b", "b", 1), "b", 3)
    assert state.farmers["b"].claims == "0:3+2 0:1@2"


def test_a_death_is_counted_only_for_tasks_that_ran() -> None:
    state = states.claim(states.join(fresh(4), "a", "a", 1), "a", 4)
    state = states.expel(state, "a", Settlement("a", 9, (Interval(0, 0, 1),), finished=1), (Interval(0, 2, 1),))
    assert sorted(state.returned.split()) == ["0:2@2!1", write_intervals([Interval(0, 1, 1, 2), Interval(0, 3, 1, 2)])]
    assert state.departed == {"a": 9}


def test_tasks_that_ran_out_of_time_go_to_farmers_with_the_longest_time_seen() -> None:
    state = states.join(states.join(fresh(4), "a", "a", 1), "b", "b", 1)
    state = states.claim(state, "a", 2, seconds_left=1000.0)
    assert state.longest == 1000
    state = states.settle(state, "a", Settlement("a", 0, overran=(Interval(0, 1, 1),)))
    assert state.returned == "0:1@2^950"
    assert states.claim(state, "b", 4, seconds_left=900.0).farmers["b"].claims == "0:2+2"
    again = states.claim(state, "b", 4, seconds_left=960.0)
    assert again.farmers["b"].claims == "0:2+2 0:1@2^950"
    assert not again.returned
    twice = states.settle(again, "b", Settlement("b", 0, overran=(Interval(0, 1, 1, 2, needs=950),)))
    assert twice.returned == "0:1@3^1001"
    assert states.claim(twice, "a", 4, seconds_left=1000.0).returned == "0:1@3^1001"
    assert states.claim(twice, "a", 4).farmers["a"].claims == "0:0 0:1@3^1001"
    assert problems(twice) == []


def test_tasks_that_are_skipped_stay_in_their_order() -> None:
    returned = "0:0@2^50 0:1@2 0:2@2^70 0:3@2"
    state = states.join(replace(fresh(6), returned=returned), "a", "a", 1)
    state = replace(state, segments=(replace(state.segments[0], next=4),))
    after = states.claim(state, "a", 1, seconds_left=10.0)
    assert (after.returned, after.farmers["a"].claims) == ("0:0@2^50 0:2@2^70 0:3@2", "0:1@2")
    after = states.claim(state, "a", 9, seconds_left=60.0)
    assert after.returned == "0:2@2^70"


def test_durations_of_finished_tasks_are_summed_by_class() -> None:
    state = states.claim(states.join(fresh(4), "a", "a", 1), "a", 2)
    for place in range(2):
        told = Settlement("a", 9, (Interval(0, place, 1),), finished=1, times={8: 1, place: 2})
        state = states.settle(state, "a", told)
    assert state.times == {8: 2, 0: 2, 1: 2}
    assert from_document(json.loads(json.dumps(to_document(state)))) == state


def test_a_farmer_cannot_settle_a_task_that_it_does_not_hold() -> None:
    state = states.claim(states.join(fresh(4), "a", "a", 1), "a", 2)
    told = Settlement("a", 9, (Interval(0, 0, 1),), finished=1)
    after = states.settle(state, "a", told)
    with pytest.raises(StaleView, match="no longer holds"):
        states.settle(after, "a", told)


def test_an_abandoned_journal_is_closed_with_its_counted_size() -> None:
    state = states.claim(states.join(fresh(4), "a", "a", 1), "a", 2)
    state = states.settle(state, "a", Settlement("a", 9, (Interval(0, 0, 1),), finished=1))
    state = states.settle(state, "a", Settlement("a-r1", 5, (Interval(0, 1, 1),), failed=1))
    assert state.departed == {"a": 9}
    assert state.farmers["a"].journal == "a-r1"
    assert state.journaled == 14


def test_members_that_a_later_version_added_are_kept() -> None:
    document = to_document(states.join(fresh(2), "a", "a", 1))
    document["later"] = [1]
    document["segments"][0]["requires"] = ["gpu"]
    document["farmers"]["a"] += ["a", {"colour": "green"}]
    assert to_document(from_document(document)) == document
    assert to_document(states.claim(from_document(document), "a", 1))["farmers"]["a"][5] == {"colour": "green"}


def test_a_state_with_a_task_in_two_places_or_none_is_reported() -> None:
    state = states.claim(states.join(fresh(4), "a", "a", 1), "a", 2)
    assert "twice" in "".join(problems(replace(state, returned="0:1+1@2")))
    assert "never claimed" in "".join(problems(replace(state, returned="0:3+1@2")))
    assert "does not name tasks" in "".join(problems(replace(state, returned="1:0+1")))
    assert "4 tasks, but" in "".join(problems(replace(state, finished=1)))
