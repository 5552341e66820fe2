"""A half-done farm with every kind of file that a farm can have, and its true state.

Real farmers create it once; each case gets a copy. Three farmers were killed at work: one was a process on this node,
one had left a farewell note, and one was on another node, so that only its silence shows that it is dead.
"""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from support.checker import Report, check, sealed
from support.farming import Field, eventually, gate
from taskfarmer.formats.results import result_line
from taskfarmer.formats.sealed import sealed as seal
from taskfarmer.formats.sealed import unsealed

TEST = Path(__file__).parents[1]

NAME = "list.txt"
WORKDIR = f"{NAME}_workdir"
GROWN = (20, 80, 190)
"""The length of the list at each run."""
QUICK = 84
"""Tasks from this number on wait until the file `hold` is removed."""
FAILING = frozenset((3, 17, 82, 100, 189))
LEASE = 2


def command(number: int) -> str:
    hold = "while [ -e hold ]; do sleep 0.05; done; " if number >= QUICK else ""
    # long tasks make a farmer claim fewer at a time, so that the others get some
    hold += "sleep 1; " if 20 <= number < 28 else ""
    return f"{hold}echo $TASKFARMER_ATTEMPT >> ran/$PROC_NUMBER; {'false' if number in FAILING else 'true'}"


@dataclass(frozen=True)
class HalfDone:
    """The farm in `folder`, and the report of the independent checker on it."""

    folder: Path
    counts: dict[str, int]
    state: dict[str, Any]
    farm: dict[str, Any]
    newest: Path
    """The path of the newest revision in the farm."""
    here: str
    farewell: str
    elsewhere: str
    """The three farmers that were killed."""

    @property
    def workdir(self) -> Path:
        return self.folder / WORKDIR

    def copy(self, folder: Path) -> Path:
        """Copy the farm to `folder`; the work directory of the copy."""
        shutil.copytree(self.folder, folder, symlinks=True)
        return folder / WORKDIR

    def is_complete(self, report: Report) -> bool:
        """Whether the farm has reached the end state that the list demands."""
        every = set(range(GROWN[-1]))
        return not report.problems and report.failed == FAILING and report.finished == every - FAILING


def make(folder: Path) -> HalfDone:
    field = Field(folder, NAME)
    try:
        for count in GROWN[:-1]:
            field.write(map(command, range(count)))
            options = ("-n", 2, "--epoch-length", 12, "--lease", LEASE)
            farmer = field.run(*options)
            assert farmer.process.returncode == 1, farmer.said
        (folder / "hold").touch()
        field.write(map(command, range(GROWN[-1])))
        with gate(folder / "gate") as closed:
            victims = [field.start("-n", 2, "--wait", after=closed) for _ in range(3)]
        eventually(lambda: all_hold_and_one_counts(folder / WORKDIR), "three farmers at work", 60)
        for victim in victims:
            victim.kill_tree()
        eventually(lambda: not field.strays(), "the end of all tasks")
    finally:
        field.close()
    (folder / "hold").unlink()
    (folder / "gate").unlink()
    for log in folder.glob("farmer-*.err"):
        log.unlink()
    return add_rare_files(folder)


def all_hold_and_one_counts(workdir: Path) -> bool:
    entries = check(workdir).state["farmers"].values()
    return len(entries) == 3 and all(entry[1] for entry in entries) and any(entry[2] for entry in entries)


def add_rare_files(folder: Path) -> HalfDone:
    """Add the files that farmers leave only in rare situations, and check the farm."""
    workdir = folder / WORKDIR
    report = check(workdir)
    entries = report.state["farmers"]
    here, farewell, elsewhere = sorted(entries, key=lambda name: -entries[name][2])
    (workdir / "farmers" / f"{farewell}.farewell").write_bytes(b"farewell\n")
    identity = workdir / "farmers" / f"{elsewhere}.json"
    document = unsealed(identity.read_bytes())
    assert document is not None
    identity.write_bytes(seal({**document, "host": "elsewhere", "boot": "11111111-2222-3333-4444-555555555555"}))
    held = min(task for task in report.held if report_holder(report, task, here))
    with open(workdir / "results" / here, "ab") as journal:
        # its tasks had finished, but the results were not reported any more; then comes a torn line
        line = result_line(
            held, report.attempts[held], 0, 1000.0, 1001.0, b"failed" if held in FAILING else b"finished"
        )
        journal.write(line + line[:20])
    newest = Path(report.revision_file)
    prepared = workdir / "ledger" / report.state["epoch"] / "tmp" / f"{elsewhere}.9.0a1b2c3d"
    prepared.write_bytes(newest.read_bytes())
    # a farmer killed between a commit and its hint leaves an older hint, and readers cannot see that the newest
    # revision is missing
    hint = f"{newest.parent.name} {newest.name}".ljust(63) + "\n"
    (workdir / "ledger" / "HEAD").write_text(hint)
    (workdir / "lock").touch()
    report = check(workdir)
    assert report.problems == []
    kinds = ("finished", "failed", "unprocessed", "held")
    counts = {kind: len(getattr(report, kind)) for kind in kinds} | {"tasks": len(report.tasks)}
    return HalfDone(folder, counts, report.state, report.farm, newest.relative_to(workdir), here, farewell, elsewhere)


def report_holder(report: Report, task: int, farmer: str) -> bool:
    """Whether `farmer` holds this task according to its claims."""
    from support.checker import intervals

    return task in {one for one, _ in intervals(report.state["farmers"][farmer][1], report.state)}


__all__ = ["HalfDone", "make", "os", "sealed"]
