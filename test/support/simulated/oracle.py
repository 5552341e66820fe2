"""The invariants of a farm: one place for each task, derived from the revisions in the order of their creation.

The oracle reads bytes according to docs/workdir-format.md. It uses only the interval notation of the product.
"""

from __future__ import annotations

import json
import re
import zlib
from dataclasses import dataclass, field
from typing import Any

from support.simulated.server import File, Folder, Server
from taskfarmer.formats.intervals import parse_intervals

JOURNAL = re.compile(r"(.+-[0-9a-f]{8}(?:-r\d+)?)(?:\.(\d+))?")
ENDED = {"finished": "finished", "failed": "failed", "lost": "failed"}
UNPROCESSED = "unprocessed"


class Violation(AssertionError):
    """An invariant is broken."""


def demand(true: object, *words: object) -> None:
    if not true:
        raise Violation(" ".join(map(str, words)))


def sealed(data: bytes) -> dict[str, Any]:
    body, mark, end = data.rpartition(b',"crc":"')
    demand(mark and end == b'%08x"}\n' % zlib.crc32(body + b"}"), "not sealed:", data[:60])
    document: dict[str, Any] = json.loads(body + b"}")
    return document


@dataclass
class Moment:
    """A revision and its consequences: task -> (place, attempt, deaths); journal -> counted bytes."""

    document: dict[str, Any]
    path: str
    places: dict[int, tuple[str, int, int]]
    counted: dict[str, int]
    ends: dict[tuple[int, int], str] = field(default_factory=dict)


