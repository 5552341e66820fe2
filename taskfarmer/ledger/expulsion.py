"""What an expelled farmer leaves to the others: results in its journal, and tasks.

A farmer that left without a commit wrote a note (`farmers/<id>.farewell`): its journal, and how many bytes of it are
on the disk. Nothing is decided by the note but how long to wait. A file system may show fewer bytes of the journal
than there are; results that are not seen yet are waited for, and are not run again. A note that promises more than
can ever be seen costs that time, and no more.
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
    """What a farmer that left wrote down: the first `size` bytes of its `journal` are on the disk."""

    journal: str
    size: int


def note_of(workdir: Workdir, farmer: str) -> Note | None:
    """The note of a farmer; None if there is none, or none that can be used.

    StaleView if it is empty: on a network file system its name may be seen before its content.
    """
    path = workdir.farewell(farmer)
    try:
        data = durable.read(path)
    except OSError:
        return None
    if not data:
        raise StaleView(f"{path}: empty; it is not known yet what {farmer} recorded last")
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
    """What a farmer that is to be expelled recorded beyond what counts, and the tasks that ran when it died.

    StaleView if it cannot be seen yet; one that is not `trusting` any more does without what the note promises.
    """
    note = note_of(workdir, farmer) if trusting else None
    if note is None:
        return results.uncounted_results(workdir, state, farmer), _ran(workdir, state, farmer)
    what = results.uncounted_results(workdir, state, farmer, note.journal, note.size)
    return what, ()  # whoever writes a note has ended all its tasks


def _ran(workdir: Workdir, state: State, farmer: str) -> tuple[Interval, ...]:
    """The tasks that a farmer's last heartbeat lists, as places; what the farmer does not hold is left out later."""
    tasks = running_of(workdir, farmer)
    return tuple(
        state.interval_of(task_id, attempt) for task_id, attempt in tasks if state.segment_of(task_id) is not None
    )
