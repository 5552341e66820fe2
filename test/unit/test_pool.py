"""The tasks that a pool has not handed out yet."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from taskfarmer.formats.intervals import Interval
from taskfarmer.pool.pool import Pool
from taskfarmer.runners.shell import BasicRunner


@pytest.fixture
def pool() -> Iterator[Pool]:
    """A pool with three intervals, whose second is at its third attempt, and without workers."""
    wakeup, written = os.pipe()

    def nowhere(slot: int) -> None:
        raise AssertionError("no worker is started")

    pool = Pool(4, nowhere, BasicRunner(), 1.0, wakeup)  # type: ignore[arg-type]
    for start, count, attempt in ((0, 2, 1), (2, 1, 3), (3, 3, 1)):
        pool.add(Interval(0, start, count, attempt), [b"%d true\n" % number for number in range(start, start + count)])
    yield pool
    os.close(wakeup)
    os.close(written)


def places(intervals: list[Interval]) -> list[int]:
    return [one.start + place for one in intervals for place in range(one.count)]


@pytest.mark.parametrize("most", [0, 1, 2, 3, 5, 6, 10])
def test_what_comes_next_is_listed_over_all_intervals(pool: Pool, most: int) -> None:
    assert places(pool.following(most)) == list(range(min(most, 6)))
    assert pool.queued == 6


def test_all_tasks_that_were_not_handed_out_can_be_taken_back(pool: Pool) -> None:
    assert places(pool.release_queued()) == [0, 1, 2, 3, 4, 5]
    assert pool.queued == 0 and not pool.following(1)


def test_tasks_that_are_kept_by_their_line_stay_in_order_and_in_one_interval(pool: Pool) -> None:
    back = pool.release_queued(lambda line: int(line.split()[0]) in (1, 3, 4, 5))
    assert places(back) == [0, 2]
    assert [one.attempt for one in back] == [1, 3]
    assert places(pool.following(9)) == [1, 3, 4, 5]
    assert [tasks.interval.count for tasks in pool.queue] == [1, 3]


def test_tasks_with_deaths_wait_until_after_tasks_without_deaths(pool: Pool) -> None:
    pool.add(Interval(0, 6, 1, 2, deaths=1), [b"6 true\n"])
    pool.add(Interval(0, 7, 1), [b"7 true\n"])
    pool.add(Interval(0, 8, 1, 3, deaths=2), [b"8 true\n"])
    pool.add(Interval(0, 9, 1), [b"9 true\n"])
    assert places(pool.following(10)) == [0, 1, 2, 3, 4, 5, 7, 9, 6, 8]
