"""A worker has died: its last task has died, unreported results are lost and retried, and the rest stays queued."""

from __future__ import annotations

import pytest

from taskfarmer.formats.intervals import Interval
from taskfarmer.pool.handles import AssignedBatch
from taskfarmer.pool.recovery import recover


def batches() -> list[AssignedBatch]:
    """Tasks 0 to 3, of which the first was reported, and 4 to 7."""
    lines = [b"%d true\n" % number for number in range(8)]
    return [AssignedBatch(1, Interval(0, 0, 4), lines[:4], done=1), AssignedBatch(2, Interval(0, 4, 4), lines[4:])]


def ids(intervals: list[Interval]) -> list[int]:
    return [one.start + place for one in intervals for place in range(one.count)]


@pytest.mark.parametrize(
    ("shown", "died", "returned", "kept"),
    [
        (0, None, [], [1, 2, 3, 4, 5, 6, 7]),
        (2, 1, [], [2, 3, 4, 5, 6, 7]),
        (3, 2, [1], [3, 4, 5, 6, 7]),
        (-3, 2, [1], [3, 4, 5, 6, 7]),
        (-1, None, [], [1, 2, 3, 4, 5, 6, 7]),
        (6, 5, [1, 2, 3, 4], [6, 7]),
        (-8, 7, [1, 2, 3, 4, 5, 6], []),
    ],
)
def test_the_last_shown_task_of_a_slot_determines_its_position(
    shown: int, died: int | None, returned: list[int], kept: list[int]
) -> None:
    found = recover(batches(), shown, attempt=1)
    assert (found.died.start if found.died else None) == died
    assert found.command == (b"true" if died is not None else b"")
    assert ids(found.returned) == returned
    assert ids([stock.interval for stock in found.kept]) == kept
    assert [line for stock in found.kept for line in stock.lines] == [b"%d true\n" % number for number in kept]


def test_an_earlier_attempt_of_the_shown_task_is_ignored() -> None:
    found = recover(batches(), 3, attempt=2)
    assert found.died is None
    assert ids([stock.interval for stock in found.kept]) == [1, 2, 3, 4, 5, 6, 7]
