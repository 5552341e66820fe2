"""The tasks of a farm and the place of each, as segments and the ledger have it.

A million tasks are three arrays and no objects.
"""

from __future__ import annotations

import json
import os
import struct
import zlib
from array import array
from dataclasses import dataclass, field

from taskfarmer.formats import limits
from taskfarmer.formats.intervals import Interval, each_interval
from taskfarmer.inspect.check.report import ProblemLog, listed, opened, read
from taskfarmer.inspect.check.revisions import Snapshot, Span
from taskfarmer.storage.layout import Workdir
from taskfarmer.storage.reading import blocks

NOWHERE, FRESH, RETURNED, HELD, FINISHED, FAILED = range(6)
WORDS = ("nowhere", "unprocessed", "unprocessed again", "held", "finished", "failed")

_MAGIC = b"taskfarmer index 1\n"
_ENTRY = struct.Struct("<QI")
_BLOCK = 64
_ENDS = ("", ".index", ".source")
_JSON = b'{"command":'
_MOST_RUNS = 10**9
_MOST_DAMAGED = 1000
"""Blocks of a segment after which the rest is not read: a sparse file may have terabytes."""
_MOST_MISSING = 1 << 24
"""Tasks that a check does without, at most: a number in a revision alone must take no memory."""


@dataclass
class Tasks:
    """By task ID: its place, the attempt at which it is held or unprocessed again, the CRC-32 of its line."""

    place: bytearray = field(default_factory=bytearray)
    open_attempt: array[int] = field(default_factory=lambda: array("L"))
    lines: array[int] = field(default_factory=lambda: array("L"))


def read_tasks(workdir: Workdir, snapshot: Snapshot, findings: ProblemLog) -> Tasks:
    """Read all segments, and mark what the ledger says is unprocessed or held."""
    tasks = Tasks()
    named: set[str] = set()
    missing = 0
    for span in snapshot.segments:
        named.update(span.file + end for end in _ENDS)
        whole = span.first == len(tasks.place) and span.given_out <= span.tasks
        if not whole or span.first + span.tasks > limits.TASKS:
            raise findings.give_up(snapshot.path, f"segment {span.file} is impossible: {span}")
        lines = _read_segment(workdir, span, findings)
        missing += max(0, span.tasks - len(lines))
        if missing > _MOST_MISSING:
            raise findings.give_up(workdir.segment(span.file), "too many of its tasks are missing to go on")
        if span.source_crc:
            _check_source(workdir.segment_source(span.file), span.source_crc, findings)
        tasks.lines.extend(lines[: span.tasks])
        tasks.lines.extend(array("L", [0]) * (span.tasks - len(lines)))
        tasks.place += bytes([NOWHERE]) * span.given_out + bytes([FRESH]) * (span.tasks - span.given_out)
    for name in listed(workdir.tasks):
        if name not in named:
            findings.tell(workdir.segment(name), "no revision names it; left of an interrupted start", note=True)
    tasks.open_attempt.extend(array("L", [0]) * len(tasks.place))
    _mark_all(snapshot, tasks, findings)
    return tasks


def _check_source(path: str, wanted: str, findings: ProblemLog) -> None:
    """Whether the lines of which a handler made a segment are what was written."""
    crc = 0
    try:
        with opened(path) as fd:
            for data in blocks(fd):
                crc = zlib.crc32(data, crc)
    except OSError as error:
        findings.tell(path, f"{error.strerror}; changes of the task list cannot be found out")
        return
    if f"{crc:08x}" != wanted:
        findings.tell(path, "damaged: not what was written into it (wrong checksum)")