class Oracle:
    """One farm, from the moment when `farm.json` has its name.

    `announced`: attempts that a farmer listed as running.
    """

    def __init__(self, server: Server, path: str) -> None:
        self.server, self.path = server, path
        self.farm = ""
        self.moments: list[Moment] = []
        self.begun: dict[str, Moment] = {}
        self.announced: set[tuple[str, int, int]] = set()
        self.expelled: set[str] = set()
        self.retried = 0
        self.confirmed = 0

    @property
    def now(self) -> Moment:
        return self.moments[-1]

    # --- at each commit -----------------------------------------------------------------------------

    def named(self, file: File) -> None:
        """`farm.json` got its name."""
        demand(not self.farm, "a farm was made twice")
        self.farm = sealed(bytes(file.data))["farm"]
        self.moments = [self.begun[self.farm]]

    def committed(self, path: str, file: File) -> None:
        """A revision got its name on the server."""
        document = sealed(bytes(file.data))
        if document["revision"] == 0 and document["farm"] not in self.begun:
            self.begun[document["farm"]] = Moment(document, path, self._places(document), {})
            return
        demand(document["farm"] == self.farm, path, "is of another farm:", document["farm"], "not", self.farm)
        number = document["revision"]
        epoch, name = path.split("/")[-2:]
        demand(
            number == len(self.moments) and name == str(number), f"{path}: revision {number}, {len(self.moments)} due"
        )
        demand(file.durable == bytes(file.data), path, "has a name, and is not on the disk")
        moment = Moment(document, path, self._places(document), self._counted(document))
        before = self.now
        if before.path.split("/")[-2] != epoch and isinstance(
            last := self.server.find(before.path.rpartition("/")[0]), Folder
        ):
            demand(
                before.path.split("/")[-1] in last.durable, path, "begins an epoch, and", before.path, "may not last"
            )
        demand(epoch == before.document["epoch"], path, "is not in the epoch that was named")
        self._segments(before, moment)
        moment.ends = {**before.ends, **self._lines(before, moment)}
        self._moves(before, moment)
        gone = set(before.document["farmers"]) - set(document["farmers"])
        self.expelled |= gone - {document["by"][0]}
        for outcome in ("finished", "failed"):
            there = sum(place == outcome for place, _, _ in moment.places.values())
            demand(document[outcome] == there, path, "counts", document[outcome], outcome, "and there are", there)
        self.moments.append(moment)

    def _places(self, document: dict[str, Any]) -> dict[int, tuple[str, int, int]]:
        """Each task's one place; "recorded" for tasks in no interval."""
        places: dict[int, tuple[str, int, int]] = {}
        segments = document["segments"]
        for segment in segments:
            for task in range(segment["first"], segment["first"] + segment["tasks"]):
                demand(task == len(places), "task", task, "is in two segments, or a gap is before it")
                fresh = task - segment["first"] >= segment["next"]
                places[task] = (UNPROCESSED, 1, 0) if fresh else ("recorded", 0, 0)
        holders = [(UNPROCESSED, document["returned"])]
        holders += [(name, entry[1]) for name, entry in document["farmers"].items()]
        for place, text in holders:
            for one in parse_intervals(text):
                first = segments[one.segment]["first"]
                for task in range(first + one.start, first + one.stop):
                    demand(places[task][0] == "recorded", "task", task, "is in two places:", place, places[task])
                    places[task] = (place, one.attempt, one.deaths)
        return places

    def _counted(self, document: dict[str, Any]) -> dict[str, int]:
        counted = dict(document["departed"])
        for name, entry in document["farmers"].items():
            journal = entry[4] if len(entry) > 4 else name
            demand(journal not in counted, "journal", journal, "is a farmer's, and departed")
            counted[journal] = entry[2]
        return counted

    def _segments(self, before: Moment, after: Moment) -> None:
        old, new = before.document["segments"], after.document["segments"]
        for one, other in zip(old, new, strict=False):
            demand({**one, "next": 0} == {**other, "next": 0}, "a segment changed:", one, other)
            demand(one["next"] <= other["next"], "tasks that were given out are fresh again:", one, other)
        demand(len(old) <= len(new), "a segment is gone")

    def _lines(self, before: Moment, after: Moment) -> dict[tuple[int, int], str]:
        """The results that this revision counts for the first time: of held tasks, durable, complete lines."""
        ends: dict[tuple[int, int], str] = {}
        forgotten = {name: size for name, size in before.counted.items() if name not in after.counted and size}
        closed = after.document["closed_bytes"] - before.document["closed_bytes"]
        demand(sum(forgotten.values()) == closed, after.path, "forgets", forgotten, "and closes", closed)
        for name, size in forgotten.items():
            results = self.server.find(f"{self.path}/results")
            demand(isinstance(results, Folder) and f"{name}.{size}" in results.durable, f"{name} has no durable length")
        for name, size in after.counted.items():
            start = before.counted.get(name, 0)
            demand(size >= start, f"of {name} counted {start} bytes, now {size}")
            if size > start:
                owner = re.sub(r"-r\d+$", "", name)
                demand(name not in before.document["departed"], f"{name} is frozen, and grew from {start} to {size}")
                for task, attempt, outcome in self._read(name, start, size):
                    if outcome != "returned":
                        key = (task, attempt)
                        demand(key not in before.ends and key not in ends, "attempt", key, "is recorded twice")
                        place = before.places[task][:2]
                        demand(place == (owner, attempt), f"{name} records {key}, which is {place}")
                        ends[key] = ENDED[outcome]
        return ends

    def journal(self, name: str) -> File | None:
        found = self.server.find(f"{self.path}/results/{name}")
        return found if isinstance(found, File) else None

    def _read(self, name: str, start: int, size: int) -> list[tuple[int, int, str]]:
        file = self.journal(name) or self.journal(f"{name}.{size}")
        demand(file is not None, f"{size} bytes of {name} count, and it is not there")
        assert file is not None
        data = file.durable[start:size]
        demand(len(data) == size - start, f"{size} bytes of {name} count, {len(file.durable)} are on the disk")
        return result_lines(name, data)

    def _moves(self, before: Moment, after: Moment) -> None:
        """Each task that moved made a valid move; recorded tasks get the outcome of their result."""
        by = after.document["by"][0]
        new = {key[0]: outcome for key, outcome in after.ends.items() if key not in before.ends}
        for task, (place, attempt, deaths) in after.places.items():
            was, once, died = before.places.get(task, (UNPROCESSED, 1, 0))
            if place == "recorded":
                outcome = was if was in ("finished", "failed") else new.get(task)
                demand(outcome, f"task {task} was {was} and is nowhere: lost")
                assert outcome is not None
                after.places[task] = (outcome, once, died)
                continue
            demand(task not in new, "task", task, "is recorded, and", place)
            if was == place and attempt == once:
                demand(deaths == died, "task", task, "changed where it is")
            elif was == UNPROCESSED:
                demand(
                    (attempt, deaths) == (once, died), f"task {task} was taken as {attempt, deaths}, not {once, died}"
                )
            elif was in ("finished", "failed"):
                demand(by.startswith("retry-") and place == UNPROCESSED, f"task {task} was {was} and came back by {by}")
                demand(attempt == once + 1, f"task {task} came back with attempt {attempt} after {once}")
                self.retried += 1
            else:
                # released, and perhaps claimed again in the same commit
                demand(
                    place in (UNPROCESSED, by) and attempt == once + 1, f"{task} of {was} @{once}: {place} @{attempt}"
                )
                ran = (was, task, once) in self.announced
                demand(
                    deaths in ((died, died + 1) if ran else (died,)), f"task {task} died {deaths} times: it did not run"
                )

    # --- confirmations of farmers and disks ---------------------------------------------------------

    def confirm(self, name: str, state: Any, gained: list[Any], done: list[tuple[int, int]]) -> None:
        """A commit returned `state` to a farmer: it is a revision, and contains its claims and results for good."""
        demand(state.revision < len(self.moments), f"{name} believes in revision {state.revision}, which is not there")
        moment = self.moments[state.revision]
        demand(list(state.by) == moment.document["by"], f"{name} believes in another revision {state.revision}")
        for key in done:
            demand(key in moment.ends, f"{name} takes {key} for recorded in revision {state.revision}")
        for one in gained:
            first = moment.document["segments"][one.segment]["first"]
            for task in range(first + one.start, first + one.stop):
                held = (name, one.attempt, one.deaths)
                demand(moment.places[task] == held, f"{name} starts task {task}, which is {moment.places[task]}")
        if gained or done:
            folder = self.server.find(moment.path.rpartition("/")[0])
            if isinstance(folder, Folder) and str(state.revision) in folder.entries:
                demand(str(state.revision) in folder.durable, f"{name} starts tasks before {moment.path} is durable")
            self.confirmed = max(self.confirmed, state.revision)

    def confirm_expelled(self, names: list[str], state: Any) -> None:
        """Farmers were expelled by the revision `state`, or before it."""
        left = set(names) & set(self.moments[state.revision].document["farmers"])
        demand(not left, left, "were expelled, and are in the ledger")

    def power_was_lost(self) -> None:
        """The newest remaining revision is the farm; it includes all states that were confirmed to farmers."""
        left = [one for one in self.revisions() if one < len(self.moments)]
        demand(left and max(left) >= self.confirmed, f"revision {self.confirmed} was confirmed; left are {left[-3:]}")
        del self.moments[max(left) + 1 :]

    def revisions(self) -> dict[int, str]:
        ledger = self.server.find(f"{self.path}/ledger")
        assert isinstance(ledger, Folder)
        return {
            int(name): epoch
            for epoch, folder in ledger.entries.items()
            if isinstance(folder, Folder)
            for name, file in folder.entries.items()
            if name.isdigit() and isinstance(file, File) and sealed(bytes(file.data))["farm"] == self.farm
        }

    def unlinked(self, path: str) -> None:
        """A crash between two removals leaves a run of the highest numbers of an epoch."""
        folder, name = path.rsplit("/", 1)
        found = self.server.find(folder)
        if name.isdigit() and isinstance(found, Folder):
            lower = [one for one in found.entries if one.isdigit() and int(one) < int(name)]
            demand(not lower, f"{path} is removed before {lower}")
            demand("tmp" not in found.entries, f"{path} is removed, and its tmp/ is there")

    def nothing_prepared(self, name: str) -> None:
        """After a commit with any result, no request of it is pending that could still change the farm."""
        ledger = self.server.find(f"{self.path}/ledger")
        for epoch in ledger.entries.values() if isinstance(ledger, Folder) else ():
            tmp = epoch.entries.get("tmp") if isinstance(epoch, Folder) else None
            left = [one for one in tmp.entries if one.startswith(name)] if isinstance(tmp, Folder) else []
            demand(not left, f"{left} may still be linked")

    def all_recorded_once(self) -> None:
        """Recount from the files alone: every task has a final result, and each attempt of it one line."""
        number = max(self.revisions())
        demand(
            number == len(self.moments) - 1, f"{number} is the newest revision, {len(self.moments) - 1} was the last"
        )
        document = self.now.document
        counted = self._counted(document)
        results = self.server.find(f"{self.path}/results")
        assert isinstance(results, Folder)
        lines: list[tuple[int, int, str]] = []
        total = 0
        for name in results.entries:
            match = JOURNAL.fullmatch(name)
            demand(match, name, "is no journal")
            assert match is not None
            size = counted[match[1]] if match[1] in counted else int(match[2] or 0)
            file = self.journal(name)
            assert file is not None
            demand(len(file.data) >= size, f"{name} has {len(file.data)} bytes, {size} count")
            lines += result_lines(name, bytes(file.data[:size]))
            total += size
        demand(total == document["closed_bytes"] + sum(counted.values()), "the bytes that count are not all there")
        ends = [(task, attempt) for task, attempt, outcome in lines if outcome != "returned"]
        demand(len(ends) == len(set(ends)), "an attempt is recorded twice")
        last = {task: ENDED[outcome] for task, _, outcome in sorted(lines) if outcome != "returned"}
        tasks = sum(segment["tasks"] for segment in document["segments"])
        demand(sorted(last) == list(range(tasks)), "of", tasks, "tasks are recorded", sorted(last))
        demand(
            all(place in ("finished", "failed") for place, _, _ in self.now.places.values()), "a task is not recorded"
        )
        demand(len(ends) <= tasks + self.retried, len(ends), "ends of", tasks, "tasks,", self.retried, "retried")
        for outcome in ("finished", "failed"):
            demand(list(last.values()).count(outcome) == document[outcome], "the ledger miscounts", outcome)


def result_lines(name: str, data: bytes) -> list[tuple[int, int, str]]:
    lines = data.split(b"\n")
    demand(lines.pop() == b"", name, "ends with a torn line that counts")
    found = []
    for line in lines:
        body, _, crc = line.rpartition(b" ")
        words = body.decode().split(" ") if crc == b"%08x" % zlib.crc32(body) else []
        demand(len(words) == 12, name, "has a damaged line that counts")
        found.append((int(words[0]), int(words[1]), words[5]))
    return found
