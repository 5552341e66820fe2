"""Lists the tasks that would run, for `--dry-run`; changes nothing."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from taskfarmer.farm import trust
from taskfarmer.formats.intervals import each_interval
from taskfarmer.formats.tasks import parse_task
from taskfarmer.intake.comparison import compare, digest
from taskfarmer.intake.intake import Intake
from taskfarmer.ledger import farmfile
from taskfarmer.ledger.farmfile import Farm
from taskfarmer.ledger.ledger import Ledger
from taskfarmer.ledger.segments import SegmentReader
from taskfarmer.ledger.state import State
from taskfarmer.options import Reporter, Settings
from taskfarmer.tasks.source import SourceReader, open_source


def preview(settings: Settings, reporter: Reporter) -> Iterator[tuple[int, bytes]]:
    """Yield the ID and command of each task that a farmer would find unprocessed."""
    intake = Intake(settings, reporter)
    intake.check_readable()
    trust.refuse_strangers(intake.workdir, intake.path)
    farm = intake.existing_farm()
    if farm is not None:
        yield from _unprocessed(intake, farm)
        return
    farmfile.refuse_foreign(intake.workdir)
    batches: Iterable[list[bytes]]
    if intake.handler is not None:
        batches = intake.handler.commands(intake.path, intake.workdir.path, 0)
        yield from enumerate(command for batch in batches for command in batch)
        return
    with open_source(intake.path) as stream:
        yield from enumerate(task for batch in SourceReader(stream, intake.path) for task in batch)


def _unprocessed(intake: Intake, farm: Farm) -> Iterator[tuple[int, bytes]]:
    state = Ledger(intake.workdir, farm, "preview").refresh()
    reader = SegmentReader(intake.workdir)
    try:
        for one in each_interval(state.returned):
            yield from map(parse_task, reader.lines(state.segments[one.segment], one.start, one.count))
        for segment in state.segments:
            yield from reader.tasks(segment, segment.next, segment.tasks - segment.next)
        skip = compare(intake.path, intake.workdir, state, farm) if intake.handler is None else None
        if intake.handler is None:
            yield from _new_tasks(intake, state, skip)
    finally:
        reader.close()


def _new_tasks(intake: Intake, state: State, skip: int | None) -> Iterator[tuple[int, bytes]]:
    """Yield the tasks of the list that are not imported yet."""
    with open_source(intake.path) as stream:
        offset = 0 if skip is not None else state.segments[-1].source_bytes
        before = 0.0 if skip is not None else state.segments[-1].time
        _, lines = digest(stream, offset)
        reader = SourceReader(stream, intake.path, offset=offset, first_line=lines + 1, seconds=before)
        tasks = (task for batch in reader for task in batch)
        for number, task in enumerate(tasks):
            if number >= (skip or 0):
                yield state.tasks + number - (skip or 0), task
