"""The simulation of large farms: it neither invents nor loses tasks, and its figures react as expected."""

from __future__ import annotations

from collections import Counter

import pytest

from benchmarks import scale, tail
from benchmarks.events import Diary, Process, World, list_scheduling
from benchmarks.scale import Case, hold, lengths
from benchmarks.simulation import FAREWELL, FarmModel, Simulated, driving, simulate
from benchmarks.standins import OneAtATime, SimulatedExchanges, Slots
from taskfarmer.farmer import exchanges
from taskfarmer.formats.intervals import Interval
from taskfarmer.ledger.state import problems
from taskfarmer.views import views


class CheckedFarm(FarmModel):
    """A farm that checks each of its states."""

    wrong: tuple[str, ...] = ()

    def committed(self, state, since):
        assert state.revision == self.newest.revision + 1
        self.wrong += tuple(problems(state))
        super().committed(state, since)


def farm(farmers=6, slots=4, each=20, seconds=2.0, latency=0.001, cadence=SimulatedExchanges, **options):
    times = lengths(farmers * slots * each, seconds, 1.0)
    return simulate(CheckedFarm(World(latency), times, slots, 0.5, **options), farmers, cadence=cadence)


@pytest.mark.parametrize("cadence", [SimulatedExchanges, OneAtATime])
@pytest.mark.parametrize("shared", [True, False])
def test_each_task_runs_once_and_is_recorded_once(monkeypatch, shared, cadence):
    begun = Counter()
    begin = Slots._begin

    def counting(self, now):
        begun[self.queue[0].start] += 1
        begin(self, now)

    monkeypatch.setattr(Slots, "_begin", counting)
    ground = farm(shared=shared, cadence=cadence)
    assert begun == Counter(range(len(ground.lengths)))
    assert ground.wrong == ()
    assert ground.newest.finished == len(ground.lengths)
    assert not ground.newest.has_unprocessed
    assert ground.newest.seconds == pytest.approx(sum(ground.lengths), rel=1e-3)


def test_all_farmers_leave_at_the_end():
    ground = farm()
    assert len(ground.joined) == 6
    assert not ground.newest.farmers
    assert not ground.locked


def test_epochs_change_and_farmers_that_left_are_dropped():
    ground = farm(farmers=12, each=60)
    assert ground.newest.revision > 256
    assert ground.newest.epoch_from > 1
    assert ground.world.operations["epochs"] > 256


def test_the_same_seed_makes_the_same_farm():
    first, second = farm(), farm()
    assert first.newest == second.newest
    assert first.world.operations == second.world.operations
    assert farm(latency=0.002).newest.revision != first.newest.revision


def test_no_farm_is_faster_than_its_work():
    ground = farm()
    work = sum(ground.lengths)
    assert ground.recorded_at > ground.diary.last >= max(work / 24, max(ground.lengths))
    assert ground.diary.work(ground.world.now + 1) == pytest.approx(work)


def test_slower_operations_leave_slots_idle():
    busy = []
    for latency in (0.0002, 0.005, 0.1):
        ground = farm(latency=latency)
        busy.append(ground.diary.busy(ground.empty_at, 24))
    assert busy[0] > busy[1] > busy[2] > 0.1
    assert busy[0] > 0.9


def test_commits_are_lost_only_if_locks_are_not_shared():
    assert farm().lost == 0
    alone = farm(shared=False)
    assert alone.lost > 0
    assert alone.wrong == ()


def test_more_farmers_exchange_less_often_each():
    """If there are ten times the farmers, the policy keeps the number of commits far below ten times."""
    rates = []
    for farmers in (8, 80):
        ground = simulate(FarmModel(World(0.001), lengths(farmers * 120, 0.5, 0.5), 2, 0.5), farmers)
        rates.append(ground.until_empty["commits"] / ground.empty_at)
    assert rates[0] < rates[1] < 6 * rates[0]


def test_claiming_tasks_in_advance_beats_one_at_a_time():
    ours, single = (farm(8, 4, 50, 0.2, cadence=cadence).recorded_at for cadence in (SimulatedExchanges, OneAtATime))
    assert single > 1.2 * ours


def test_a_tail_is_compared_with_the_bare_tasks():
    ours, single, best = tail.compare(400, 2.0, 1)
    # list scheduling is not optimal: another order of the tasks may finish a little earlier
    assert 0 < best <= 1.1 * min(ours, single)


def test_one_slot_after_the_other_is_list_scheduling():
    assert list_scheduling([3.0, 1.0, 1.0, 2.0], 2) == 4.0
    assert list_scheduling([5.0], 3) == 5.0


