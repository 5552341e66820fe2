"""The tasks of a farm and the place of each one according to the segments and the ledger.

A million tasks are stored as three arrays, not as objects.
"""

from __future__ import annotations

import os
import zlib
from array import array
from dataclasses import dataclass, field

from taskfarmer.errors import Damaged, StorageError
from taskfarmer.formats.intervals import Interval, each_interval
from taskfarmer.inspect.check.report import FindingLog, listed, opened
from taskfarmer.inspect.check.revisions import Newest
from taskfarmer.ledger.segments import BLOCK, SegmentReader
from taskfarmer.ledger.state import Segment, State, problems
from taskfarmer.storage.layout import Workdir
from taskfarmer.storage.reading import blocks

NOWHERE, UNCLAIMED, RETURNED, HELD, FINISHED, FAILED = range(6)
"""The places of a task. NOWHERE: the task was claimed, and its place is in the results."""
WORDS = ("nowhere", "unprocessed", "unprocessed again", "held", "finished", "failed")

_SUFFIXES = ("", ".index", ".source")
_MOST_ATTEMPTS = 10**9
_MOST_CORRUPT = 1000
"""Corrupt blocks after which the check skips the rest of a segment: a sparse file can have terabytes."""
_MOST_MISSING = 1 << 24
"""Missing tasks after which the check stops: a large number in a revision must not take much memory."""


@dataclass
class TaskTable:
    """By task ID: the place, the attempt at which the task is held or unprocessed again, the CRC-32 of its line.

    The CRC-32 is 0 if the line could not be read.
    """

    place: bytearray = field(default_factory=bytearray)
    open_attempt: array[int] = field(default_factory=lambda: array("L"))
    lines: array[int] = field(default_factory=lambda: array("L"))


def read_tasks(workdir: Workdir, newest: Newest, findings: FindingLog) -> TaskTable:
    """Read all segments, and mark the tasks that are unprocessed or held according to the ledger."""
    state = newest.state
    tasks = TaskTable()
    reader = SegmentReader(workdir)
    missing = 0
    try:
        for segment in state.segments:
            lines = _read_segment(workdir, reader, segment, findings)
            missing += segment.tasks - len(lines)
            if missing > _MOST_MISSING:
                raise findings.fatal(workdir.segment(segment.file), "too many tasks are missing to continue")
            if segment.source_crc:
                _check_source(workdir.segment_source(segment.file), segment.source_crc, findings)
            tasks.lines.extend(lines)
            tasks.lines.extend(array("L", [0]) * (segment.tasks - len(lines)))
            tasks.place += bytes([NOWHERE]) * segment.next + bytes([UNCLAIMED]) * (segment.tasks - segment.next)
    finally:
        reader.close()
    named = {segment.file + suffix for segment in state.segments for suffix in _SUFFIXES}
    for name in listed(workdir.tasks):
        if name not in named:
            findings.add(
                workdir.segment(name), "no revision refers to it; left over from an interrupted start", note=True
            )
    tasks.open_attempt.extend(array("L", [0]) * len(tasks.place))
    _mark_open(newest, tasks, findings)
    return tasks


def _check_source(path: str, expected: str, findings: FindingLog) -> None:
    """Check the lines from which a handler made a segment."""
    crc = 0
    try:
        with opened(path) as fd:
            for data in blocks(fd):
                crc = zlib.crc32(data, crc)
    except OSError as error:
        findings.add(path, f"{error.strerror}; farmers cannot detect changes of the task list")
        return
    if f"{crc:08x}" != expected:
        findings.add(path, "corrupt (checksum mismatch)")


def _read_segment(workdir: Workdir, reader: SegmentReader, segment: Segment, findings: FindingLog) -> array[int]:
    """Check all lines of a segment; the CRC-32 of each one, up to the last line that could be read."""
    lines = array("L")
    path = workdir.segment(segment.file)
    try:
        size = reader.indexed_size(segment)
        if os.path.getsize(path) > size:
            findings.add(path, f"has more than the {size} bytes that its index covers", note=True)
    except (Damaged, StorageError) as error:
        findings.add_error(error)
        return lines
    except OSError as error:
        findings.add(path, f"{error.strerror}; cannot read {segment.tasks} tasks")
        return lines
    corrupt = 0
    for start in range(0, segment.tasks, BLOCK):
        count = min(BLOCK, segment.tasks - start)
        try:
            found = [zlib.crc32(line[:-1]) for line in reader.lines(segment, start, count)]
        except (Damaged, StorageError) as error:
            findings.add_error(error, "corrupt blocks")
            found = [0] * count
            corrupt += 1
            if corrupt > _MOST_CORRUPT:
                findings.add(path, f"too many corrupt blocks; skipped the tasks after {segment.first + start}")
                return lines
        lines.extend(found)
    return lines


def _mark_open(newest: Newest, tasks: TaskTable, findings: FindingLog) -> None:
    """Mark tasks as unprocessed again or held; report contradictions in the revision."""
    state = newest.state
    try:
        for text in problems(state):
            findings.add(newest.path, text, "contradictions")
    except ValueError as error:
        raise findings.fatal(newest.path, f"invalid intervals: {error!s:.200}") from error
    open_tasks = [(RETURNED, state.returned), *((HELD, entry.claims) for entry in state.farmers.values())]
    for place, text in open_tasks:
        for one in each_interval(text):
            if _is_possible(one, state):
                first = state.first_id(one)
                tasks.place[first : first + one.count] = bytes([place]) * one.count
                tasks.open_attempt[first : first + one.count] = array("L", [one.attempt]) * one.count


def _is_possible(one: Interval, state: State) -> bool:
    """Whether these tasks exist and were claimed; `problems` has reported the others."""
    return (
        0 <= one.segment < len(state.segments)
        and one.count >= 1
        and 0 <= one.start < one.stop <= state.segments[one.segment].next
        and 1 <= one.attempt < _MOST_ATTEMPTS
    )
