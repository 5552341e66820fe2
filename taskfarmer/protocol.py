"""The messages between a farmer and its workers: a fixed head, and raw bytes.

A farmer sends lines of a segment as they are. A worker sends counts, and lines that are ready to be appended to a
journal and to the views. Nothing is pickled, and the farmer parses no task.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

# farmer to worker
TASKS, GIVE_BACK, STOP, QUIT, WARN, DEADLINE = b"T", b"G", b"S", b"Q", b"W", b"D"
# worker to farmer
RESULTS, UNSTARTED, INTERRUPTED, UNFINISHED, TROUBLE, SURVIVOR, LEFTOVERS = b"R", b"U", b"I", b"F", b"L", b"V", b"K"
REPLACE = b"E"
"""The worker asks for another one in its place."""

_COMMAND_HEAD = struct.Struct("<cIIIId")
_REPORT_HEAD = struct.Struct("<cIIIIIdIIIII")


class Command(NamedTuple):
    """For TASKS `number` is a new batch of a `slot`, and `attempt` is that of all its tasks.

    For WARN `number` is a signal for all tasks. `seconds` is the grace time of a STOP, and for DEADLINE the end of the
    farmer in epoch seconds.
    """

    kind: bytes
    slot: int = 0
    number: int = 0
    attempt: int = 0
    seconds: float = 0.0
    body: bytes = b""

    def encode(self) -> bytes:
        head = _COMMAND_HEAD.pack(self.kind, self.slot, self.number, self.attempt, len(self.body), self.seconds)
        return head + self.body


@dataclass(frozen=True)
class WorkerReport:
    """The next `count` tasks of batch `number` in `slot` have ended, in the order of the batch.

    `results`, `finished_lines`, `failed_lines` and `slices` are for the journal, `finished`, `failed` and
    `timeline.json`. `times` has a byte for each finished task of a second or more: its class of durations.

    The last task of INTERRUPTED and UNFINISHED is to be released: it was stopped, or exited before its work was done.
    `results` is a text for TROUBLE and SURVIVOR. For LEFTOVERS it has lines of a task's ID and the number of processes
    that this task left.
    """

    kind: bytes
    slot: int = 0
    number: int = 0
    count: int = 0
    finished: int = 0
    failed: int = 0
    seconds: float = 0.0
    results: bytes = b""
    finished_lines: bytes = b""
    failed_lines: bytes = b""
    slices: bytes = b""
    times: bytes = b""

    def encode(self) -> bytes:
        parts = (self.results, self.finished_lines, self.failed_lines, self.slices, self.times)
        head = _REPORT_HEAD.pack(
            self.kind, self.slot, self.number, self.count, self.finished, self.failed, self.seconds, *map(len, parts)
        )
        return b"".join((head, *parts))


class Commands:
    """Decodes commands from a stream of bytes."""

    def __init__(self) -> None:
        self._data = bytearray()

    def feed(self, data: bytes) -> Iterator[Command]:
        """Append bytes; yield the commands that are complete."""
        self._data += data
        while len(self._data) >= _COMMAND_HEAD.size:
            kind, slot, number, attempt, size, seconds = _COMMAND_HEAD.unpack_from(self._data)
            end = _COMMAND_HEAD.size + size
            if len(self._data) < end:
                return
            body = bytes(self._data[_COMMAND_HEAD.size : end])
            del self._data[:end]
            yield Command(kind, slot, number, attempt, seconds, body)


class WorkerReports:
    """Decodes reports from a stream of bytes."""

    def __init__(self) -> None:
        self._data = bytearray()

    def feed(self, data: bytes) -> Iterator[WorkerReport]:
        """Append bytes; yield the reports that are complete."""
        self._data += data
        while len(self._data) >= _REPORT_HEAD.size:
            kind, slot, number, count, finished, failed, seconds, *sizes = _REPORT_HEAD.unpack_from(self._data)
            end = _REPORT_HEAD.size + sum(sizes)
            if len(self._data) < end:
                return
            parts, start = [], _REPORT_HEAD.size
            for size in sizes:
                parts.append(bytes(self._data[start : start + size]))
                start += size
            del self._data[:end]
            yield WorkerReport(kind, slot, number, count, finished, failed, seconds, *parts)
