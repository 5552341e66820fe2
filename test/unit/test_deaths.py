"""When a farmer assumes a common cause for the deaths of its workers, and when it gives up."""

from __future__ import annotations

import pytest

from taskfarmer.pool.deaths import Deaths, exit_reason


def rounds(deaths: Deaths, number: int, *workers: list[tuple[int, int]], now: float = 1000.0) -> float:
    """Let workers that run these tasks die, in `number` rounds; each round starts after the pause.

    The time of the end.
    """
    for _ in range(number):
        for ran in workers:
            deaths.add(now + 0.5, now, ran)
        now += 0.5 + deaths.pause
    return now


def test_one_task_that_kills_all_its_workers_is_not_a_common_cause() -> None:
    deaths = Deaths()
    rounds(deaths, 50, [(0, 7)])
    assert not deaths.alike and not deaths.hopeless
    assert deaths.pause == 1.0


def test_other_tasks_in_the_worker_of_a_killing_task_are_not_separate_causes() -> None:
    deaths = Deaths()
    for neighbour in range(20):
        deaths.add(1000.0 + neighbour, 999.5 + neighbour, [(0, 7), (0, 100 + neighbour), (1, neighbour)])
    assert not deaths.alike


def test_the_pause_grows_if_workers_of_three_tasks_die_until_the_farmer_gives_up() -> None:
    deaths = Deaths()
    tasks = [[(0, 1)], [(0, 2)], [(1, 1)]]
    pauses, now = [], 1000.0
    for _ in range(5):
        now = rounds(deaths, 1, *tasks, now=now)
        pauses.append(deaths.pause)
        assert deaths.alike and not deaths.hopeless
    assert pauses == [1.0, 2.0, 4.0, 8.0, 16.0]
    rounds(deaths, 1, *tasks, now=now)
    assert deaths.hopeless
    assert deaths.workers == 18


def test_deaths_of_workers_that_were_started_together_are_one_round() -> None:
    deaths = Deaths()
    firsts = [deaths.add(1000.0 + number, 999.0, [(0, number)]) for number in range(100)]
    assert firsts == [True] + [False] * 99
    assert deaths.alike and not deaths.hopeless


def test_deaths_before_the_first_task_count_and_deaths_of_idle_workers_do_not() -> None:
    idle = Deaths()
    for number in range(20):
        idle.add(5000.0 * number, 5000.0 * number - 3600.0, [])
    assert not idle.alike
    deaths = Deaths()
    rounds(deaths, 6, [])
    assert deaths.hopeless


def test_after_a_finished_task_earlier_killing_tasks_do_not_indicate_a_common_cause() -> None:
    deaths = Deaths()
    tasks = [(0, 1)], [(0, 2)], [(0, 3)]
    rounds(deaths, 20, *tasks)
    assert deaths.hopeless
    deaths.progress()
    assert not deaths.alike and not deaths.unclear
    assert deaths.pause == 1.0
    rounds(deaths, 20, *tasks)
    assert deaths.unclear and not deaths.alike
    rounds(deaths, 1, [(0, 4)], [(0, 5)], [(0, 6)], now=1e6)
    assert deaths.hopeless


def test_a_pause_is_a_minute_at_most() -> None:
    deaths = Deaths()
    rounds(deaths, 3000, [(0, 1)], [(0, 2)], [(0, 3)])
    assert deaths.pause == 60.0


@pytest.mark.parametrize(
    ("exitcode", "told"),
    [(-9, "SIGKILL"), (-11, "SIGSEGV"), (0, "SIGTERM"), (3, "exit status 3"), (-40, "signal 40"), (None, "the kernel")],
)
def test_the_message_explains_how_a_worker_ended(exitcode: int | None, told: str) -> None:
    assert told in exit_reason(exitcode)
