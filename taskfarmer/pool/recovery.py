"""Sort the tasks of a worker that died without reporting all of them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from taskfarmer.formats.intervals import Interval
from taskfarmer.formats.results import RETURNED, result_line
from taskfarmer.formats.tasks import parse_task
from taskfarmer.formats.timeline import farmer_number, time_slice
from taskfarmer.pool.handles import AssignedBatch
from taskfarmer.pool.queue import QueuedTasks
from taskfarmer.worker.context import SlotContext

_SIGKILLED = 9


@dataclass
class Recovered:
    """`died` ran when the worker ended, or had just ended: either may be the cause. `kept` were not started.

    `returned` ended before that. They run again, since their results are lost.
    """

    died: Interval | None = None
    command: bytes = b""
    returned: list[Interval] = field(default_factory=list)
    kept: list[QueuedTasks] = field(default_factory=list)


def recover(batches: Iterable[AssignedBatch], shown: int, attempt: int) -> Recovered:
    """Sort a slot's tasks by its entry in shared memory (`worker/slot.py`).

    `shown` is ID + 1 of a task that ran, the negative of one that had ended, or 0. A slot runs its tasks in the order
    of its batches. If the task that it showed is not among those without a report, none of these was started.
    """
    found = Recovered()
    for batch in batches:
        interval, lines = batch.interval.slice(batch.done, batch.left), batch.lines[batch.done :]
        place = _index_of(abs(shown) - 1, lines) if shown and interval.attempt == attempt else None
        if place is None:
            if interval.count:
                found.kept.append(QueuedTasks(interval, lines))
            continue
        for tasks in found.kept:
            found.returned.append(tasks.interval)
        found.kept.clear()
        found.died, found.command = interval.slice(place, 1), parse_task(lines[place])[1]
        if place:
            found.returned.append(interval.slice(0, place))
        if interval.count > place + 1:
            following = interval.slice(place + 1, interval.count - place - 1)
            found.kept.append(QueuedTasks(following, lines[place + 1 :]))
    return found


def _index_of(task_id: int, lines: list[bytes]) -> int | None:
    for place, line in enumerate(lines):
        if parse_task(line)[0] == task_id:
            return place
    return None


def died_at(end: float, context: SlotContext, ran: tuple[int, int, bytes, float]) -> tuple[bytes, bytes]:
    """The result line and the timeline slice of an attempt that died with its worker.

    `ran` contains the task ID, the attempt, the command and the start.
    """
    task_id, attempt, command, start = ran
    log = context.log_mode.encode()
    line = result_line(task_id, attempt, context.slot, start, end, RETURNED, signal=_SIGKILLED, log=log)
    times = start, end, RETURNED, 0, _SIGKILLED, 0.0, 0.0, 0
    return line, time_slice(farmer_number(context.farmer), context.slot, task_id, attempt, command, *times)
