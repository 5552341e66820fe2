"""Durations in the notations of people and of Slurm."""

from __future__ import annotations

import pytest

from taskfarmer.formats.durations import seconds

MINUTE, HOUR, DAY = 60.0, 3600.0, 86400.0


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("90", 90.0),
        ("0", 0.0),
        ("007", 7.0),
        ("1.5", 1.5),
        (".5", 0.5),
        ("2.", 2.0),
        (" 90 ", 90.0),
        ("90s", 90.0),
        ("90S", 90.0),
        ("90m", 90 * MINUTE),
        ("1.5h", 1.5 * HOUR),
        ("2d", 2 * DAY),
        ("1h30m", 1.5 * HOUR),
        ("1d12h", 1.5 * DAY),
        ("1m0.5s", 60.5),
    ],
)
def test_a_bare_number_is_seconds_unless_a_unit_follows(text: str, expected: float) -> None:
    assert seconds(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("1:30", 90.0),
        ("90:00", 90 * MINUTE),
        ("1:30:00", 1.5 * HOUR),
        ("100:00:01", 100 * HOUR + 1),
        ("1-02", 26 * HOUR),
        ("1-02:30", 26.5 * HOUR),
        ("1-02:00:00", 26 * HOUR),
        ("0-00:00:05", 5.0),
        ("1-2:3:4", DAY + 2 * HOUR + 3 * MINUTE + 4),
    ],
)
def test_the_notations_of_slurm_have_their_meaning_in_slurm(text: str, expected: float) -> None:
    assert seconds(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        "-1",
        "-1:30",
        "nan",
        "inf",
        "1e3",
        "0x10",
        "1,5h",
        "90x",
        "90 m",
        "m",
        ".",
        "1:",
        ":30",
        "1:30:00:00",
        "1-",
        "1-02:",
        "1.5:00",
        "30m1h",
        "1h1h",
        "٣",
        "1_000",
        "1\n2",
    ],
)
def test_all_other_texts_are_refused_with_a_list_of_the_notations(text: str) -> None:
    with pytest.raises(ValueError, match=r"invalid duration .*: write"):
        seconds(text)


@pytest.mark.parametrize("text", ["1:60", "1:00:60", "1:90:00", "1-24", "1-02:60", "1-02:00:99"])
def test_fields_after_the_first_must_be_in_range(text: str) -> None:
    with pytest.raises(ValueError, match="too large for a field"):
        seconds(text)


@pytest.mark.parametrize("text", ["9" * 400, "9" * 308 + "d"])
def test_a_number_that_is_too_long_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="too long"):
        seconds(text)
