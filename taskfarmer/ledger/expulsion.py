"""The results and tasks of an expelled farmer.

A farmer that left without a commit wrote a note (`farmers/<id>.farewell`) with the name of its journal, and the number
of its bytes that are durable. The note only determines how long to wait. A file system may show fewer bytes of the
journal than exist; the missing results are waited for, so that their tasks do not run again. A note with a number that
is too large costs that wait, and has no other effect.
"""

from __future__ import annotations

from typing import NamedTuple

from taskfarmer.errors import StaleView
from taskfarmer.formats.intervals import Interval
from taskfarmer.formats.sealed import unsealed
from taskfarmer.ledger import results
from taskfarmer.ledger.state import Settlement, State
from taskfarmer.peers.heartbeat import running_of
from taskfarmer.storage import durable
from taskfarmer.storage.layout import Workdir


class Note(NamedTuple):
    """The note of a farmer that left: the first `size` bytes of its `journal` are durable."""

    journal: str
    size: int


def note_of(workdir: Workdir, farmer: str) -> Note | None:
    """The note of a farmer; None if it is missing or invalid.

    StaleView if it is empty: a network file system may show a name before the content.
    """
    path = workdir.farewell(farmer)
    try:
        data = durable.read(path)
    except OSError:
        return None
    if not data:
        raise StaleView(f"{path}: empty; the last results of {farmer} are not visible yet")
    found = unsealed(data) or {}
    journal, size = found.get("journal"), found.get("bytes")
    if not isinstance(journal, str) or not isinstance(size, int) or not _is_of(journal, farmer):
        return None
    return Note(journal, size)


def _is_of(journal: str, farmer: str) -> bool:
    """Whether a journal has a name that this farmer gives its journals."""
    number = journal.removeprefix(f"{farmer}-r")
    return journal == farmer or (number != journal and number.isdecimal())


def settlement_of(
    workdir: Workdir, state: State, farmer: str, trusting: bool
) -> tuple[Settlement, tuple[Interval, ...]]:
    """The uncounted results of a farmer that is to be expelled, and the tasks that were running when it died.

    StaleView if they are not visible yet. Without `trusting` the note is ignored.
    """
    note = note_of(workdir, farmer) if trusting else None
    if note is None:
        return results.uncounted_results(workdir, state, farmer), _ran(workdir, state, farmer)
    found = results.uncounted_results(workdir, state, farmer, note.journal, note.size)
    return found, ()  # a farmer writes its note after all its tasks have ended


def _ran(workdir: Workdir, state: State, farmer: str) -> tuple[Interval, ...]:
    """The tasks in a farmer's last heartbeat, as places; tasks that the farmer does not hold are dropped later."""
    tasks = running_of(workdir, farmer)
    return tuple(
        state.interval_of(task_id, attempt) for task_id, attempt in tasks if state.segment_of(task_id) is not None
    )
