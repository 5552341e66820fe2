"""The views compared with the ledger: each task's line belongs in exactly one file.

While farmers run, views may lag behind, which is only a note. When no farmer runs, they must be exact.
"""

from __future__ import annotations

import json
import zlib
from typing import Any

from taskfarmer.formats import limits
from taskfarmer.inspect.check.journals import Recorded
from taskfarmer.inspect.check.report import FindingLog, opened
from taskfarmer.inspect.check.tasks import FAILED, FINISHED, RETURNED, UNCLAIMED, WORDS, TaskTable
from taskfarmer.ledger.state import State
from taskfarmer.storage.layout import Workdir
from taskfarmer.storage.reading import lines
from taskfarmer.views import files


def check_views(
    workdir: Workdir, state: State, tasks: TaskTable, recorded: Recorded, findings: FindingLog, may_lag: bool
) -> None:
    """Check all views. If `may_lag` is set, a farmer may be about to update them."""
    places = {
        workdir.finished: (FINISHED,),
        workdir.failed: (FAILED,),
        workdir.toprocess: (UNCLAIMED, RETURNED),
    }
    for path, expected in places.items():
        _View(path, expected, tasks, findings, may_lag).check()
    _check_timeline(workdir.timeline, recorded, findings, may_lag)
    _check_summary(workdir, state, findings, may_lag)


def _check_summary(workdir: Workdir, state: State, findings: FindingLog, may_lag: bool) -> None:
    """Check that `views.json` describes the views, unless something else is wrong: then it is rebuilt with them."""

    def add(text: str) -> None:
        findings.add(workdir.views, text, note=may_lag, view=True)

    shown = files.load(workdir)
    if shown is None:
        add("missing or corrupt")
        return
    if findings.faulty:
        return
    if shown.results != state.journaled:
        add(f"records {shown.results} bytes of results, but the ledger counts {state.journaled}")
    sizes = files.sizes(workdir, ("toprocess", *files.GROWING))
    for name, size in shown.sizes.items():
        if sizes.get(name) != size:
            add(f"records {size} bytes for {name!r:.80}, which has {sizes.get(name)}")


class _View:
    def __init__(
        self, path: str, expected: tuple[int, ...], tasks: TaskTable, findings: FindingLog, may_lag: bool
    ) -> None:
        self.path = path
        self.expected = expected
        self.tasks = tasks
        self.findings = findings
        self.may_lag = may_lag
        self.seen = bytearray(len(tasks.place))

    def add(self, text: str) -> None:
        self.findings.add(self.path, text, "differences", note=self.may_lag, view=True)

    def check(self) -> None:
        try:
            with opened(self.path) as fd:
                for number, line in enumerate(lines(fd, limits.TASK), start=1):
                    self._check_line(number, line)
        except OSError as error:
            self.add(f"{error.strerror}")
            return
        place = self.tasks.place
        missing = sum(map(place.count, self.expected)) - self.seen.count(1)
        if missing:
            first = next(task for task, here in enumerate(place) if here in self.expected and not self.seen[task])
            self.add(f"{missing} tasks are missing, the first of them {first}")

    def _check_line(self, number: int, line: bytes) -> None:
        word = line.partition(b" ")[0]
        task_id = int(word) if word.isdigit() and len(word) < 19 else -1
        if not 0 <= task_id < len(self.seen) or self.tasks.lines[task_id] not in (0, _crc(line)):
            self.add(f"line {number} is not a task of this farm: {line[:60]!r}")
        elif self.seen[task_id]:
            self.add(f"line {number}: task {task_id} is listed twice")
        elif self.tasks.place[task_id] not in self.expected:
            self.add(f"line {number}: task {task_id} is {WORDS[self.tasks.place[task_id]]}")
        else:
            self.seen[task_id] = 1


def _crc(line: bytes) -> int:
    return zlib.crc32(line.rstrip(b"\n"))


def _check_timeline(path: str, recorded: Recorded, findings: FindingLog, may_lag: bool) -> None:
    """Check that the timeline is a complete document, and that each of its slices is a recorded attempt."""

    def add(text: str) -> None:
        findings.add(path, text, "slices", note=may_lag, view=True)

    slices = 0
    last: list[bytes] = []
    try:
        with opened(path) as fd:
            following = lines(fd, limits.TASK)
            if next(following, b"") != b"[\n":
                add("is not a complete JSON document")
                return
            for number, line in enumerate(following, start=2):
                last = [*last[-1:], line]
                event = _event(line)
                if event is None and line != b"]\n":
                    add(f"line {number} is not an event: {line[:60]!r}")
                elif event is not None and event.get("ph") == "X":
                    slices += 1
                    if not _is_recorded(event, recorded):
                        add(f"line {number} shows an attempt without a result")
    except OSError as error:
        add(f"{error.strerror}")
        return
    if last[-1:] != [b"]\n"] or last[0].endswith(b",\n"):
        add("is not a complete JSON document")
    elif slices != recorded.lines:
        add(f"shows {slices} attempts, but {recorded.lines} are recorded")


def _event(line: bytes) -> dict[str, Any] | None:
    """The event on a line; None if it does not contain one."""
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
