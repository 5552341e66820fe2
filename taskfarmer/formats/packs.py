"""The formats of logs: headers in `log_<ID>`, the lines of packed files and of their index (docs/workdir-format.md).

The packed file is for people: a head line, what a task wrote, the next head line. A part of more than a chunk has
several pieces, with a head line each, since other workers append in between. The index tells where they are. It is
written later than they are, so a reader looks for head lines where it tells nothing.
"""

from __future__ import annotations

import os
import re
import zlib
from typing import NamedTuple

from taskfarmer.formats import limits

CHUNK = 1 << 20
"""The longest piece, its head line included."""
LONGEST_HEAD = 200
SHORTEST_HEAD = 58
_HEAD = re.compile(
    rb"=== taskfarmer: task (\d{1,18}), attempt (\d{1,9}), (?:exit \d+|signal \d+|continued), "
    rb"(\d{1,18}) bytes[^\n]* ===\n"
)
HEAD_BEGINS = b"=== taskfarmer: task "
ATTEMPT = re.compile(rb"=== taskfarmer: attempt (\d{1,9}) on [^\n]{1,300}, task (\d{1,18}), farm ([0-9a-f]{16}) ===\n")
"""The header of an attempt in `log_<ID>`: attempt, task, farm."""
LONGEST_ATTEMPT = 400


class Part(NamedTuple):
    """What one attempt wrote: `pieces` are offsets in the packed file and lengths; `crc` is of all their bytes."""

    task_id: int
    attempt: int
    status: int
    signal: int
    crc: int
    pieces: tuple[tuple[int, int], ...]


class Runs(NamedTuple):
    """An attempt has begun, and writes into the file `scratch` of `logs/running` until there is a part of it."""

    task_id: int
    attempt: int
    scratch: str


def attempt_head(farm: str, task_id: int, attempt: int, host: str, when: str) -> bytes:
    """The header that an attempt writes into `log_<ID>` before its output."""
    return f"=== taskfarmer: attempt {attempt} on {host}, {when}, task {task_id}, farm {farm} ===\n".encode()


def head(task_id: int, attempt: int, status: int, size: int, when: str) -> bytes:
    """The head line of the first piece of a part: `status` is a wait status, `size` the bytes of this piece."""
    how = b"signal %d" % os.WTERMSIG(status) if os.WIFSIGNALED(status) else b"exit %d" % (status >> 8)
    return b"=== taskfarmer: task %d, attempt %d, %s, %d bytes, %s ===\n" % (task_id, attempt, how, size, when.encode())


def next_head(task_id: int, attempt: int, size: int) -> bytes:
    """The head line of a further piece."""
    return b"=== taskfarmer: task %d, attempt %d, continued, %d bytes ===\n" % (task_id, attempt, size)


def parse_head(data: bytes) -> tuple[int, int, int, int] | None:
    """Task, attempt, bytes, and the length of the head line that `data` begins with; None where it is none."""
    match = _HEAD.match(data)
    return (int(match[1]), int(match[2]), int(match[3]), match.end()) if match else None


def part_line(part: Part) -> bytes:
    """A part's line for the index."""
    pieces = b",".join(b"%d+%d" % piece for piece in part.pieces) or b"-"
    values = part.task_id, part.attempt, part.status, part.signal, part.crc, pieces
    return _checked(b"part %d %d %d %d %08x %s" % values)


def runs_line(runs: Runs) -> bytes:
    return _checked(b"runs %d %d %s" % (runs.task_id, runs.attempt, os.fsencode(runs.scratch)))


def parse_line(line: bytes) -> Part | Runs | None:
    """What a line of an index says, without its line feed; None where it is damaged."""
    body, _, crc = line.rpartition(b" ")
    if crc != b"%08x" % zlib.crc32(body):
        return None
    words = body.split(b" ")
    try:
        if words[0] == b"part" and len(words) == 7:
            pieces = () if words[6] == b"-" else tuple(_piece(one) for one in words[6].split(b","))
            task_id, attempt, status, signal = map(_number, words[1:5])
            return Part(task_id, attempt, status, signal, int(words[5], 16), pieces)
        if words[0] == b"runs" and len(words) == 4 and b"/" not in words[3] and b"\0" not in words[3]:
            return Runs(_number(words[1]), _number(words[2]), os.fsdecode(words[3]))
    except ValueError:
        pass
    return None


def _number(digits: bytes) -> int:
    """ValueError for what fits no file offset."""
    if len(digits) > limits.DIGITS or not digits.isdigit():
        raise ValueError(digits)
    return int(digits)


def _piece(text: bytes) -> tuple[int, int]:
    start, _, size = text.partition(b"+")
    return _number(start), _number(size)


def _checked(body: bytes) -> bytes:
    return b"%s %08x\n" % (body, zlib.crc32(body))
