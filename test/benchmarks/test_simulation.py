"""The simulation of large farms: nothing is made or lost in it, and its figures move as they must."""

from __future__ import annotations

from collections import Counter

import pytest

from benchmarks import scale, tail
from benchmarks.events import Diary, Process, World, list_scheduling
from benchmarks.scale import Case, hold, lengths
from benchmarks.simulation import FAREWELL, Ground, Simulated, driving, simulate
from benchmarks.standins import OneAtATime, SimulatedExchanges, Slots
from taskfarmer.farmer import exchanges
from taskfarmer.formats.intervals import Interval
from taskfarmer.ledger.state import problems
from taskfarmer.views import views


class Witnessed(Ground):
    """A farm of which every state is looked at."""

    wrong: tuple[str, ...] = ()

    def committed(self, state, since):
        assert state.revision == self.newest.revision + 1
        self.wrong += tuple(problems(state))
        super().committed(state, since)


def farm(farmers=6, slots=4, each=20, seconds=2.0, latency=0.001, cadence=SimulatedExchanges, **options):
    times = lengths(farmers * slots * each, seconds, 1.0)
    return simulate(Witnessed(World(latency), times, slots, 0.5, **options), farmers, cadence=cadence)


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


def test_all_farmers_leave_in_the_end():
    ground = farm()
    assert len(ground.joined) == 6
    assert not ground.newest.farmers
    assert not ground.locked


def test_epochs_are_turned_and_forget_who_left():
    ground = farm(farmers=12, each=60)
    assert ground.newest.revision > 256
    assert ground.newest.epoch_from > 1
    assert ground.world.operations["epochs"] > 256


def test_the_same_dice_make_the_same_farm():
    first, second = farm(), farm()
    assert first.newest == second.newest
    assert first.world.operations == second.world.operations
    assert farm(latency=0.002).newest.revision != first.newest.revision


def test_nothing_is_faster_than_what_the_work_takes():
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


def test_commits_are_lost_only_where_locks_are_not_shared():
    assert farm().lost == 0
    alone = farm(shared=False)
    assert alone.lost > 0
    assert alone.wrong == ()


def test_more_farmers_exchange_less_often_each():
    """The policy keeps the operations of a farm in bounds: ten times the farmers are not ten times the commits."""
    rates = []
    for farmers in (8, 80):
        ground = simulate(Ground(World(0.001), lengths(farmers * 120, 0.5, 0.5), 2, 0.5), farmers)
        rates.append(ground.until_empty["commits"] / ground.empty_at)
    assert rates[0] < rates[1] < 6 * rates[0]


def test_a_store_of_tasks_beats_one_at_a_time():
    ours, single = (farm(8, 4, 50, 0.2, cadence=cadence).recorded_at for cadence in (SimulatedExchanges, OneAtATime))
    assert single > 1.2 * ours


def test_a_tail_is_compared_with_nothing_but_the_tasks():
    ours, single, best = tail.compare(400, 2.0, 1)
    # list scheduling is not the best that could be: another order of the tasks may end a little earlier
    assert 0 < best <= 1.1 * min(ours, single)


def test_one_slot_after_the_other_is_list_scheduling():
    assert list_scheduling([3.0, 1.0, 1.0, 2.0], 2) == 4.0
    assert list_scheduling([5.0], 3) == 5.0


def test_the_diary_knows_how_much_was_work():
    diary = Diary(0.5)
    diary.task(0.25, 2.0)
    diary.task(1.0, 3.0)
    assert diary.work(1.0) == 0.75
    assert diary.work(2.5) == 1.75 + 1.5
    assert diary.busy(2.0, 2) == (1.75 + 1.0) / 4
    assert diary.last == 3.0


def test_a_slot_that_ends_while_nobody_listens_waits():
    diary = Diary(1.0)
    slots = Slots(1, [1.0, 1.0], diary)
    slots.add(Interval(0, 0, 2), [])
    slots.dispatch(0.0)
    assert slots.advance(5.0, 9.0) == 6.0
    assert diary.last == 6.0
    slots.absorb(6.0)
    assert (slots.idle, [place for _, place in slots.ended]) == (1, [0, 1])


def test_the_world_lets_things_happen_in_order():
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


def test_time_is_everybodys_own_again_afterwards():
    before = exchanges.time, exchanges.random, views.time, views.random
    farm(farmers=1, each=2)
    assert (exchanges.time, exchanges.random, views.time, views.random) == before


def test_who_is_stopped_leaves_or_says_farewell_and_no_task_is_lost():
    world = World(0.05)
    ground = Witnessed(world, [60.0] * 4000, 4, 60.0)
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


def test_what_is_judged_says_what_was_wanted():
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


def test_a_farm_of_many_asks_little_of_the_file_system_and_its_slots_are_busy():
    """Simulated seconds are exact, so that what is judged with a thousand farmers can be seen with 200."""
    times = lengths(200 * 16 * 6, 60, 0.5)
    ground = simulate(Ground(World(0.001), times, 16, 1.0), 200)
    asked = sum(count for kind, count in ground.until_empty.items() if kind not in ("commits", "lost"))
    assert asked / ground.empty_at <= 500
    assert ground.until_empty["views"] > 0
    assert ground.diary.busy(ground.empty_at, 200 * 16) >= 0.97


def test_farmers_of_one_start_do_not_all_want_to_show_at_once():
    """They did, and so hardly any of them had the lock."""
    times = lengths(150 * 4 * 8, 20, 0.5)
    world = World(0.001)
    ground = Ground(world, times, 4, 1.0)
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


def test_hundreds_that_are_stopped_have_said_their_last_word_within_seconds():
    last, left = scale.stops(600, judged=True)
    assert last.kept
    assert 0 < left.ours < 600
