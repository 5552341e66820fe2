"""Rebuilds the views from the segments and all counted results."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

from taskfarmer.formats.intervals import parse_intervals
from taskfarmer.formats.results import parse_result
from taskfarmer.formats.tasks import parse_task
from taskfarmer.formats.timeline import farmer_number, time_slice
from taskfarmer.ledger import results
from taskfarmer.ledger.ledger import Ledger
from taskfarmer.ledger.segments import BLOCK, SegmentReader
from taskfarmer.ledger.state import State
from taskfarmer.peers.identity import load_identity
from taskfarmer.storage.layout import Workdir
from taskfarmer.views import files
from taskfarmer.views.labels import farmer_events

EXACT_TRIES = 5
"""How often the views are rebuilt, at most, if the ledger changes meanwhile."""
_CACHED_BLOCKS = 4096


def rebuild(workdir: Workdir, ledger: Ledger) -> None:
    """Rebuild all views, under the farm's lock if it is available.

    A rebuild that took long (its node was suspended, the file system hung) may have replaced views that the last farmer
    wrote. So the ledger is compared afterwards. If it has changed and no farmer has claims, the views are rebuilt
    again; a farmer with claims updates the views later.
    """
    with ledger.lock.held(patience=30.0):
        for _ in range(EXACT_TRIES):
            shown = results.with_newer_states(
                lambda: rebuild_unlocked(workdir, ledger.refresh(), agrees_within=results.STATE_IS_NEW_FOR)
            )
            now = ledger.refresh()
            if now.revision == shown.revision or any(entry.claims for entry in now.farmers.values()):
                return


def rebuild_unlocked(
    workdir: Workdir,
    state: State,
    between: Callable[[], None] = lambda: None,
    agrees_within: float = math.inf,
) -> files.ViewsRecord:
    """Rebuild all views. `between` is called between file operations. Raises the errors of `results.survey`."""
    survey = results.survey(workdir, state, agrees_within=agrees_within, between=between)
    reader = SegmentReader(workdir)
    try:
        sizes = {
            name: files.replace_view(
                files.view_path(workdir, name), _lines_of(state, reader, survey.place, place), workdir.shared
            )
            for name, place in (("finished", results.IS_FINISHED), ("failed", results.IS_FAILED))
        }
        between()
        sizes["toprocess"] = write_toprocess(workdir, state, reader)
        between()
        timeline = _timeline(workdir, state, reader, between)
        sizes["timeline.json"] = files.replace_view(workdir.timeline, timeline, workdir.shared)
    finally:
        reader.close()
    shown = files.ViewsRecord(state.journaled, state.revision, sizes)
    files.save(workdir, shown)
    return shown


def write_toprocess(workdir: Workdir, state: State, reader: SegmentReader) -> int:
    """Write the unprocessed tasks in the order of their IDs. Return the size of the file."""
    return files.replace_view(workdir.toprocess, unprocessed(state, reader), workdir.shared)


def unprocessed(state: State, reader: SegmentReader) -> Iterator[bytes]:
    """The lines of the unprocessed tasks, in blocks."""
    returned = sorted(parse_intervals(state.returned), key=lambda one: (one.segment, one.start))
    for number, segment in enumerate(state.segments):
        for one in returned:
            if one.segment == number:
                yield from _lines_from(state, reader, number, one.start, one.count)
        yield from _lines_from(state, reader, number, segment.next, segment.tasks - segment.next)


def _lines_from(state: State, reader: SegmentReader, number: int, start: int, count: int) -> Iterator[bytes]:
    stop = start + count
    while start < stop:
        step = min(stop - start, 64 * BLOCK)
        yield b"".join(reader.lines(state.segments[number], start, step))
        start += step


def _lines_of(state: State, reader: SegmentReader, places: bytearray, wanted: int) -> Iterator[bytes]:
    """The lines of the tasks whose place is `wanted`, a block of a segment at a time."""
    mark = bytes([wanted])
    for segment in state.segments:
        for start in range(0, segment.tasks, BLOCK):
            count = min(BLOCK, segment.tasks - start)
            here = places[segment.first + start : segment.first + start + count]
            if mark in here:
                lines = reader.lines(segment, start, count)
                yield b"".join(line for line, place in zip(lines, here, strict=True) if place == wanted)


class _Commands:
    """Commands by task ID. A farmer's results are nearly in order, so a few blocks are cached."""

    def __init__(self, state: State, reader: SegmentReader) -> None:
        self.state = state
        self.reader = reader
        self._blocks: dict[tuple[int, int], list[bytes]] = {}

    def __getitem__(self, task_id: int) -> bytes:
        number = self.state.segment_of(task_id)
        if number is None:
            return b"?"
        segment = self.state.segments[number]
        block, offset = divmod(task_id - segment.first, BLOCK)
        lines = self._blocks.get((number, block))
        if lines is None:
            if len(self._blocks) >= _CACHED_BLOCKS:
                self._blocks.clear()
            start = block * BLOCK
            lines = self.reader.lines(segment, start, min(BLOCK, segment.tasks - start))
            self._blocks[number, block] = lines
        return parse_task(lines[offset])[1]


def _timeline(workdir: Workdir, state: State, reader: SegmentReader, between: Callable[[], None]) -> Iterator[bytes]:
    yield files.TIMELINE_START
    commands = _Commands(state, reader)
    named: set[str] = set()
    for journal, lines in results.read_counted(workdir, state, between=between):
        farmer = journal.rpartition("-r")[0] if journal.rpartition("-r")[2].isdigit() else journal
        number = farmer_number(farmer)
        slots = 0
        for words in results.checked_lines(workdir.journal(journal), lines):
            one = parse_result(words)
            slots = max(slots, one.slot + 1)
            yield time_slice(
                number,
                one.slot,
                one.task_id,
                one.attempt,
                commands[one.task_id],
                one.start,
                one.end,
                one.outcome,
                one.status,
                one.signal,
                one.user,
                one.system,
                one.peak,
            )
        if farmer not in named:
            named.add(farmer)
            identity = load_identity(workdir, farmer)
            yield farmer_events(identity, farmer, max(slots, identity.slots if identity else 0))
    yield files.TIMELINE_END
