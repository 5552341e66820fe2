"""An independent checker of a farm's directory: it parses the files by their format and imports nothing of taskfarmer.

    python test/support/checker.py WORKDIR [--views]

`check` finds the newest revision, assigns every task to exactly one place, reads every byte of the results that count,
and reports each inconsistency. With `views` the derived files must be exact too, as they are when no farmer runs.
"""

from __future__ import annotations

import json
import re
import string
import struct
import sys
import time
import zlib
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

EPOCH = re.compile(r"\d{6,}-[0-9a-f]{8}")
JOURNAL = re.compile(r"(?P<name>.+-[0-9a-f]{8}(-r\d+)?)(\.(?P<bytes>\d+))?")
INTERVAL = re.compile(r"(\d+)(?::(\d+)(?:\+(\d+))?|~([A-Za-z0-9_-]+))(?:@(\d+))?(?:!(\d+))?(?:\^(\d+))?")
BASE64 = string.ascii_uppercase + string.ascii_lowercase + string.digits + "-_"
INDEX_MAGIC = b"taskfarmer index 1\n"
INDEX_ENTRY = struct.Struct("<QI")
BLOCK = 64
ENDED = {"finished": "finished", "failed": "failed", "lost": "failed"}


class Problem(Exception):
    """The rest of the farm cannot be read."""


class Line(NamedTuple):
    """A result line that counts."""

    journal: str
    task: int
    attempt: int
    slot: int
    start: float
    end: float
    outcome: str
    log: str


@dataclass
class Report:
    """The contents of a farm. `problems` is empty if everything is consistent."""

    problems: list[str] = field(default_factory=list)
    finished: set[int] = field(default_factory=set)
    failed: set[int] = field(default_factory=set)
    unprocessed: set[int] = field(default_factory=set)
    held: set[int] = field(default_factory=set)
    tasks: dict[int, bytes] = field(default_factory=dict)
    """Every task's line, copied from the segment."""
    lines: list[Line] = field(default_factory=list)
    attempts: dict[int, int] = field(default_factory=dict)
    """The current attempt of each task, also of claimed and unprocessed tasks."""
    state: dict[str, Any] = field(default_factory=dict)
    farm: dict[str, Any] = field(default_factory=dict)
    revision_file: str = ""

    @property
    def complete(self) -> bool:
        """Whether every task is recorded."""
        return bool(self.tasks) and len(self.finished) + len(self.failed) == len(self.tasks)


def sealed(path: Path) -> dict[str, Any]:
    """The JSON document in a file whose last member is the CRC-32 of the rest."""
    data = path.read_bytes()
    match = re.fullmatch(rb'(\{.*),"crc":"([0-9a-f]{8})"\}\n', data, re.DOTALL)
    if match is None or zlib.crc32(match[1] + b"}") != int(match[2], 16):
        raise Problem(f"{path}: the checksum is wrong ({len(data)} bytes)")
    document = json.loads(match[1] + b"}")
    if document.get("format", 1) != 1:
        raise Problem(f"{path}: format {document['format']}")
    return document


def newest(workdir: Path, farm: str, report: Report) -> dict[str, Any]:
    """The newest revision of this farm in all epochs; every other revision must be intact too."""
    found: dict[int, tuple[str, dict[str, Any]]] = {}
    for epoch in sorted((workdir / "ledger").iterdir()):
        if not EPOCH.fullmatch(epoch.name):
            continue
        for path in epoch.iterdir():
            if path.name.isdigit():
                document = sealed(path)
                if document["farm"] != farm:
                    continue
                number = int(path.name)
                if number in found:
                    report.problems.append(f"revision {number} is there twice: {found[number][0]} and {path}")
                if document["revision"] != number:
                    report.problems.append(f"{path}: says that it is revision {document['revision']}")
                found[number] = (str(path), document)
    if not found:
        raise Problem(f"{workdir / 'ledger'}: no revision of farm {farm}")
    numbers = sorted(found)
    first = numbers[0]
    # an epoch that is being removed loses its revisions from the lowest number upwards, so the rest has no gap
    if numbers != list(range(first, numbers[-1] + 1)):
        report.problems.append(f"revisions are missing between {first} and {numbers[-1]}")
    for number in numbers[1:]:
        before = found.get(number - 1)
        here = Path(found[number][0]).parent.name
        if before is not None and before[1]["epoch"] != here:
            report.problems.append(f"revision {number} is in {here}, the one before names {before[1]['epoch']}")
    report.revision_file = found[numbers[-1]][0]
    state = found[numbers[-1]][1]
    if not (workdir / "ledger" / state["epoch"] / "tmp").is_dir():
        report.problems.append(f"the newest revision names epoch {state['epoch']}, which is not there")
    return state


