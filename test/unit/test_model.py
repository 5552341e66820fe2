"""The line formats: a line is parsed back to the values that were written, and all other lines are refused."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from taskfarmer.formats.intervals import (
    Interval,
    count_tasks,
    merge_adjacent,
    parse_group,
    parse_intervals,
    subtract,
    write_intervals,
)
from taskfarmer.formats.results import FAILED, parse_result, result_line, result_words
from taskfarmer.formats.sealed import sealed, unsealed
from taskfarmer.formats.tasks import parse_task, task_line

FORMAT = Path(__file__).parents[2] / "docs" / "workdir-format.md"

intervals = st.builds(
    Interval,
    segment=st.integers(0, 3),
    start=st.integers(0, 500),
    count=st.integers(1, 50),
    attempt=st.integers(1, 4),
    deaths=st.integers(0, 2),
)


def places(several: list[Interval]) -> list[tuple[int, int]]:
    return [(one.segment, place) for one in several for place in range(one.start, one.stop)]


@given(st.integers(0, 10**9), st.binary())
def test_a_task_line_is_one_line_and_contains_its_command(number: int, command: bytes) -> None:
    line = task_line(number, command)
    assert line.endswith(b"\n")
    assert line.count(b"\n") == 1
    assert parse_task(line) == (number, command)
    assert parse_task(line[:-1]) == (number, command)


@pytest.mark.parametrize("command", [b'{"command": 1}', b'{"command":', b"{}", b"a\nb", b"a\r", b" a ", b"\xff\n", b""])
def test_commands_that_look_like_our_notation_survive(command: bytes) -> None:
    assert parse_task(task_line(7, command)) == (7, command)


@given(intervals)
def test_an_interval_survives_writing_and_parsing(one: Interval) -> None:
    assert parse_group(str(one)) == [one]


@pytest.mark.parametrize("word", ["", "1", "0:", "0:1,", "a:1+1", "0:1+", "0:1+1@x", "0~g", "0~A!x", "0~A,A", "0~B"])
def test_an_invalid_interval_is_refused(word: str) -> None:
    with pytest.raises(ValueError, match="invalid literal"):
        parse_group(word)


def test_scattered_intervals_are_written_as_in_the_format_page() -> None:
    word = "0~hgBBQNB"
    several = [Interval(0, 512, 3), Interval(0, 523, 1), Interval(0, 530, 3)]
    assert f"`{word}` stands for the places 512, 513, 514, 523, 530, 531 and 532" in FORMAT.read_text()
    assert parse_group(word) == several
    assert write_intervals(several) == word


@given(st.lists(intervals))
def test_joining_intervals_keeps_tasks_order_and_attempts(several: list[Interval]) -> None:
    back = parse_intervals(write_intervals(several))
    assert places(back) == places(several)
    assert list(merge_adjacent(back)) == back
    assert count_tasks(back) == count_tasks(several)


@given(st.sets(st.integers(0, 200)), st.data())
def test_taking_intervals_out_leaves_the_rest_in_order(held: set[int], data: st.DataObject) -> None:
    gone = data.draw(st.sets(st.sampled_from(sorted(held)))) if held else set()
    some = list(merge_adjacent(Interval(0, place, 1) for place in sorted(held)))
    taken = list(merge_adjacent(Interval(0, place, 1) for place in sorted(gone)))
    assert [place for _, place in places(subtract(some, taken))] == sorted(held - gone)


def test_a_result_line_survives_writing_and_parsing() -> None:
    line = result_line(7, 2, 3, 1.5, 2.5, FAILED, 1, 9, 0.25, 0.125, 4096, b"none")
    words = result_words(line[:-1])
    assert words is not None
    one = parse_result(words)
    assert (one.task_id, one.attempt, one.slot, one.start, one.end, one.outcome) == (7, 2, 3, 1.5, 2.5, FAILED)
    assert (one.status, one.signal, one.user, one.system, one.peak, one.log) == (1, 9, 0.25, 0.125, 4096, b"none")


def test_a_result_line_with_any_byte_changed_or_missing_is_refused() -> None:
    line = result_line(7, 2, 3, 1.5, 2.5, FAILED)[:-1]
    for place in range(len(line)):
        assert result_words(line[:place]) is None
        assert result_words(line[:place] + bytes([line[place] ^ 1]) + line[place + 1 :]) is None


def test_a_sealed_document_with_any_byte_changed_or_missing_is_refused() -> None:
    document: dict[str, object] = {"a": [1, "ü"], "crc": "not the checksum", "b": ',"crc":"'}
    data = sealed(document)
    assert unsealed(data) == document
    for place in range(len(data)):
        assert unsealed(data[:place]) is None
        assert unsealed(data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :]) is None
    assert unsealed(data + b"\n") is None
    assert unsealed(b"") is None
