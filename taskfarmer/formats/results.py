"""Result lines: twelve words and a checksum, one line for each attempt, in the order of completion."""

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
    """The pattern of a result line without its checksum. It is compiled on first use: most farmers read no results."""
    whole, some, times = rb"-?[0-9]{1,18}", rb"[0-9]{1,9}", [rb"-?[0-9]{1,18}(?:\.[0-9]{1,9})?"] * 2
    words = (some, some, whole, *times, rb"[a-z]{1,32}", whole, some, *times, whole, rb"[!-~]{1,64}")
    return re.compile(b" ".join(words))


class Result(NamedTuple):
    """One attempt at a task, as its farmer recorded it.

    Times are seconds since the epoch by the farmer's clock; `user` and `system` are CPU seconds, `peak` is in kilobytes
    (getrusage(2): never less than the worker's own size). `status` is the exit status, `signal` the number of the
    signal that killed the task, or 0. `log` is how the output was kept: `files` for logs/log_<ID>, `none` if the
    task wrote nothing.
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
    """A complete result line, with checksum and newline."""
    form = result_form(attempt, slot, outcome, status, signal, log)
    return with_crc(form % (task_id, start, end, b"%.6f" % user, b"%.6f" % system, peak))


def result_form(attempt: int, slot: int, outcome: bytes, status: int, signal: int, log: bytes) -> bytes:
    """A format string for attempts with the same end. Its fields: ID, start, end, CPU seconds as bytes, and peak."""
    return b"%%d %d %d %%.6f %%.6f %s %d %d %%s %%s %%d %s" % (attempt, slot, outcome, status, signal, log)


def with_crc(body: bytes) -> bytes:
    """Append a checksum and a newline to the words of a line."""
    return b"%s %08x\n" % (body, zlib.crc32(body))


def result_words(line: bytes) -> list[bytes] | None:
    """The valid words of a result line (without its newline); None if the line is incomplete or corrupt."""
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
