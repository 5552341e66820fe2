"""Segments: the tasks of a farm, one a line, written once, with an index of offsets beside each.

The index holds, for every 64 tasks, the offset of the block and the CRC-32 of its bytes, so a batch
is found with one read whatever the list's length, and a damaged command is an error, never run. A
segment counts only when a revision names it; one that no revision names was left by a start that
was interrupted, or by a farmer that another one was faster than.
"""

from __future__ import annotations

import os
import struct
import zlib
from collections.abc import Iterable, Iterator
from contextlib import suppress

from taskfarmer import durable
from taskfarmer.errors import Damaged, StorageError, remedy
from taskfarmer.ledger.state import Segment
from taskfarmer.model import TimedCommand, parse_task, task_line
from taskfarmer.plain import dataclass
from taskfarmer.workdir import Workdir

BLOCK = 64
MOST_OPEN = 32
_REMEDY = "restore it from a snapshot of the file system, or make a new farm (-w) from the task list"
_FOLDER = "restore the folder from a snapshot of the file system, or name another work directory (-w)"
_MAGIC = b"taskfarmer index 1\n"
_ENTRY = struct.Struct("<QI")


class SegmentWriter:
    """Writes a segment as its tasks come in; `close` makes it durable. Memory does not grow with it."""

    def __init__(self, workdir: Workdir, first_id: int) -> None:
        self.workdir = workdir
        self.name = durable.random_name(12)
        self.first_id = first_id
        self.tasks = 0
        self.timed = False
        path = workdir.segment(self.name)
        try:
            self._file = open(path, "xb", buffering=1 << 20, opener=durable.fresh)  # noqa: SIM115
        except OSError as error:
            what = f"the task list cannot be taken in; {remedy(error, _FOLDER)}"
            raise StorageError(f"{path}: {error.strerror}; {what}") from error
        if workdir.shared:
            durable.give(self._file.fileno(), durable.GROUP_READS)
        self._index = bytearray(_MAGIC)
        self._block: list[bytes] = []
        self._offset = 0

    def add(self, commands: Iterable[bytes]) -> None:
        block = self._block
        number = self.first_id + self.tasks
        for command in commands:
            # the exceptions to the plain form are for `task_line` to know
            if b"\r" in command or command[:1] == b"{" or b"\n" in command or type(command) is not bytes:
                block.append(task_line(number, command))
                self.timed = self.timed or isinstance(command, TimedCommand)
            else:
                block.append(b"%d %s\n" % (number, command))
            number += 1
            if len(block) == BLOCK:
                self._flush()
        self.tasks = number - self.first_id

    def _flush(self) -> None:
        data = b"".join(self._block)
        self._block.clear()
        self._index += _ENTRY.pack(self._offset, zlib.crc32(data))
        self._offset += len(data)
        self._file.write(data)

    def close(self) -> str:
        """Make segment and index durable; the segment's name."""
        if self._block:
            self._flush()
        self._index += _ENTRY.pack(self._offset, self.tasks)
        self._index += b"%08x\n" % zlib.crc32(self._index)
        self._file.flush()
        durable.sync(self._file.fileno())
        self._file.close()
        durable.prepare(self.workdir.segment_index(self.name), bytes(self._index), self.workdir.shared)
        durable.sync_directory(self.workdir.tasks)
        return self.name

    def discard(self) -> None:
        """Take back what was written; no revision names it."""
        with suppress(OSError):  # a full disk refuses what is in the buffer, and that is not wanted any more
            self._file.close()
        discard(self.workdir, self.name)


def discard(workdir: Workdir, name: str) -> None:
    for path in (workdir.segment_index(name), workdir.segment(name), workdir.segment_source(name)):
        durable.forget(path)


@dataclass(frozen=True)
class _Open:
    fd: int
    index: bytes
    tasks: int
    size: int


class SegmentReader:
    """Reads tasks by their place in a segment; each block is checked against the index."""

    def __init__(self, workdir: Workdir) -> None:
        self.workdir = workdir
        self._open: dict[str, _Open] = {}

    def _segment(self, segment: Segment) -> _Open:
        found = self._open.get(segment.file)
        if found is None:
            if len(self._open) >= MOST_OPEN:
                durable.let_go(self._open.pop(next(iter(self._open))).fd)
            found = self._open[segment.file] = self._open_segment(segment)
        return found

    def _open_segment(self, segment: Segment) -> _Open:
        path = self.workdir.segment_index(segment.file)
        try:
            data = durable.read(path)
            fd = os.open(self.workdir.segment(segment.file), os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        except OSError as error:
            what = f"the farm's tasks cannot be read; {remedy(error, _REMEDY)}"
            raise StorageError(f"{error.filename or path}: {error.strerror}; {what}") from error
        body, crc = data[:-9], data[-9:]
        if not body.startswith(_MAGIC) or crc != b"%08x\n" % zlib.crc32(body):
            os.close(fd)
            raise Damaged(f"{path}: not what was written into it; {_REMEDY}")
        entries = body[len(_MAGIC) :]
        size, tasks = _ENTRY.unpack(entries[-_ENTRY.size :])
        if tasks != segment.tasks:
            os.close(fd)
            raise Damaged(f"{path}: has {tasks} tasks where the ledger says {segment.tasks}; {_REMEDY}")
        return _Open(fd, entries, tasks, size)

    def lines(self, segment: Segment, start: int, count: int) -> list[bytes]:
        """The lines of `count` tasks from place `start` on, each with its newline."""
        if not count:
            return []
        opened = self._segment(segment)
        first, last = start // BLOCK, (start + count - 1) // BLOCK
        begin = _ENTRY.unpack_from(opened.index, first * _ENTRY.size)[0]
        end = _ENTRY.unpack_from(opened.index, (last + 1) * _ENTRY.size)[0]
        try:
            data = durable.persistent(lambda: os.pread(opened.fd, end - begin, begin))
        except OSError as error:
            path = self.workdir.segment(segment.file)
            raise StorageError(f"{path}: {error.strerror}; {remedy(error, _REMEDY)}") from error
        self._check(segment, opened, data, first, last, begin)
        lines = data.splitlines(keepends=True) if b"\r" not in data else _split(data)
        skip = start - first * BLOCK
        return lines[skip : skip + count]

    def _check(self, segment: Segment, opened: _Open, data: bytes, first: int, last: int, begin: int) -> None:
        for block in range(first, last + 1):
            offset, crc = _ENTRY.unpack_from(opened.index, block * _ENTRY.size)
            end = _ENTRY.unpack_from(opened.index, (block + 1) * _ENTRY.size)[0]
            part = data[offset - begin : end - begin]
            if len(part) != end - offset or zlib.crc32(part) != crc:
                raise Damaged(
                    f"{self.workdir.segment(segment.file)}: tasks from {segment.first + block * BLOCK} on are not what "
                    f"was written; they are not run; {_REMEDY}"
                )

    def tasks(self, segment: Segment, start: int, count: int) -> Iterator[tuple[int, bytes]]:
        """ID and command of `count` tasks, read a few blocks at a time."""
        stop = start + count
        while start < stop:
            step = min(stop - start, BLOCK * 64)
            for line in self.lines(segment, start, step):
                yield parse_task(line)
            start += step

    def close(self) -> None:
        for opened in self._open.values():
            durable.let_go(opened.fd)
        self._open.clear()


def _split(data: bytes) -> list[bytes]:
    return [line + b"\n" for line in data.split(b"\n")[:-1]]
