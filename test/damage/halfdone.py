"""A farm that is half done, with every kind of file that a farm can have, and what is true of it.

Made once by real farmers, then copied for each case. Three farmers were killed at work: one whose process
was here, one that had said farewell, and one of another node, of which only its silence tells.
"""

from __future__ import annotations

import os
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

TEST = Path(__file__).parents[1]
sys.path.insert(0, str(TEST))

from checker import Report, check, sealed  # noqa: E402
from farming import Field, eventually, gate  # noqa: E402

from taskfarmer.formats.results import result_line  # noqa: E402
from taskfarmer.formats.sealed import sealed as seal  # noqa: E402
from taskfarmer.formats.sealed import unsealed  # noqa: E402

NAME = "list.txt"
WORKDIR = f"{NAME}_workdir"
GROWN = (20, 80, 190)
"""How long the list was at each run."""
QUICK = 84
"""Tasks from here on wait for the file `hold` to go away."""
FAILING = frozenset((3, 17, 82, 100, 189))
LEASE = 2


def command(number: int) -> str:
    hold = "while [ -e hold ]; do sleep 0.05; done; " if number >= QUICK else ""
    # tasks that last let a farmer take fewer at a time, so that there are some for the others
    hold += "sleep 1; " if 20 <= number < 28 else ""
    return f"{hold}echo $TASKFARMER_ATTEMPT >> ran/$PROC_NUMBER; {'false' if number in FAILING else 'true'}"


@dataclass(frozen=True)
class HalfDone:
    """The farm in `folder`, and what the independent checker says of it."""

    folder: Path
    counts: dict[str, int]
    state: dict[str, Any]
    farm: dict[str, Any]
    newest: Path
    """The newest revision's path in the farm."""
    here: str
    farewell: str
    elsewhere: str
    """The three farmers that were killed."""

    @property
    def workdir(self) -> Path:
        return self.folder / WORKDIR

    def copy(self, folder: Path) -> Path:
        """The same again in `folder`; its work directory."""
        shutil.copytree(self.folder, folder, symlinks=True)
        return folder / WORKDIR

    def whole(self, report: Report) -> bool:
        """Whether a farm came to the end that the list must have."""
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
    return dress(folder)


def all_hold_and_one_counts(workdir: Path) -> bool:
    entries = check(workdir).state["farmers"].values()
    return len(entries) == 3 and all(entry[1] for entry in entries) and any(entry[2] for entry in entries)


def dress(folder: Path) -> HalfDone:
    """Add what farmers leave only in rare moments, and look at the whole."""
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
        # it had ended, and was not told any more; then a line that was torn
        line = result_line(
            held, report.attempts[held], 0, 1000.0, 1001.0, b"failed" if held in FAILING else b"finished"
        )
        journal.write(line + line[:20])
    newest = Path(report.revision_file)
    prepared = workdir / "ledger" / report.state["epoch"] / "tmp" / f"{elsewhere}.9.0a1b2c3d"
    prepared.write_bytes(newest.read_bytes())
    # who was killed between a commit and its hint leaves an older one, and nobody sees that the newest is missing
    hint = f"{newest.parent.name} {newest.name}".ljust(63) + "\n"
    (workdir / "ledger" / "HEAD").write_text(hint)
    (workdir / "lock").touch()
    report = check(workdir)
    assert report.problems == []
    kinds = ("finished", "failed", "unprocessed", "held")
    counts = {kind: len(getattr(report, kind)) for kind in kinds} | {"tasks": len(report.tasks)}
    return HalfDone(folder, counts, report.state, report.farm, newest.relative_to(workdir), here, farewell, elsewhere)


def report_holder(report: Report, task: int, farmer: str) -> bool:
    """Whether `farmer` holds this task, by the words of its claims."""
    from checker import intervals

    return task in {one for one, _ in intervals(report.state["farmers"][farmer][1], report.state)}


__all__ = ["HalfDone", "make", "os", "sealed"]