def _read_segment(workdir: Workdir, span: Span, findings: ProblemLog) -> array[int]:
    """Compare a segment with its index, and the IDs in it with their order; the CRC-32 of each line."""
    path, index_path = workdir.segment(span.file), workdir.segment_index(span.file)
    lines = array("L")
    try:
        index = read(index_path, len(_MAGIC) + (-(-span.tasks // _BLOCK) + 1) * _ENTRY.size + 9)
        with opened(path) as fd:
            body, crc = index[:-9], index[-9:]
            whole = (len(body) - len(_MAGIC)) % _ENTRY.size == 0 and len(body) > len(_MAGIC)
            if not whole or not body.startswith(_MAGIC) or crc != b"%08x\n" % zlib.crc32(body):
                findings.tell(index_path, "a damaged index: not what was written into it (wrong checksum)")
            else:
                _read_blocks(fd, path, memoryview(body)[len(_MAGIC) :], span, lines, findings)
    except OSError as error:
        text = f"{error.strerror}; {span.tasks} tasks from {span.first} on cannot be read"
        findings.tell(str(error.filename or path), text)
        return lines
    if len(lines) != span.tasks:
        findings.tell(path, f"{len(lines)} tasks could be read where the ledger says {span.tasks}")
    return lines


def _read_blocks(fd: int, path: str, index: memoryview, span: Span, lines: array[int], findings: ProblemLog) -> None:
    size, tasks = _ENTRY.unpack(index[-_ENTRY.size :])
    if tasks != span.tasks:
        findings.tell(path + ".index", f"has {tasks} tasks where the ledger says {span.tasks}")
    damaged = 0
    for block in range(len(index) // _ENTRY.size - 1):
        offset, crc = _ENTRY.unpack_from(index, block * _ENTRY.size)
        stop = _ENTRY.unpack_from(index, (block + 1) * _ENTRY.size)[0]
        first = span.first + block * _BLOCK
        data = b"".join(blocks(fd, min(max(0, stop - offset), limits.BLOCK)))
        if zlib.crc32(data) != crc:
            findings.tell(
                path, f"damaged: the lines of tasks from {first} on are not what was written", "damaged blocks"
            )
            damaged += 1
            if damaged > _MOST_DAMAGED or stop - offset > limits.BLOCK:
                findings.tell(path, f"too much of it is damaged: what follows task {first} was not read")
                return
        for task_id, line in enumerate(data.split(b"\n")[:-1], start=first):
            if not line.startswith(b"%d " % task_id) or not _is_task(line):
                findings.tell(path, f"the line of task {task_id} is {line[:60]!r}", "wrong lines")
            lines.append(zlib.crc32(line))
    if os.read(fd, 1):
        findings.tell(path, f"goes on behind the {size} bytes that its index has", note=True)


def _is_task(line: bytes) -> bool:
    command = line.partition(b" ")[2]
    if not command.startswith(_JSON):
        return True
    try:
        return isinstance(json.loads(command)["command"], str)
    except (KeyError, TypeError, ValueError, RecursionError):
        return False


def _mark_all(snapshot: Snapshot, tasks: Tasks, findings: ProblemLog) -> None:
    texts = [(RETURNED, WORDS[RETURNED], snapshot.returned)]
    texts += [(HELD, f"held by {farmer}", claims) for farmer, claims in snapshot.claims.items()]
    for place, words, text in texts:
        try:
            for one in each_interval(text):
                _mark(one, place, words, snapshot, tasks, findings)
        except ValueError as error:
            raise findings.give_up(snapshot.path, f"{words}: these are no intervals: {text[:60]!r}") from error


def _mark(one: Interval, place: int, words: str, snapshot: Snapshot, tasks: Tasks, findings: ProblemLog) -> None:
    """Put the tasks of an interval into a place, unless they are in another one already."""
    segments = snapshot.segments
    if not 0 <= one.segment < len(segments) or one.count < 1 or one.start < 0:
        findings.tell(snapshot.path, f"{words}: {one!r} names no tasks of this farm", "no tasks")
        return
    if not 1 <= one.attempt < _MOST_RUNS or not 0 <= one.deaths < _MOST_RUNS or one.needs < 0:
        text = f"{words}: {one!r} has an impossible attempt, number of deaths, or need of time"
        findings.tell(snapshot.path, text, "impossible attempts")
        return
    segment = segments[one.segment]
    if one.stop > segment.given_out:
        findings.tell(snapshot.path, f"{words}: {one} was never given out", "never given out")
        return
    first = segment.first + one.start
    there = slice(first, first + one.count)
    if tasks.place[there].count(NOWHERE) != one.count:
        twice = next(task for task in range(first, first + one.count) if tasks.place[task] != NOWHERE)
        text = f"task {twice} is in two places: {WORDS[tasks.place[twice]]}, and {words}"
        findings.tell(snapshot.path, text, "tasks in two places")
    tasks.place[there] = bytes([place]) * one.count
    tasks.open_attempt[there] = array("L", [one.attempt]) * one.count
