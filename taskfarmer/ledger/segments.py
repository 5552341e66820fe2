"""Segments: the tasks of a farm, one per line, written once, with an index of offsets.

For every 64 tasks the index has the offset and the CRC-32 of the block, so a batch takes one read, however long the
list is, and a corrupt command is an error and is never run. A segment counts only if a revision names it. Otherwise it
was left by a start that was interrupted, or by a farmer that lost against another one.
"""

from __future__ import annotations

import os
import struct
import zlib
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass

from taskfarmer.errors import Damaged, StorageError, TaskListError, remedy
from taskfarmer.formats import limits, members
from taskfarmer.formats.tasks import TimedCommand, parse_task, task_line
from taskfarmer.ledger.state import Segment
from taskfarmer.storage import durable
from taskfarmer.storage.layout import Workdir

BLOCK = 64
MOST_OPEN = 32
_REMEDY = "restore it from a snapshot of the file system, or create a new farm (-w) from the task list"
_FOLDER = "restore the directory from a snapshot of the file system, or use another work directory (-w)"
_MAGIC = b"taskfarmer index 1\n"
_ENTRY = struct.Struct("<QI")
_CRC = 9
_AT_ONCE = 16 << 20
"""Bytes per read; reading stops at the first corrupt block."""


class SegmentWriter:
    """Writes a segment as its tasks are added; `close` makes it durable. Memory does not grow with its size."""

    def __init__(self, workdir: Workdir, first_id: int) -> None:
        self.workdir = workdir
        self.name = durable.random_name(12)
        self.first_id = first_id
        self.tasks = 0
        self.timed = False
        self.source_crc = b""
        path = workdir.segment(self.name)
        try:
            self._file = open(path, "xb", buffering=1 << 20, opener=durable.open_exclusive)  # noqa: SIM115
        except OSError as error:
            advice = f"the task list cannot be imported; {remedy(error, _FOLDER)}"
            raise StorageError(f"{path}: {error.strerror}; {advice}") from error
        if workdir.shared:
            durable.grant_group(self._file.fileno(), durable.GROUP_READS)
        self._index = bytearray(_MAGIC)
        self._block: list[bytes] = []
        self._offset = 0

    def add(self, commands: Iterable[bytes]) -> None:
        block = self._block
        number = self.first_id + self.tasks
        for command in commands:
            # `task_line` handles the exceptions to the plain form
            if b"\r" in command or command[:1] == b"{" or b"\n" in command or type(command) is not bytes:
                block.append(task_line(number, command))
                self.timed = self.timed or isinstance(command, TimedCommand)
            else:
                block.append(b"%d %s\n" % (number, command))
            number += 1
            if len(block) == BLOCK:
                self._flush()
        self.tasks = number - self.first_id
        if number > limits.TASKS:
            raise TaskListError(f"the list has more than {limits.TASKS} tasks, the maximum for a farm; split it")

    def _flush(self) -> None:
        data = b"".join(self._block)
        if len(data) > limits.BLOCK:
            raise TaskListError(
                f"commands near task {self.first_id + self.tasks} are too long: 64 consecutive commands may have "
                f"{limits.BLOCK} bytes; put them into scripts"
            )
        self._block.clear()
        self._index += _ENTRY.pack(self._offset, zlib.crc32(data))
        self._offset += len(data)
        self._file.write(data)

    def add_source(self, lines: Iterable[bytes]) -> None:
        """Store the lines of the list from which a handler made this segment's tasks."""
        data = b"".join(line + b"\n" for line in lines)
        durable.prepare(self.workdir.segment_source(self.name), data, self.workdir.shared)
        self.source_crc = b"%08x" % zlib.crc32(data)

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
        """Remove the files; no revision names them."""
        with suppress(OSError):  # a full disk refuses the buffered data, which we do not need any more
            self._file.close()
        discard(self.workdir, self.name)


def discard(workdir: Workdir, name: str) -> None:
    for path in (workdir.segment_index(name), workdir.segment(name), workdir.segment_source(name)):
        durable.unlink_quietly(path)


@dataclass(frozen=True)
class _Open:
    fd: int
    index: bytes
    tasks: int
    size: int

    def offset(self, block: int) -> int:
        return int(_ENTRY.unpack_from(self.index, block * _ENTRY.size)[0])

    def crc(self, block: int) -> int:
        return int(_ENTRY.unpack_from(self.index, block * _ENTRY.size)[1])


