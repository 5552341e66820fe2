"""The line of a result: twelve words and a checksum, one line for each attempt, in the order of completion."""

from __future__ import annotations

import re
import zlib
from functools import cache
from typing import NamedTuple

FINISHED = b"finished"
FAILED = b"failed"
RETURNED = b"returned"
LOST = b"lost"
OUTCOMES = frozenset((FINISHED, FAILED, RETURNED, LOST))
RECORDED_AS_FAILED = frozenset((FAILED, LOST))


@cache
def _result() -> re.Pattern[bytes]:
    """All words of a result but its checksum. Compiled when the first one is read: a farmer reads none as a rule."""
    whole, some, times = rb"-?[0-9]{1,18}", rb"[0-9]{1,9}", [rb"-?[0-9]{1,18}(?:\.[0-9]{1,9})?"] * 2
    words = (some, some, whole, *times, rb"[a-z]{1,32}", whole, some, *times, whole, rb"[!-~]{1,64}")
    return re.compile(b" ".join(words))


class Result(NamedTuple):
    """One attempt at a task, as its farmer recorded it.

    Times are seconds since the epoch on the farmer's own clock; `user` and `system` are CPU seconds,
    `peak` kilobytes (getrusage(2): never less than the worker's own size). `status` is the exit
    status, `signal` the number of the signal that ended it, 0 for none. `log` says where the output
    is: `files` for logs/log_<ID>, `none` where the attempt left none.
    """

    task_id: int
    attempt: int
    slot: int
    start: float
    end: float
    outcome: bytes
    status: int
    signal: int
    user: float
    system: float
    peak: int
    log: bytes


def result_line(
    task_id: int,
    attempt: int,
    slot: int,
    start: float,
    end: float,
    outcome: bytes,
    status: int = 0,
    signal: int = 0,
    user: float = 0.0,
    system: float = 0.0,
    peak: int = 0,
    log: bytes = b"files",
) -> bytes:
    """The line of a result, its checksum and newline included."""
    form = result_form(attempt, slot, outcome, status, signal, log)
    return with_crc(form % (task_id, start, end, b"%.6f" % user, b"%.6f" % system, peak))


def result_form(attempt: int, slot: int, outcome: bytes, status: int, signal: int, log: bytes) -> bytes:
    """What attempts that ended alike have in common: a format of ID, start, end, CPU seconds as bytes, and peak."""
    return b"%%d %d %d %%.6f %%.6f %s %d %d %%s %%s %%d %s" % (attempt, slot, outcome, status, signal, log)


def with_crc(body: bytes) -> bytes:
    """A line of these words: a checksum and a newline behind them."""
    return b"%s %08x\n" % (body, zlib.crc32(body))


def result_words(line: bytes) -> list[bytes] | None:
    """The words of a whole, undamaged result line (no newline at its end), else None. They are what they must be."""
    body, _, crc = line.rpartition(b" ")
    if len(crc) != 8 or b"%08x" % zlib.crc32(body) != crc or _result().fullmatch(body) is None:
        return None
    return line.split(b" ")


def parse_result(words: list[bytes]) -> Result:
    return Result(
        int(words[0]),
        int(words[1]),
        int(words[2]),
        float(words[3]),
        float(words[4]),
        words[5],
        int(words[6]),
        int(words[7]),
        float(words[8]),
        float(words[9]),
        int(words[10]),
        words[11],
    )
