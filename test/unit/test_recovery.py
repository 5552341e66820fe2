"""A worker that is gone: what ran or ended last has died, what ended before is run again, the rest stays as it is."""

from __future__ import annotations

import pytest

from taskfarmer.formats.intervals import Interval
from taskfarmer.pool.handles import AssignedBatch
from taskfarmer.pool.recovery import recover


def batches() -> list[AssignedBatch]:
    """Tasks 0 to 3, of which the first was told, and 4 to 7."""
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
def test_what_a_slot_showed_last_says_where_it_was(
    shown: int, died: int | None, returned: list[int], kept: list[int]
) -> None:
    found = recover(batches(), shown, attempt=1)
    assert (found.died.start if found.died else None) == died
    assert found.command == (b"true" if died is not None else b"")
    assert ids(found.returned) == returned
    assert ids([stock.interval for stock in found.kept]) == kept
    assert [line for stock in found.kept for line in stock.lines] == [b"%d true\n" % number for number in kept]


def test_an_earlier_attempt_that_was_shown_is_another_one() -> None:
    found = recover(batches(), 3, attempt=2)
    assert found.died is None
    assert ids([stock.interval for stock in found.kept]) == [1, 2, 3, 4, 5, 6, 7]
