"""The tasks of a farm and the place of each, as segments and the ledger have it.

A million tasks are three arrays and no objects.
"""

from __future__ import annotations

import json
import struct
import zlib
from array import array
from typing import BinaryIO

from taskfarmer.check.report import Findings, listed, opened, read
from taskfarmer.check.revisions import Snapshot, Span
from taskfarmer.model import Interval, parse_intervals
from taskfarmer.plain import dataclass, field
from taskfarmer.workdir import Workdir

NOWHERE, FRESH, RETURNED, HELD, FINISHED, FAILED = range(6)
WORDS = ("nowhere", "unprocessed", "unprocessed again", "held", "finished", "failed")

_MAGIC = b"taskfarmer index 1\n"
_ENTRY = struct.Struct("<QI")
_BLOCK = 64
_ENDS = ("", ".index", ".source")
_JSON = b'{"command":'


@dataclass
class Tasks:
    """By task ID: its place, the attempt at which it is held or unprocessed again, the CRC-32 of its line."""

    place: bytearray = field(default_factory=bytearray)
    open_attempt: array[int] = field(default_factory=lambda: array("L"))
    lines: array[int] = field(default_factory=lambda: array("L"))


def read_tasks(workdir: Workdir, snapshot: Snapshot, findings: Findings) -> Tasks:
    """Read all segments, and mark what the ledger says is unprocessed or held."""
    tasks = Tasks()
    named: set[str] = set()
    for span in snapshot.segments:
        named.update(span.file + end for end in _ENDS)
        if span.first != len(tasks.place) or not 0 <= span.given_out <= span.tasks:
            raise findings.give_up(snapshot.path, f"segment {span.file} is impossible: {span}")
        lines = _read_segment(workdir, span, findings)
        tasks.lines.extend(lines[: span.tasks])
        tasks.lines.extend([0] * (span.tasks - len(lines)))
        tasks.place += bytes([NOWHERE]) * span.given_out + bytes([FRESH]) * (span.tasks - span.given_out)
    for name in listed(workdir.tasks):
        if name not in named:
            findings.tell(workdir.segment(name), "no revision names it; left of an interrupted start", note=True)
    tasks.open_attempt.extend([0] * len(tasks.place))
    _mark_all(snapshot, tasks, findings)
    return tasks


def _read_segment(workdir: Workdir, span: Span, findings: Findings) -> array[int]:
    """Compare a segment with its index, and the IDs in it with their order; the CRC-32 of each line."""
    path, index_path = workdir.segment(span.file), workdir.segment_index(span.file)
    lines = array("L")
    try:
        index = read(index_path)
        with opened(path) as file:
            body, crc = index[:-9], index[-9:]
            whole = (len(body) - len(_MAGIC)) % _ENTRY.size == 0 and len(body) > len(_MAGIC)
            if not whole or not body.startswith(_MAGIC) or crc != b"%08x\n" % zlib.crc32(body):
                findings.tell(index_path, "a damaged index: not what was written into it (wrong checksum)")
            else:
                _read_blocks(file, path, list(_ENTRY.iter_unpack(body[len(_MAGIC) :])), span, lines, findings)
    except OSError as error:
        text = f"{error.strerror}; {span.tasks} tasks from {span.first} on cannot be read"
        findings.tell(str(error.filename or path), text)
        return lines
    if len(lines) != span.tasks:
        findings.tell(path, f"{len(lines)} tasks could be read where the ledger says {span.tasks}")
    return lines


def _read_blocks(
    file: BinaryIO, path: str, entries: list[tuple[int, ...]], span: Span, lines: array[int], findings: Findings
) -> None:
    size, tasks = entries[-1]
    if tasks != span.tasks:
        findings.tell(path + ".index", f"has {tasks} tasks where the ledger says {span.tasks}")
    for block, (offset, crc) in enumerate(entries[:-1]):
        first = span.first + block * _BLOCK
        data = file.read(max(0, entries[block + 1][0] - offset))
        if zlib.crc32(data) != crc:
            findings.tell(
                path, f"damaged: the lines of tasks from {first} on are not what was written", "damaged blocks"
            )
        for task_id, line in enumerate(data.split(b"\n")[:-1], start=first):
            if not line.startswith(b"%d " % task_id) or not _is_task(line):
                findings.tell(path, f"the line of task {task_id} is {line[:60]!r}", "wrong lines")
            lines.append(zlib.crc32(line))
    if file.read(1):
        findings.tell(path, f"goes on behind the {size} bytes that its index has", note=True)


def _is_task(line: bytes) -> bool:
    command = line.partition(b" ")[2]
    if not command.startswith(_JSON):
        return True
    try:
        return isinstance(json.loads(command)["command"], str)
    except (KeyError, TypeError, ValueError):
        return False


def _mark_all(snapshot: Snapshot, tasks: Tasks, findings: Findings) -> None:
    texts = [(RETURNED, WORDS[RETURNED], snapshot.returned)]
    texts += [(HELD, f"held by {farmer}", claims) for farmer, claims in snapshot.claims.items()]
    for place, words, text in texts:
        try:
            intervals = parse_intervals(text)
        except ValueError as error:
            raise findings.give_up(snapshot.path, f"{words}: these are no intervals: {text[:60]!r}") from error
        for one in intervals:
            _mark(one, place, words, snapshot, tasks, findings)


def _mark(one: Interval, place: int, words: str, snapshot: Snapshot, tasks: Tasks, findings: Findings) -> None:
    """Put the tasks of an interval into a place, unless they are in another one already."""
    segments = snapshot.segments
    if not 0 <= one.segment < len(segments) or one.count < 1 or one.start < 0:
        findings.tell(snapshot.path, f"{words}: {one} names no tasks of this farm", "no tasks")
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
