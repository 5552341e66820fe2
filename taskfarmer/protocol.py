"""What a farmer and its workers say to each other: frames of a fixed head and raw bytes.

A farmer sends lines of a segment as they are; a worker sends back lines that are ready to be appended
to a journal and to the views, and counts. Nobody pickles, and the farmer parses no task.
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

_ORDER = struct.Struct("<cIIIId")
_NEWS = struct.Struct("<cIIIIIdIIIII")


class Command(NamedTuple):
    """`number` is a batch for a `slot`, `attempt` that of all of its tasks, `seconds` the grace of a STOP.

    For a WARN `number` is a signal for all tasks; for a DEADLINE `seconds` is when the farmer ends, in epoch seconds.
    """

    kind: bytes
    slot: int = 0
    number: int = 0
    attempt: int = 0
    seconds: float = 0.0
    body: bytes = b""

    def encode(self) -> bytes:
        return _ORDER.pack(self.kind, self.slot, self.number, self.attempt, len(self.body), self.seconds) + self.body


@dataclass(frozen=True)
class WorkerReport:
    """`count` tasks of batch `number` in `slot` are over, in the order of the batch.

    `results`, `finished_lines`, `failed_lines` and `slices` go to the journal, `finished`, `failed` and
    `timeline.json`; `times` has a byte for each finished task of a second or more, its class of durations.
    The last task of INTERRUPTED and UNFINISHED is to be given back: it was ended, or ended by itself before
    its work was done. For TROUBLE and SURVIVOR `results` is a text; for LEFTOVERS it has lines of a task's ID and the
    number of processes that this task left.
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
        head = _NEWS.pack(
            self.kind, self.slot, self.number, self.count, self.finished, self.failed, self.seconds, *map(len, parts)
        )
        return b"".join((head, *parts))


class Commands:
    """Takes bytes as they come, gives whole orders."""

    def __init__(self) -> None:
        self._data = bytearray()

    def feed(self, data: bytes) -> Iterator[Command]:
        self._data += data
        while len(self._data) >= _ORDER.size:
            kind, slot, number, attempt, size, seconds = _ORDER.unpack_from(self._data)
            end = _ORDER.size + size
            if len(self._data) < end:
                return
            body = bytes(self._data[_ORDER.size : end])
            del self._data[:end]
            yield Command(kind, slot, number, attempt, seconds, body)


class WorkerReports:
    """The same for news."""

    def __init__(self) -> None:
        self._data = bytearray()

    def feed(self, data: bytes) -> Iterator[WorkerReport]:
        self._data += data
        while len(self._data) >= _NEWS.size:
            kind, slot, number, count, finished, failed, seconds, *sizes = _NEWS.unpack_from(self._data)
            end = _NEWS.size + sum(sizes)
            if len(self._data) < end:
                return
            parts, place = [], _NEWS.size
            for size in sizes:
                parts.append(bytes(self._data[place : place + size]))
                place += size
            del self._data[:end]
            yield WorkerReport(kind, slot, number, count, finished, failed, seconds, *parts)
