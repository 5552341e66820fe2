"""Durations as people and Slurm write them, and the classes by which durations of tasks are counted."""

from __future__ import annotations

import math
import re

_NUMBER = r"(\d+(?:\.\d*)?|\.\d+)"
# compiled when needed: most lists have no durations
_UNITS = "".join(f"(?:{_NUMBER}{unit})?" for unit in ("d", "h", "m", "s"))
_CLOCK = r"(?:(\d+):)?(\d+):(\d+)"
_DAYS = r"(\d+)-(\d+)(?::(\d+))?(?::(\d+))?"
_LENGTHS = (86400.0, 3600.0, 60.0, 1.0)


def seconds(text: str) -> float:
    """Parse a duration into seconds; zero is allowed. ValueError if the text is not a duration.

    A bare number means seconds. `90s`, `90m`, `1.5h`, `2d` and `1h30m` name their units. The other forms are Slurm's
    (sbatch(1), --time): `minutes:seconds`, `hours:minutes:seconds`, `days-hours`, `days-hours:minutes`,
    `days-hours:minutes:seconds`.
    """
    word = text.strip()
    found = _plain(word) or _with_units(word) or _clock(word) or _days(word)
    if found is None:
        raise ValueError(
            f"invalid duration {text!r}: write seconds (90), 90s, 90m, 1.5h, 2d, 1:30:00 (h:m:s), 30:00 (m:s) or "
            "1-02:00:00 (days-h:m:s)"
        )
    total = sum(float(count or 0) * length for count, length in zip(found, _LENGTHS, strict=True))
    if not math.isfinite(total):
        raise ValueError(f"duration {text!r} is too long")
    _refuse_carry(text, found)
    return total


_Fields = tuple[str | None, str | None, str | None, str | None]


def _plain(word: str) -> _Fields | None:
    return (None, None, None, word) if re.fullmatch(_NUMBER, word, re.ASCII) else None


def _with_units(word: str) -> _Fields | None:
    match = re.fullmatch(_UNITS, word, re.ASCII | re.IGNORECASE)
    return (match[1], match[2], match[3], match[4]) if word and match else None


def _clock(word: str) -> _Fields | None:
    match = re.fullmatch(_CLOCK, word, re.ASCII)
    return (None, match[1], match[2], match[3]) if match else None


def _days(word: str) -> _Fields | None:
    match = re.fullmatch(_DAYS, word, re.ASCII)
    return (match[1], match[2], match[3], match[4]) if match else None


def _refuse_carry(text: str, fields: _Fields) -> None:
    """Allow large values in the first field only: `1:90` is more often a typing error than 150 seconds."""
    if ":" not in text and "-" not in text:
        return
    given = [(count, most) for count, most in zip(fields, (math.inf, 24, 60, 60), strict=True) if count is not None]
    for count, most in given[1:]:
        if int(count) >= most:
            raise ValueError(f"invalid duration {text!r}: {count} is too large for a field after the first")


def time_class(seconds: float) -> int:
    """The class of a duration: 0 for less than a second; class k ends at 2 ** (k / 4) seconds; 255 at most."""
    return min(255, 1 + int(4 * math.log2(seconds))) if seconds >= 1 else 0


def class_end(number: int) -> float:
    """The upper end of a class of durations, in seconds."""
    return math.pow(2.0, number / 4)
