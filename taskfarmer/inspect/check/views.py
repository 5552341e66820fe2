"""The views against the ledger: each task's line in the one file where it belongs.

While farmers work the views may be behind, which is worth a note; when none does they must be exact.
"""

from __future__ import annotations

import json
import os
import zlib
from typing import Any

from taskfarmer.formats import limits, members
from taskfarmer.formats.sealed import unsealed
from taskfarmer.inspect.check.documents import VIEWS, wrong_members
from taskfarmer.inspect.check.journals import Recorded
from taskfarmer.inspect.check.report import ProblemLog, opened, read
from taskfarmer.inspect.check.revisions import Snapshot
from taskfarmer.inspect.check.tasks import FAILED, FINISHED, FRESH, RETURNED, WORDS, Tasks
from taskfarmer.storage.layout import Workdir
from taskfarmer.storage.reading import lines


def check_views(
    workdir: Workdir, snapshot: Snapshot, tasks: Tasks, recorded: Recorded, findings: ProblemLog, behind: bool
) -> None:
    """`behind`: somebody may be about to update them."""
    places = {
        workdir.finished: (FINISHED,),
        workdir.failed: (FAILED,),
        workdir.toprocess: (FRESH, RETURNED),
    }
    for path, wanted in places.items():
        _View(path, wanted, tasks, findings, behind).check()
    _check_timeline(workdir.timeline, recorded, findings, behind)
    _check_summary(workdir, snapshot, findings, behind)


def _check_summary(workdir: Workdir, snapshot: Snapshot, findings: ProblemLog, behind: bool) -> None:
    """Whether `views.json` describes the views, if all else is right; else it is made anew with them."""

    def tell(text: str) -> None:
        findings.tell(workdir.views, text, note=behind, view=True)

    try:
        document = unsealed(read(workdir.views))
    except OSError as error:
        tell(f"{error.strerror}")
        return
    if document is None:
        tell("damaged: not what was written into it (wrong checksum)")
        return
    wrong = list(wrong_members(document, VIEWS))
    for text in wrong:
        tell(text)
    if wrong or findings.faulty:
        return
    found: Any = document
    if found["results"] != sum(snapshot.sizes.values()) + snapshot.closed_bytes:
        tell(f"says that {found['results']} bytes of results are shown, which is not what the ledger counts")
    for name, size in found["sizes"].items():
        there = _size(os.path.join(workdir.path, name)) if members.is_name(name) else None
        if there != size:
            tell(f"says that {members.shown(name)} has {size} bytes, and it has {there}")


def _size(path: str) -> int | None:
    try:
        return os.stat(path).st_size
    except OSError:
        return None


class _View:
    def __init__(self, path: str, wanted: tuple[int, ...], tasks: Tasks, findings: ProblemLog, behind: bool) -> None:
        self.path = path
        self.wanted = wanted
        self.tasks = tasks
        self.findings = findings
        self.behind = behind
        self.seen = bytearray(len(tasks.place))

    def tell(self, text: str) -> None:
        self.findings.tell(self.path, text, "differences", note=self.behind, view=True)

    def check(self) -> None:
        try:
            with opened(self.path) as fd:
                for number, line in enumerate(lines(fd, limits.TASK), start=1):
                    self._line(number, line)
        except OSError as error:
            self.tell(f"{error.strerror}")
            return
        place = self.tasks.place
        missing = sum(map(place.count, self.wanted)) - self.seen.count(1)
        if missing:
            first = next(task for task, here in enumerate(place) if here in self.wanted and not self.seen[task])
            self.tell(f"{missing} tasks are missing, the first of them {first}")

    def _line(self, number: int, line: bytes) -> None:
        word = line.partition(b" ")[0]
        task_id = int(word) if word.isdigit() and len(word) < 19 else -1
        if not 0 <= task_id < len(self.seen) or zlib.crc32(line.rstrip(b"\n")) != self.tasks.lines[task_id]:
            self.tell(f"line {number} is not a task of this farm: {line[:60]!r}")
        elif self.seen[task_id]:
            self.tell(f"line {number}: task {task_id} is there twice")
        elif self.tasks.place[task_id] not in self.wanted:
            self.tell(f"line {number}: task {task_id} is {WORDS[self.tasks.place[task_id]]}")
        else:
            self.seen[task_id] = 1


def _check_timeline(path: str, recorded: Recorded, findings: ProblemLog, behind: bool) -> None:
    """Whether the timeline is a whole document, and each of its slices an attempt that was recorded."""

    def tell(text: str) -> None:
        findings.tell(path, text, "slices", note=behind, view=True)

    slices = 0
    end: list[bytes] = []
    try:
        with opened(path) as fd:
            rest = lines(fd, limits.TASK)
            if next(rest, b"") != b"[\n":
                tell("is not a whole JSON document")
                return
            for number, line in enumerate(rest, start=2):
                end = [*end[-1:], line]
                event = _event(line)
                if event is None and line != b"]\n":
                    tell(f"line {number} is no event: {line[:60]!r}")
                elif event is not None and event.get("ph") == "X":
                    slices += 1
                    if not _is_recorded(event, recorded):
                        tell(f"line {number} is of an attempt that no result tells of")
    except OSError as error:
        tell(f"{error.strerror}")
        return
    if end[-1:] != [b"]\n"] or end[0].endswith(b",\n"):
        tell("is not a whole JSON document")
    elif slices != recorded.lines:
        tell(f"shows {slices} attempts where {recorded.lines} are recorded")


def _event(line: bytes) -> dict[str, Any] | None:
    """The event on a line; None where there is none."""
    try:
        event = json.loads(line.rstrip(b"\n").removesuffix(b","))
    except (ValueError, RecursionError):
        return None
    return event if isinstance(event, dict) else None


def _is_recorded(event: dict[str, Any], recorded: Recorded) -> bool:
    try:
        args = event["args"]
        task_id, attempt = int(args["id"]), int(args["attempt"])
        return event["pid"] in recorded.farmers and (args["outcome"] == "returned" or recorded.has(task_id, attempt))
    except (KeyError, TypeError, ValueError, OverflowError):
        return False