def test_the_diary_records_the_share_of_work():
    diary = Diary(0.5)
    diary.task(0.25, 2.0)
    diary.task(1.0, 3.0)
    assert diary.work(1.0) == 0.75
    assert diary.work(2.5) == 1.75 + 1.5
    assert diary.busy(2.0, 2) == (1.75 + 1.0) / 4
    assert diary.last == 3.0


def test_a_slot_that_finishes_waits_until_its_farmer_reads_the_report():
    diary = Diary(1.0)
    slots = Slots(1, [1.0, 1.0], diary)
    slots.add(Interval(0, 0, 2), [])
    slots.dispatch(0.0)
    assert slots.advance(5.0, 9.0) == 6.0
    assert diary.last == 6.0
    slots.absorb(6.0)
    assert (slots.idle, [place for _, place in slots.ended]) == (1, [0, 1])


def test_the_world_runs_events_in_order():
    world = World(0.001)
    seen = []

    def process(name: str, pause: float) -> Process:
        for _ in range(3):
            seen.append((round(world.now, 3), name))
            yield pause

    world.start(process("slow", 2.0), 0.5)
    world.start(process("quick", 1.0), 0.0)
    world.run(until=3.0)
    assert seen == [(0.0, "quick"), (0.5, "slow"), (1.0, "quick"), (2.0, "quick"), (2.5, "slow")]
    world.run()
    assert seen[-1] == (4.5, "slow")


def test_the_real_clock_is_restored_afterwards():
    before = exchanges.time, exchanges.random, views.time, views.random
    farm(farmers=1, each=2)
    assert (exchanges.time, exchanges.random, views.time, views.random) == before


def test_stopped_farmers_leave_or_write_a_farewell_note_and_no_task_is_lost():
    world = World(0.05)
    ground = CheckedFarm(world, [60.0] * 4000, 4, 60.0)
    with driving(world):
        crowd = [Simulated(ground) for _ in range(60)]
        hold(ground, crowd, 6)
        waited: list[float] = []
        for one in crowd:
            world.start(scale._stopped(one, waited), 0.0)
        world.run()
    assert len(waited) == 60
    assert ground.wrong == ()
    assert 0 < len(ground.newest.farmers) < 60, "some leave by a commit, the others in time"
    assert world.operations["farewells"] == FAREWELL * len(ground.newest.farmers)
    held = sum(6 for _ in ground.newest.farmers)
    assert ground.newest.unprocessed == 4000 - held


def test_each_judged_figure_contains_its_bound():
    figures = scale.farm(Case(4, 1.0, 10, busy=0.5))
    judged = [one for one in figures if one.kept is not None]
    assert [bool(one.wanted) for one in judged] == [True] * 4
    busy, makespan, operations, size = judged
    assert busy.kept and operations.kept and size.kept
    assert makespan.kept == (makespan.ratio <= scale.LATE)
    assert all(one.ratio >= 0 for one in figures)
    assert all(one.kept is None for one in scale.farm(Case(4, 1.0, 10)))


def test_starts_are_timed_until_the_last_farmer_has_work():
    few, many = (scale.starts(farmers, judged=True)[0] for farmers in (5, 50))
    assert few.kept and many.kept
    assert few.ours < many.ours < few.theirs


def test_a_large_farm_needs_few_file_operations_and_its_slots_are_busy():
    """Simulated seconds are exact, so that the effects of a thousand farmers already show with 200."""
    times = lengths(200 * 16 * 6, 60, 0.5)
    ground = simulate(FarmModel(World(0.001), times, 16, 1.0), 200)
    asked = sum(count for kind, count in ground.until_empty.items() if kind not in ("commits", "lost"))
    assert asked / ground.empty_at <= 500
    assert ground.until_empty["views"] > 0
    assert ground.diary.busy(ground.empty_at, 200 * 16) >= 0.97


def test_farmers_that_start_together_do_not_update_their_views_at_the_same_time():
    """They once did, so that hardly any of them got the lock."""
    times = lengths(150 * 4 * 8, 20, 0.5)
    world = World(0.001)
    ground = FarmModel(world, times, 4, 1.0)
    shown = Counter()
    show = Simulated._show

    def counting(self, patience):
        before = bool(self.views._results)
        yield from show(self, patience)
        shown[before, not self.views._results] += 1

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(Simulated, "_show", counting)
        simulate(ground, 150)
    assert shown[True, True] > 9 * shown[True, False]


def test_hundreds_of_stopped_farmers_leave_within_seconds():
    last, left = scale.stops(600, judged=True)
    assert last.kept
    assert 0 < left.ours < 600