def read_segment(workdir: Path, segment: dict[str, Any], report: Report) -> None:
    path = workdir / "tasks" / segment["file"]
    data = path.read_bytes()
    index = Path(f"{path}.index").read_bytes()
    if not index.startswith(INDEX_MAGIC) or index[-9:] != b"%08x\n" % zlib.crc32(index[:-9]):
        raise Problem(f"{path}.index: the checksum is wrong")
    entries = list(INDEX_ENTRY.iter_unpack(index[len(INDEX_MAGIC) : -9]))
    size, count = entries.pop()
    if size != len(data) or count != segment["tasks"] or len(entries) != -(-count // BLOCK):
        report.problems.append(f"{path}: {len(data)} bytes, the index says {size} and {count} tasks")
    stops = [offset for offset, _ in entries[1:]] + [size] * bool(entries)
    for (offset, crc), stop in zip(entries, stops, strict=True):
        if zlib.crc32(data[offset:stop]) != crc:
            report.problems.append(f"{path}: bytes {offset} to {stop} are not what the index says")
    lines = data.split(b"\n")
    if lines.pop():
        report.problems.append(f"{path}: the last line has no end")
    if len(lines) != segment["tasks"]:
        report.problems.append(f"{path}: {len(lines)} lines for {segment['tasks']} tasks")
    for number, line in enumerate(lines, start=segment["first"]):
        if line.partition(b" ")[0] != b"%d" % number:
            report.problems.append(f"{path}: task {number} is {line[:40]!r}")
        if number in report.tasks:
            report.problems.append(f"task {number} is in two segments")
        report.tasks[number] = line


def scattered(digits: str) -> list[tuple[int, int]]:
    """(gap, count) of each interval that is written in digits."""
    numbers, number, weight = [], 0, 1
    for digit in digits:
        more, value = divmod(BASE64.index(digit), 32)
        number += value * weight
        weight *= 32
        if not more:
            numbers.append(number)
            number, weight = 0, 1
    if weight > 1:
        raise Problem(f"{digits!r} has no end")
    found = []
    while numbers:
        gap, several = divmod(numbers.pop(0), 2)
        found.append((gap, numbers.pop(0) + 2 if several else 1))
    return found


def intervals(text: str, state: dict[str, Any]) -> list[tuple[int, int]]:
    """(task ID, attempt) of all tasks in a string of intervals."""
    found = []
    for word in text.split(" ") if text else []:
        match = INTERVAL.fullmatch(word)
        if match is None:
            raise Problem(f"{word!r} is no interval")
        number, place = int(match[1]), 0
        for gap, count in scattered(match[4]) if match[4] else [(int(match[2]), int(match[3] or 1))]:
            start, stop = place + gap, place + gap + count
            if stop <= start or stop > state["segments"][number]["next"]:
                raise Problem(f"interval {word} holds tasks that were never given out")
            first = state["segments"][number]["first"]
            found += [(first + one, int(match[5] or 1)) for one in range(start, stop)]
            place = stop
    return found


def read_results(workdir: Path, state: dict[str, Any], report: Report) -> None:
    """Every result line that counts, in every journal that ever existed."""
    counted: dict[str, int] = {}
    for name, entry in state["farmers"].items():
        counted[entry[4] if len(entry) > 4 else name] = entry[2]
    for name, size in state["departed"].items():
        if counted.get(name):
            report.problems.append(f"journal {name} is a farmer's, and departed")
        counted[name] = size
    there: dict[str, Path] = {}
    closed = 0
    for path in sorted((workdir / "results").iterdir()):
        match = JOURNAL.fullmatch(path.name)
        if match is None:
            report.problems.append(f"{path}: not the name of a journal")
            continue
        name = match["name"]
        if name in there:
            report.problems.append(f"{path}: this journal is there twice")
        there[name] = path
        if name not in counted:
            counted[name] = int(match["bytes"] or 0)
            closed += counted[name]
        elif match["bytes"] is not None and int(match["bytes"]) != counted[name]:
            report.problems.append(f"{path}: the ledger counts {counted[name]} bytes of it")
    if closed != state["closed_bytes"]:
        report.problems.append(f"closed journals hold {closed} bytes, the ledger says {state['closed_bytes']}")
    for name, size in counted.items():
        if size and name not in there:
            report.problems.append(f"journal {name} is not there; {size} bytes of it count")
        elif size:
            read_journal(there[name], name, size, report)


def read_journal(path: Path, name: str, size: int, report: Report) -> None:
    data = path.read_bytes()
    if len(data) < size:
        report.problems.append(f"{path}: {len(data)} bytes, {size} count")
    lines = data[:size].split(b"\n")
    if lines.pop():
        report.problems.append(f"{path}: byte {size} is not the end of a line")
    for number, line in enumerate(lines, start=1):
        body, _, crc = line.rpartition(b" ")
        words = body.split(b" ")
        if len(words) != 12 or not re.fullmatch(rb"[0-9a-f]{8}", crc) or zlib.crc32(body) != int(crc, 16):
            report.problems.append(f"{path}: line {number} counts, and its checksum is wrong")
            continue
        task, attempt, slot = int(words[0]), int(words[1]), int(words[2])
        outcome = words[5].decode()
        if outcome not in (*ENDED, "returned"):
            report.problems.append(f"{path}: line {number}: outcome {outcome}")
        if task not in report.tasks:
            report.problems.append(f"{path}: line {number}: there is no task {task}")
        times = float(words[3]), float(words[4])
        report.lines.append(Line(name, task, attempt, slot, *times, outcome, words[11].decode()))


def place_tasks(state: dict[str, Any], report: Report, retried: bool) -> None:
    """Assign every task to one place, from the state and the result lines that count."""
    places: dict[int, str] = {}

    def put(task: int, place: str, attempt: int) -> None:
        if task in places:
            report.problems.append(f"task {task} is {place}, and {places[task]}")
        places[task] = place
        report.attempts[task] = attempt

    for segment in state["segments"]:
        for task in range(segment["first"] + segment["next"], segment["first"] + segment["tasks"]):
            put(task, "unprocessed", 1)
    for task, attempt in intervals(state["returned"], state):
        put(task, "unprocessed", attempt)
    for name, entry in state["farmers"].items():
        for task, attempt in intervals(entry[1], state):
            put(task, f"held by {name}", attempt)
    ends: dict[int, dict[int, str]] = {}
    for (task, attempt), count in Counter((line.task, line.attempt) for line in report.lines).items():
        if count > 1:
            report.problems.append(f"attempt {attempt} of task {task} is recorded {count} times")
    for line in report.lines:
        if line.outcome in ENDED:
            ends.setdefault(line.task, {})[line.attempt] = ENDED[line.outcome]
        if line.task in places and line.attempt >= report.attempts[line.task]:
            report.problems.append(
                f"task {line.task} is {places[line.task]} at attempt {report.attempts[line.task]}, "
                f"and attempt {line.attempt} is recorded"
            )
    for task, outcomes in ends.items():
        if len(outcomes) > 1 and not retried:
            report.problems.append(f"task {task} is recorded as ended {len(outcomes)} times: {outcomes}")
        if task not in places:
            put(task, outcomes[max(outcomes)], max(outcomes))
    for task in report.tasks:
        if task not in places:
            report.problems.append(f"task {task} is lost: given out, held by nobody, recorded nowhere")
    for task, place in places.items():
        if task not in report.tasks:
            report.problems.append(f"task {task} is {place}, and in no segment")
        {"unprocessed": report.unprocessed, "finished": report.finished, "failed": report.failed}.get(
            place, report.held
        ).add(task)
    for name, found in (("finished", report.finished), ("failed", report.failed)):
        if state[name] != len(found):
            report.problems.append(f"the ledger counts {state[name]} {name}, the results {len(found)}")


def check_views(workdir: Path, report: Report) -> None:
    for name in ("toprocess", "finished", "failed"):
        wanted = getattr(report, {"toprocess": "unprocessed"}.get(name, name))
        data = (workdir / name).read_bytes()
        lines = data.split(b"\n")
        if lines.pop():
            report.problems.append(f"{name}: the last line has no end")
        shown = Counter(lines)
        right = Counter(report.tasks[task] for task in wanted if task in report.tasks)
        more, less = shown - right, right - shown
        if more or less:
            report.problems.append(
                f"{name}: {sum(more.values())} lines too many, {sum(less.values())} too few: "
                f"{[*more.elements()][:3]} {[*less.elements()][:3]}"
            )
        if name == "toprocess" and not more and [int(line.split(b" ", 1)[0]) for line in lines] != sorted(wanted):
            report.problems.append("toprocess: not in the order of IDs")
    check_timeline(workdir / "timeline.json", report)


def check_timeline(path: Path, report: Report) -> None:
    try:
        events = json.loads(path.read_bytes())
    except ValueError as error:
        report.problems.append(f"{path}: no JSON: {error}")
        return
    slices = [event for event in events if event["ph"] == "X"]
    shown = Counter((one["args"]["id"], one["args"]["attempt"], one["args"]["outcome"]) for one in slices)
    right = Counter((line.task, line.attempt, line.outcome) for line in report.lines)
    if shown != right:
        report.problems.append(
            f"{path}: {len(slices)} slices for {len(report.lines)} results: too many "
            f"{[*(shown - right)][:3]}, too few {[*(right - shown)][:3]}"
        )
    named = {event["pid"] for event in events if event["ph"] == "M" and event["name"] == "process_name"}
    for pid in {one["pid"] for one in slices} - named:
        report.problems.append(f"{path}: process {pid} has no name")


def check_once(workdir: Path, views: bool, retried: bool) -> Report:
    report = Report()
    try:
        report.farm = sealed(workdir / "farm.json")
        state = report.state = newest(workdir, report.farm["farm"], report)
        first = 0
        for segment in state["segments"]:
            if segment["first"] != first:
                report.problems.append(f"segment {segment['file']} begins with {segment['first']}, not {first}")
            first = segment["first"] + segment["tasks"]
            read_segment(workdir, segment, report)
        read_results(workdir, state, report)
        place_tasks(state, report, retried)
        if views:
            check_views(workdir, report)
    except Problem as error:
        report.problems.append(str(error))
    return report


def check(workdir: str | Path, views: bool = False, retried: bool = False) -> Report:
    """Read a farm and check it.

    With `views` the derived files must be exact; with `retried` tasks may have ended repeatedly. While farmers run,
    files move during reading; the check is repeated for a while if a file cannot be read.
    """
    workdir = Path(workdir)
    end = time.monotonic() + 5.0
    while True:
        try:
            return check_once(workdir, views, retried)
        except OSError as error:
            if time.monotonic() > end:
                return Report([f"{error.filename}: {error.strerror}"])


def main(arguments: list[str]) -> int:
    views = "--views" in arguments
    paths = [argument for argument in arguments if not argument.startswith("--")]
    report = check(paths[0], views, "--retried" in arguments)
    print(
        f"{len(report.tasks)} tasks: {len(report.finished)} finished, {len(report.failed)} failed, "
        f"{len(report.unprocessed)} unprocessed, {len(report.held)} held; {len(report.lines)} results count"
    )
    for problem in report.problems:
        print(problem)
    return 1 if report.problems else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
