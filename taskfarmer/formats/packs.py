"""The formats of logs: attempt headers in `log_<ID>`, and packed files (docs/workdir-format.md).

A packed file consists of pieces: a head line, then output of a task. Long output is stored in several pieces, and
pieces of other workers may be in between. A head line contains the length of its piece, so a reader can skip from head
to head without reading the output.
"""

from __future__ import annotations

import os
import re
from typing import NamedTuple

CHUNK = 1 << 20
"""Maximum bytes of a piece including its head line."""
LONGEST_HEAD = 200
LONGEST_BODY = CHUNK - LONGEST_HEAD
"""Maximum bytes of output in a piece."""
HEAD = re.compile(
    rb"=== taskfarmer: task (\d{1,18}), attempt (\d{1,9}), (exit \d{1,9}|signal \d{1,9}|continued|running), "
    rb"(\d{1,18})(?: of (\d{1,18}))? bytes(?:, slot (\d{1,9}), file (\d{1,9}))?[^\n]{0,60} ===\n"
)
ATTEMPT_HEADER = re.compile(
    rb"=== taskfarmer: attempt (\d{1,9}) on [^\n]{1,300}, task (\d{1,18}), farm ([0-9a-f]{16}) ===\n"
)
"""The header of an attempt in `log_<ID>`: attempt, task, farm."""
LONGEST_ATTEMPT_HEADER = 400


class Head(NamedTuple):
    """A parsed head line.

    `size` is the bytes of output that follow it, `total` the bytes of the whole output if this is its first piece, and
    `length` the bytes of the head line itself. `scratch` is not None if the attempt is running: the slot and the number
    of the scratch file that it writes to.
    """

    task_id: int
    attempt: int
    size: int
    total: int
    length: int
    scratch: tuple[int, int] | None = None


def attempt_header(farm: str, task_id: int, attempt: int, host: str, when: str) -> bytes:
    """The header that an attempt writes into `log_<ID>` before its output."""
    return f"=== taskfarmer: attempt {attempt} on {host}, {when}, task {task_id}, farm {farm} ===\n".encode()


def running_head(task_id: int, attempt: int, slot: int, number: int) -> bytes:
    """The head line for an attempt that is running and writes to a scratch file of its slot."""
    values = task_id, attempt, slot, number
    return b"=== taskfarmer: task %d, attempt %d, running, 0 bytes, slot %d, file %d ===\n" % values


def first_head(task_id: int, attempt: int, status: int, sizes: tuple[int, int], when: str) -> bytes:
    """The head line of the first piece of a finished attempt.

    `status` is a wait status. `sizes` are the bytes of this piece and of the whole output.
    """
    how = b"signal %d" % os.WTERMSIG(status) if os.WIFSIGNALED(status) else b"exit %d" % (status >> 8)
    size = b"%d" % sizes[0] if sizes[0] == sizes[1] else b"%d of %d" % sizes
    return b"=== taskfarmer: task %d, attempt %d, %s, %s bytes, %s ===\n" % (task_id, attempt, how, size, when.encode())


def next_head(task_id: int, attempt: int, size: int) -> bytes:
    """The head line of each further piece."""
    return b"=== taskfarmer: task %d, attempt %d, continued, %d bytes ===\n" % (task_id, attempt, size)


def parse_head(data: bytes, offset: int = 0) -> Head | None:
    """The head line at an offset; None if there is none."""
    match = HEAD.match(data, offset)
    if match is None:
        return None
    task_id, attempt, size = int(match[1]), int(match[2]), int(match[4])
    scratch = (int(match[6]), int(match[7])) if match[6] and match[3] == b"running" else None
    return Head(task_id, attempt, size, int(match[5] or size), match.end() - offset, scratch)
