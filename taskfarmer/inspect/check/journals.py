"""The results: the bytes of each journal that count, each attempt once, each task in one place."""

from __future__ import annotations

import os
import re
from array import array
from collections.abc import Iterator
from contextlib import contextmanager

from taskfarmer.errors import FarmError, StaleView
from taskfarmer.formats import limits
from taskfarmer.formats.results import FINISHED as RECORDED_AS_FINISHED
from taskfarmer.formats.results import OUTCOMES, RETURNED, result_words
from taskfarmer.inspect.check.report import FindingLog, listed, opened, refuse_if_limited
from taskfarmer.inspect.check.tasks import FAILED, FINISHED, NOWHERE, UNCLAIMED, WORDS, TaskTable
from taskfarmer.ledger import results
from taskfarmer.ledger.state import State
from taskfarmer.storage.eventually import FOR_PEOPLE, wait_until_visible
from taskfarmer.storage.layout import Workdir
from taskfarmer.storage.reading import lines

PATIENCE = FOR_PEOPLE
"""Seconds to wait until the results of other nodes are visible."""

_JOURNAL = re.compile(r".+-([0-9a-f]{8})(?:-r[0-9]+)?")
_LOW = 64


def check_journals(workdir: Workdir, state: State, tasks: TaskTable, findings: FindingLog) -> Recorded:
    """Read the bytes of each journal that count, and mark finished and failed tasks; all recorded attempts."""
    recorded = Recorded(len(tasks.place), findings)
    for name, (path, size) in _journals(workdir, state, findings).items():
        try:
            with _open_journal(workdir, name, path) as fd:
                recorded.read(name, path, fd, size)
        except OSError as error:
            findings.add(path, f"{error.strerror}; {size} bytes of it count")
        except FarmError as error:
            findings.add_error(error, "journals")
    recorded.settle(workdir.results, tasks)
    return recorded


def _journals(workdir: Workdir, state: State, findings: FindingLog) -> dict[str, tuple[str, int]]:
    """Name -> (path, bytes that count) of each journal; waits some seconds until they match the ledger."""
    counted = {entry.journal: entry.bytes for entry in state.farmers.values()} | dict(state.departed)
    found: dict[str, tuple[str, int]] = {}
    total = 0

    def read_names() -> None:
        nonlocal found, total
        try:
            found = results.counted_journals(workdir, state)
        except OSError as error:
            refuse_if_limited(workdir.results, error)
            found = {}
        total = sum(size for path, size in found.values() if os.path.exists(path))
        if total != state.journaled:
            raise StaleView(f"contains {total} bytes of results, but the ledger counts {state.journaled}")

    try:
        wait_until_visible(read_names, PATIENCE, 0.25)
    except StaleView as error:
        findings.add(workdir.results, str(error))
    for name in listed(workdir.results):
        if name not in counted and _JOURNAL.fullmatch(name):
            findings.add(workdir.journal(name), "nothing in it counts; left over from a dead farmer", note=True)
    for name, size in counted.items():
        if size and name not in found:
            found[name] = workdir.journal(name), size
    return found


@contextmanager
def _open_journal(workdir: Workdir, name: str, path: str) -> Iterator[int]:
    # if an epoch turned after the names were read, the name of the file now contains its length
    with opened(path if os.path.exists(path) else results.find_renamed(workdir, name)) as fd:
        yield fd


class Recorded:
    """The recorded attempts at all tasks. The newest attempt at a task counts; no attempt may be recorded twice."""

    def __init__(self, tasks: int, findings: FindingLog) -> None:
        self.findings = findings
        self.attempt = array("L", [0]) * tasks
        self.outcome = bytearray(tasks)
        self._low = array("Q", [0]) * tasks  # a bit for each of the first attempts
        self._high: set[tuple[int, int]] = set()
        self.lines = 0
        """The number of recorded attempts, released ones included."""
        self.farmers: set[int] = set()
        """The numbers by which the timeline identifies the farmers of these results."""

    def read(self, name: str, path: str, fd: int, size: int) -> None:
        """Read the first `size` bytes of a journal, which are whole lines."""
        farmer = _JOURNAL.fullmatch(name)
        if farmer is not None:
            self.farmers.add(int(farmer[1], 16) & 0x7FFFFFFF)
        found = 0
        for number, line in enumerate(lines(fd, limits.RESULT, size), start=1):
            found += len(line)
            if line.endswith(b"\n"):
                self._add(path, number, line[:-1])
            elif found == size:
                self.findings.add(path, f"{size} bytes of it count, which ends inside a line")
            elif len(line) == limits.RESULT:
                self.findings.add(path, f"line {number} is too long for a result; skipped the rest")
                return
        if found < size:
            self.findings.add(path, f"has {found} bytes, but the ledger counts {size}")

    def _add(self, path: str, number: int, line: bytes) -> None:
        words = result_words(line)
        if words is None:
            self.findings.add(path, f"line {number} is corrupt (checksum mismatch)", "corrupt lines")
        elif words[5] not in OUTCOMES:
            self.findings.add(path, f"line {number}: unknown outcome {words[5]!r}", "unknown outcomes")
        elif words[5] == RETURNED:
            self.lines += 1
        else:
            outcome = FINISHED if words[5] == RECORDED_AS_FINISHED else FAILED
            self._record(path, number, int(words[0]), int(words[1]), outcome)

    def _record(self, path: str, number: int, task_id: int, attempt: int, outcome: int) -> None:
        if not 0 <= task_id < len(self.outcome):
            self.findings.add(path, f"line {number}: this farm has no task {task_id}", "unknown tasks")
        elif self.has(task_id, attempt):
            text = f"line {number}: attempt {attempt} at task {task_id} is recorded twice"
            self.findings.add(path, text, "attempts recorded twice")
        else:
            self._set(task_id, attempt)
            self.lines += 1
            if attempt >= self.attempt[task_id]:
                self.attempt[task_id] = attempt
                self.outcome[task_id] = outcome

    def has(self, task_id: int, attempt: int) -> bool:
        """Whether this attempt at a task was recorded as finished or failed."""
        if not 0 <= task_id < len(self.outcome):
            return False
        low = 0 <= attempt < _LOW
        return bool(self._low[task_id] >> attempt & 1) if low else (task_id, attempt) in self._high

    def _set(self, task_id: int, attempt: int) -> None:
        if attempt < _LOW:
            self._low[task_id] |= 1 << attempt
        else:
            self._high.add((task_id, attempt))

    def settle(self, path: str, tasks: TaskTable) -> None:
        """Set the place of each recorded task; report tasks with two places, or without one."""
        place = tasks.place
        for task_id, outcome in enumerate(self.outcome):
            here = place[task_id]
            if here == NOWHERE and outcome:
                place[task_id] = outcome
            elif here == NOWHERE:
                text = f"task {task_id} is nowhere: it was claimed, but no farmer holds it and it has no result"
                self.findings.add(path, text, "tasks that are nowhere")
            elif outcome and here == UNCLAIMED:
                text = f"task {task_id} has a result, but was never claimed"
                self.findings.add(path, text, "results of tasks never claimed")
            elif outcome and self.attempt[task_id] >= tasks.open_attempt[task_id]:
                text = (
                    f"task {task_id} is in two places: attempt {self.attempt[task_id]} is recorded, and attempt "
                    f"{tasks.open_attempt[task_id]} is {WORDS[here]}"
                )
                self.findings.add(path, text, "tasks in two places")
