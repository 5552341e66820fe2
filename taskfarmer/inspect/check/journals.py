"""The results: exactly the bytes that count of every journal, each attempt once, each task in one place."""

from __future__ import annotations

import os
import re
from array import array
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

from taskfarmer.errors import StaleView
from taskfarmer.formats import limits
from taskfarmer.formats.results import result_words
from taskfarmer.inspect.check.report import ProblemLog, listed, opened
from taskfarmer.inspect.check.revisions import Snapshot
from taskfarmer.inspect.check.tasks import FAILED, FINISHED, FRESH, NOWHERE, WORDS, Tasks
from taskfarmer.storage.eventually import FOR_PEOPLE, wait_until_visible
from taskfarmer.storage.layout import Workdir
from taskfarmer.storage.reading import lines

PATIENCE = FOR_PEOPLE
"""Seconds for a file system to show what other nodes wrote."""

_JOURNAL = re.compile(r"(.+-[0-9a-f]{8}(?:-r[0-9]+)?)(?:\.([0-9]{1,18}))?")
_FARMER = re.compile(r"-([0-9a-f]{8})(?:-r\d+)?(?:\.\d+)?$")
_OUTCOMES = {b"finished": FINISHED, b"failed": FAILED, b"lost": FAILED}
_RETURNED = b"returned"
_LOW = 64


class Counted(NamedTuple):
    """A journal of which `size` bytes count; None where nothing says that any do."""

    path: str
    name: str
    size: int | None


def check_journals(workdir: Workdir, snapshot: Snapshot, tasks: Tasks, findings: ProblemLog) -> Recorded:
    """Read what counts of every journal, and put recorded tasks into their places; all that is recorded."""
    recorded = Recorded(len(tasks.place), findings)
    for journal in _counted(workdir, snapshot, findings):
        if journal.size is None:
            findings.tell(journal.path, "nothing of it counts; left of a farmer that died", note=True)
            continue
        try:
            with _open(workdir, journal) as fd:
                recorded.read(journal.path, fd, journal.size)
        except OSError as error:
            findings.tell(journal.path, f"{error.strerror}; {journal.size} bytes of it count")
    recorded.settle(workdir.results, tasks)
    return recorded


def _counted(workdir: Workdir, snapshot: Snapshot, findings: ProblemLog) -> list[Counted]:
    """Every journal; looked for until their bytes add up, or for some seconds."""
    wanted = sum(snapshot.sizes.values()) + snapshot.closed_bytes
    found: list[Counted] = []

    def add_up() -> None:
        found[:] = _journals(workdir, snapshot)
        total = sum(journal.size or 0 for journal in found if os.path.exists(journal.path))
        if total != wanted:
            raise StaleView(f"{total} bytes of results are there where the ledger counts {wanted}")

    try:
        wait_until_visible(add_up, PATIENCE, 0.25)
    except StaleView as error:
        findings.tell(workdir.results, str(error))
    return found


def _journals(workdir: Workdir, snapshot: Snapshot) -> Iterator[Counted]:
    missing = {name: size for name, size in snapshot.sizes.items() if size}
    for file in listed(workdir.results):
        match = _JOURNAL.fullmatch(file)
        if match is not None:
            name, closed = match[1], int(match[2]) if match[2] else None
            missing.pop(name, None)
            yield Counted(os.path.join(workdir.results, file), name, snapshot.sizes.get(name, closed))
    for name, size in missing.items():
        yield Counted(workdir.journal(name), name, size)


@contextmanager
def _open(workdir: Workdir, journal: Counted) -> Iterator[int]:
    path = journal.path
    if not os.path.exists(path):
        # perhaps an epoch turned since it was listed, and its length is in its name now
        for file in listed(workdir.results):
            match = _JOURNAL.fullmatch(file)
            if match is not None and match[1] == journal.name:
                path = os.path.join(workdir.results, file)
    with opened(path) as fd:
        yield fd


class Recorded:
    """The recorded attempts at all tasks. For each the newest counts; none may be there twice."""

    def __init__(self, tasks: int, findings: ProblemLog) -> None:
        self.findings = findings
        self.attempt = array("L", [0]) * tasks
        self.outcome = bytearray(tasks)
        self._low = array("Q", [0]) * tasks  # a bit for each of the first attempts
        self._high: set[tuple[int, int]] = set()
        self.lines = 0
        """How many attempts are recorded, those that were returned too."""
        self.farmers: set[int] = set()
        """The numbers of the farmers whose results count, as a timeline has them."""

    def read(self, path: str, fd: int, size: int) -> None:
        """Read the first `size` bytes of a journal, which are whole lines."""
        farmer = _FARMER.search(os.path.basename(path))
        if farmer is not None:
            self.farmers.add(int(farmer[1], 16) & 0x7FFFFFFF)
        there = 0
        for number, line in enumerate(lines(fd, limits.RESULT, size), start=1):
            there += len(line)
            if line.endswith(b"\n"):
                self._line(path, number, line[:-1])
            elif there == size:
                self.findings.tell(path, f"{size} bytes of it count, and that is inside a line")
            elif len(line) == limits.RESULT:
                self.findings.tell(path, f"line {number} is too long for a result; the rest was not read")
                return
        if there < size:
            self.findings.tell(path, f"has {there} bytes where {size} count")

    def _line(self, path: str, number: int, line: bytes) -> None:
        words = result_words(line)
        if words is None:
            self.findings.tell(path, f"line {number} is damaged (wrong checksum)", "damaged lines")
        elif words[5] in _OUTCOMES:
            self._record(path, number, int(words[0]), int(words[1]), _OUTCOMES[words[5]])
        elif words[5] == _RETURNED:
            self.lines += 1
        else:
            self.findings.tell(path, f"line {number}: there is no outcome {words[5]!r}", "unknown outcomes")

    def _record(self, path: str, number: int, task_id: int, attempt: int, outcome: int) -> None:
        if not 0 <= task_id < len(self.outcome):
            self.findings.tell(path, f"line {number}: this farm has no task {task_id}", "no such tasks")
        elif self._again(task_id, attempt):
            text = f"line {number}: attempt {attempt} at task {task_id} is recorded twice"
            self.findings.tell(path, text, "attempts that are recorded twice")
        else:
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

    def _again(self, task_id: int, attempt: int) -> bool:
        if 0 <= attempt < _LOW:
            seen = bool(self._low[task_id] >> attempt & 1)
            self._low[task_id] |= 1 << attempt
            return seen
        seen = (task_id, attempt) in self._high
        self._high.add((task_id, attempt))
        return seen

    def settle(self, path: str, tasks: Tasks) -> None:
        """Give every recorded task its place; name those that have two, or none."""
        place = tasks.place
        for task_id, outcome in enumerate(self.outcome):
            here = place[task_id]
            if here == NOWHERE and outcome:
                place[task_id] = outcome
            elif here == NOWHERE:
                text = f"task {task_id} is nowhere: it was given out, nobody holds it, and no result is recorded"
                self.findings.tell(path, text, "tasks that are nowhere")
            elif outcome and here == FRESH:
                text = f"there is a result of task {task_id}, which was never given out"
                self.findings.tell(path, text, "results of tasks that were never given out")
            elif outcome and self.attempt[task_id] >= tasks.open_attempt[task_id]:
                text = (
                    f"task {task_id} is in two places: attempt {self.attempt[task_id]} is recorded, and attempt "
                    f"{tasks.open_attempt[task_id]} is {WORDS[here]}"
                )
                self.findings.tell(path, text, "tasks in two places")
