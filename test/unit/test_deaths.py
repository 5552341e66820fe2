"""When a farmer believes that workers die of a common cause, and when it gives up."""

from __future__ import annotations

import pytest

from taskfarmer.pool.deaths import Deaths, exit_reason


def rounds(deaths: Deaths, number: int, *workers: list[tuple[int, int]], now: float = 1000.0) -> float:
    """Let workers that run these tasks die, in so many rounds; each begins when the pause is over. When they end."""
    for _ in range(number):
        for ran in workers:
            deaths.add(now + 0.5, now, ran)
        now += 0.5 + deaths.pause
    return now


def test_one_task_that_kills_each_worker_it_runs_in_is_no_common_cause() -> None:
    deaths = Deaths()
    rounds(deaths, 50, [(0, 7)])
    assert not deaths.alike and not deaths.hopeless
    assert deaths.pause == 1.0


def test_the_neighbours_of_a_task_that_kills_its_worker_are_no_other_cause() -> None:
    deaths = Deaths()
    for neighbour in range(20):
        deaths.add(1000.0 + neighbour, 999.5 + neighbour, [(0, 7), (0, 100 + neighbour), (1, neighbour)])
    assert not deaths.alike


def test_workers_of_three_tasks_that_die_are_waited_for_longer_each_time_and_given_up() -> None:
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


def test_workers_that_were_started_together_are_one_round() -> None:
    deaths = Deaths()
    firsts = [deaths.add(1000.0 + number, 999.0, [(0, number)]) for number in range(100)]
    assert firsts == [True] + [False] * 99
    assert deaths.alike and not deaths.hopeless


def test_workers_that_die_before_their_first_task_are_given_up_too_and_idle_ones_are_not_counted() -> None:
    idle = Deaths()
    for number in range(20):
        idle.add(5000.0 * number, 5000.0 * number - 3600.0, [])
    assert not idle.alike
    deaths = Deaths()
    rounds(deaths, 6, [])
    assert deaths.hopeless


def test_after_a_task_has_ended_those_that_killed_their_workers_before_are_no_sign_of_a_common_cause() -> None:
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
def test_how_a_worker_ended_is_told_in_words(exitcode: int | None, told: str) -> None:
    assert told in exit_reason(exitcode)
