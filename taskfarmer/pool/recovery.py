"""What becomes of the tasks of a worker that is gone without having told everything."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from taskfarmer.formats.intervals import Interval
from taskfarmer.formats.results import RETURNED, result_line
from taskfarmer.formats.tasks import parse_task
from taskfarmer.formats.timeline import farmer_number, time_slice
from taskfarmer.pool.handles import AssignedBatch, TaskQueue
from taskfarmer.worker.context import SlotContext

_SIGKILLED = 9


@dataclass
class Recovered:
    """`died` ran when the worker ended, or had just ended: both may be why. `kept` was not begun.

    `returned` had ended before, and is run again, since its results are lost.
    """

    died: Interval | None = None
    command: bytes = b""
    returned: list[Interval] = field(default_factory=list)
    kept: list[TaskQueue] = field(default_factory=list)


def recover(batches: Iterable[AssignedBatch], shown: int, attempt: int) -> Recovered:
    """Sort a slot's tasks by what it showed last: ID + 1 of a task that ran, the negative of one that had ended, or 0.

    A slot runs its tasks in the order of its batches. Where the one that it showed is not among what is untold,
    nothing of that was begun.
    """
    found = Recovered()
    for batch in batches:
        rest, lines = batch.interval.slice(batch.done, batch.left), batch.lines[batch.done :]
        place = _place_of(abs(shown) - 1, lines) if shown and rest.attempt == attempt else None
        if place is None:
            if rest.count:
                found.kept.append(TaskQueue(rest, lines))
            continue
        for stock in found.kept:
            found.returned.append(stock.interval)
        found.kept.clear()
        found.died, found.command = rest.slice(place, 1), parse_task(lines[place])[1]
        if place:
            found.returned.append(rest.slice(0, place))
        if rest.count > place + 1:
            found.kept.append(TaskQueue(rest.slice(place + 1, rest.count - place - 1), lines[place + 1 :]))
    return found


def _place_of(task_id: int, lines: list[bytes]) -> int | None:
    for place, line in enumerate(lines):
        if parse_task(line)[0] == task_id:
            return place
    return None


def died_at(end: float, place: SlotContext, ran: tuple[int, int, bytes, float]) -> tuple[bytes, bytes]:
    """The result line and the slice of an attempt that died with its worker: task ID, attempt, command and start."""
    task_id, attempt, command, start = ran
    log = place.log_mode.encode()
    line = result_line(task_id, attempt, place.slot, start, end, RETURNED, signal=_SIGKILLED, log=log)
    times = start, end, RETURNED, 0, _SIGKILLED, 0.0, 0.0, 0
    return line, time_slice(farmer_number(place.farmer), place.slot, task_id, attempt, command, *times)