class SegmentReader:
    """Reads tasks by their place in a segment; each block is checked against the index."""

    def __init__(self, workdir: Workdir) -> None:
        self.workdir = workdir
        self._open: dict[str, _Open] = {}

    def _segment(self, segment: Segment) -> _Open:
        found = self._open.get(segment.file)
        if found is None:
            if len(self._open) >= MOST_OPEN:
                durable.close_quietly(self._open.pop(next(iter(self._open))).fd)
            found = self._open[segment.file] = self._open_segment(segment)
        return found

    def _open_segment(self, segment: Segment) -> _Open:
        path = self.workdir.segment_index(segment.file)
        entries = _ENTRY.size * (-(-segment.tasks // BLOCK) + 1)
        try:
            data = durable.read(path, len(_MAGIC) + entries + _CRC)
            fd = os.open(self.workdir.segment(segment.file), os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY)
        except OSError as error:
            advice = f"the farm's tasks cannot be read; {remedy(error, _REMEDY)}"
            raise StorageError(f"{error.filename or path}: {error.strerror}; {advice}") from error
        body, crc = data[:-_CRC], data[-_CRC:]
        index = body[len(_MAGIC) :]
        if not body.startswith(_MAGIC) or crc != b"%08x\n" % zlib.crc32(body) or len(index) < _ENTRY.size:
            os.close(fd)
            raise Damaged(f"{path}: corrupt (checksum mismatch); {_REMEDY}")
        size, tasks = _ENTRY.unpack(index[-_ENTRY.size :])
        if tasks != segment.tasks or len(index) != entries:
            os.close(fd)
            raise Damaged(f"{path}: has {tasks} tasks, but the ledger records {segment.tasks}; {_REMEDY}")
        return _Open(fd, index, tasks, size)

    def indexed_size(self, segment: Segment) -> int:
        """The size of a segment in bytes according to its index; Damaged or StorageError if one is not usable."""
        return self._segment(segment).size

    def lines(self, segment: Segment, start: int, count: int) -> list[bytes]:
        """The lines of `count` tasks from place `start` on, each with its newline."""
        if not count:
            return []
        opened = self._segment(segment)
        block, last = start // BLOCK, (start + count - 1) // BLOCK
        lines: list[bytes] = []
        while block <= last:
            begin = end = opened.offset(block)
            first = block
            while block <= last and end - begin < _AT_ONCE:
                block += 1
                end = opened.offset(block)
                if not 0 <= end - opened.offset(block - 1) <= limits.BLOCK or end > members.MOST:
                    raise self._damaged(segment, block - 1)
            lines += self._read(segment, opened, first, block, begin, end)
        skip = start % BLOCK
        return lines[skip : skip + count]

    def _read(self, segment: Segment, opened: _Open, first: int, stop: int, begin: int, end: int) -> list[bytes]:
        """The lines of blocks `first` to `stop`, bytes `begin` to `end`; Damaged unless they are intact and have the
        right IDs.
        """
        try:
            data = durable.retry_stale(lambda: os.pread(opened.fd, end - begin, begin))
        except OSError as error:
            path = self.workdir.segment(segment.file)
            raise StorageError(f"{path}: {error.strerror}; {remedy(error, _REMEDY)}") from error
        for block in range(first, stop):
            part = data[opened.offset(block) - begin : opened.offset(block + 1) - begin]
            if len(part) != opened.offset(block + 1) - opened.offset(block) or zlib.crc32(part) != opened.crc(block):
                raise self._damaged(segment, block)
        lines = data.splitlines(keepends=True) if b"\r" not in data else _split(data)
        ids = range(segment.first + first * BLOCK, segment.first + min(stop * BLOCK, segment.tasks))
        if len(lines) != len(ids) or not all(map(_is_of, lines, ids)):
            raise self._damaged(segment, first)
        return lines

    def _damaged(self, segment: Segment, block: int) -> Damaged:
        return Damaged(
            f"{self.workdir.segment(segment.file)}: tasks from {segment.first + block * BLOCK} on are corrupt and are "
            f"not run; {_REMEDY}"
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
            durable.close_quietly(opened.fd)
        self._open.clear()


def _split(data: bytes) -> list[bytes]:
    return [line + b"\n" for line in data.split(b"\n")[:-1]]


def _is_of(line: bytes, task_id: int) -> bool:
    """Whether a line belongs to a task. The checksum of its block is valid, so the line is as it was written."""
    if not line.startswith(b"%d " % task_id):
        return False
    if b' {"command":' not in line:
        return True
    try:
        parse_task(line)
    except ValueError:
        return False
    return True
