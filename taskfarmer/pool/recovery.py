"""What becomes of the tasks of a worker that is gone without having told everything."""

from __future__ import annotations

from collections.abc import Iterable

from taskfarmer.model import Interval, parse_task
from taskfarmer.plain import dataclass, field
from taskfarmer.pool.member import Batch, Stock


@dataclass
class Recovered:
    """`died` ran when the worker ended, `returned` had ended untold and is run again, `kept` was not begun."""

    died: Interval | None = None
    command: bytes = b""
    returned: list[Interval] = field(default_factory=list)
    kept: list[Stock] = field(default_factory=list)


def recover(batches: Iterable[Batch], shown: int, attempt: int) -> Recovered:
    """Sort a slot's tasks by what it showed last: ID + 1 of a task that ran, the negative of one that had ended, or 0.

    A slot runs its tasks in the order of its batches. Where the one that it showed is not among what is untold,
    nothing of that was begun.
    """
    found = Recovered()
    for batch in batches:
        rest, lines = batch.interval.part(batch.done, batch.left), batch.lines[batch.done :]
        place = _place_of(abs(shown) - 1, lines) if shown and rest.attempt == attempt else None
        if place is None:
            if rest.count:
                found.kept.append(Stock(rest, lines))
            continue
        for stock in found.kept:
            found.returned.append(stock.interval)
        found.kept.clear()
        if shown > 0:
            found.died, found.command = rest.part(place, 1), parse_task(lines[place])[1]
        ended = place if shown > 0 else place + 1
        if ended:
            found.returned.append(rest.part(0, ended))
        if rest.count > place + 1:
            found.kept.append(Stock(rest.part(place + 1, rest.count - place - 1), lines[place + 1 :]))
    return found


def _place_of(task_id: int, lines: list[bytes]) -> int | None:
    for place, line in enumerate(lines):
        if parse_task(line)[0] == task_id:
            return place
    return None
