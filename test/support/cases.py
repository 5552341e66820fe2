"""One case: a copy of the half-done farm, one damage, every verb, and the faults in their reactions."""

from __future__ import annotations

import json
import os
import random
import re
import shutil
import signal
import time
import traceback
from dataclasses import dataclass, field
from pathlib import Path

from support import damages, verbs
from support.checker import Report, check
from support.halfdone import NAME, WORKDIR, HalfDone
from support.verbs import Done

STATUSES = (0, 1, 2, 74, 75)
REMEDY = re.compile(
    r"restore|-w\b|taskfarmer check|--repair|some space|some the directory|name the work directory|move (it|them) away"
    r"|remove (it|them)|run the list|empty folder will do|create an empty directory"
)
UNREAD = ("tmp", "farmers", "logs")
RUN = ("run", NAME, "-n", "4", "--wait", "--timeout", "15")


@dataclass
class Case:
    kind: str
    damage: str
    seed: int = 0
    faults: list[str] = field(default_factory=list)
    exact: bool = False
    """Whether the farm was completed without repairing the damage."""
    seconds: float = 0.0

    @property
    def name(self) -> str:
        return f"{self.kind}: {self.damage}" + (f" (seed {self.seed})" if self.seed else "")


def all_cases(half: HalfDone) -> list[Case]:
    found = []
    for kind in damages.files(half):
        for damage in damages.OF_FILES:
            flips = damages.FLIPS if damage == "a bit flipped" else 1
            found += [Case(kind, damage, seed) for seed in range(flips)]
    found += [Case(kind, damage) for kind in damages.folders(half) for damage in damages.OF_FOLDERS]
    return found


class Trial:
    """A running case in a private folder."""

    def __init__(self, half: HalfDone, other: HalfDone, case: Case, folder: Path) -> None:
        self.half = half
        self.other = other
        self.case = case
        self.folder = folder
        self.path = {**damages.files(half), **damages.folders(half)}[case.kind]
        self.of_file = case.kind in damages.files(half)
        self.changed = True

    # --- copies --------------------------------------------------------------------------------

    def damaged(self, name: str) -> Path:
        """Create a copy with the damage, and return its folder."""
        folder = self.folder / name
        target = self.half.copy(folder) / self.path
        before = target.read_bytes() if target.is_file() else None
        rng = random.Random(f"{self.case.name}")
        if not target.exists():
            target.write_bytes(b"")
        function = (damages.OF_FILES if self.of_file else damages.OF_FOLDERS)[self.case.damage]
        function(target, damages.other_path(self.half, self.other, self.case.kind), rng)
        self.changed = not (target.is_file() and target.stat().st_mode & 0o777 and target.read_bytes() == before)
        return folder

    def restore(self, folder: Path) -> None:
        """Restore the file from the intact farm, as from a snapshot."""
        source, target = self.half.workdir / self.path, folder / WORKDIR / self.path
        # a journal has its length in its name after a change of epoch
        target = next(iter(target.parent.glob(f"{target.name}.*[0-9]")), target)
        if target.is_symlink() or (target.exists() and not target.is_dir()):
            target.chmod(0o600) if not target.is_symlink() else None
            target.unlink()
        elif target.exists():
            target.chmod(0o700)
            shutil.rmtree(target)
        if source.is_dir():
            shutil.copytree(source, target)
        elif source.exists():
            shutil.copyfile(source, target)

    def read(self, folder: Path, views: bool = False) -> Report:
        """The report of the independent checker, without FIFOs, on which it would block."""
        fifos = [path for path in (folder / WORKDIR).rglob("*") if path.is_fifo()]
        # the checker does not read these
        fifos = [one for one in fifos if one.name not in ("HEAD", "lock", *UNREAD) and one.parent.name not in UNREAD]
        if fifos:
            return Report([f"{fifos[0]} is a FIFO"])
        return check(folder / WORKDIR, views)

    # --- judging -------------------------------------------------------------------------------

    def fault(self, done: Done | None, text: str) -> None:
        what = f"{done.verb} ({done.status}): " if done else ""
        said = f"\n        {done.said[-600:].strip()}" if done else ""
        self.case.faults.append(f"{what}{text}{said}")

    def sane(self, done: Done) -> bool:
        if done.hung:
            self.fault(done, "hung")
        elif "Traceback" in done.said or done.status not in STATUSES:
            self.fault(done, "is not an ordinary exit")
        return done.status in STATUSES

    def names_it(self, done: Done, text: str = "") -> bool:
        """Whether the damaged file, or a folder that it is in, is named."""
        folder_is_enough = self.case.kind in ("closed journal", "older revision")
        path = str(Path(self.path).parent if folder_is_enough else self.path)
        return any(path in line for line in (text or done.said).splitlines())

    def refused_well(self, done: Done) -> None:
        if not self.names_it(done):
            self.fault(done, f"does not name {self.path}")
        if not REMEDY.search(done.said):
            self.fault(done, "does not contain a remedy")

    def judge(self, whole: bool) -> Case:
        """Try the verbs that only read, and all verbs if the case is to be tried as a `whole`."""
        start = time.monotonic()
        try:
            self.read_only()
            if whole:
                self.repair()
                self.retry()
                self.run()
        except Exception:
            self.fault(None, traceback.format_exc())
        self.case.seconds = time.monotonic() - start
        return self.case

    def read_only(self) -> None:
        folder = self.damaged("read")
        for words in (("status", WORKDIR), ("status", WORKDIR, "--json")):
            done = verbs.verb(folder, *words)
            if self.sane(done) and done.status:
                self.refused_well(done)
            elif done.status == 0 and "--json" in words:
                self.right_counts(done)
        done = verbs.verb(folder, "check", WORKDIR)
        if self.sane(done):
            self.checked(done)
        for words in (("logs", WORKDIR, "3"), ("logs", WORKDIR, "--failed")):
            done = verbs.verb(folder, *words)
            if self.sane(done) and done.status not in (0, 1):
                self.refused_well(done)

    def right_counts(self, done: Done) -> None:
        document = json.loads(done.out)
        shown = {name: document[name] for name in self.half.counts}
        if shown != self.half.counts:
            self.fault(done, f"shows {shown}, not {self.half.counts}")

    def checked(self, done: Done) -> None:
        matters = self.case.kind not in damages.NOTHING_TO_REPORT and self.changed
        if self.case.kind == "open journal":
            path = self.half.workdir / self.path
            counted = self.half.state["farmers"][self.half.here][2]
            damaged = self.folder / "read" / WORKDIR / self.path
            sound = damaged.is_file() and os.access(damaged, os.R_OK) and damaged.stat().st_mode & 0o777
            matters = not (sound and damaged.read_bytes()[:counted] == path.read_bytes()[:counted])
        if self.case.kind == "timeline.json" and self.case.damage == "a bit flipped":
            matters = slices(self.half.workdir / self.path) != slices(self.folder / "read" / WORKDIR / self.path)
        if self.case.damage == "of another farm" and self.case.kind.endswith("journal"):
            # its lines are for the same tasks, and may equal those of this farm
            matters = bool(self.read(self.folder / "read").problems)
        if self.case.kind == "older epoch" and self.case.damage == "gone":
            matters = False  # removing an old epoch is legal
        errors = [line for line in done.out.splitlines() if line.startswith(("error:", "note:"))]
        if matters and not done.status and not any(self.path in line for line in errors):
            self.fault(done, "does not report the damage")
        elif matters and not self.names_it(done):
            self.fault(done, f"does not name {self.path}")
        if done.status and not REMEDY.search(done.said):
            self.fault(done, "does not contain a remedy")

    def repair(self) -> None:
        folder = self.damaged("repair")
        done = verbs.verb(folder, "check", WORKDIR, "--repair")
        if not self.sane(done) or done.status:
            return
        found = self.read(folder, views="were rebuilt" in done.out)
        if found.problems and self.case.kind not in ("older revision", "older epoch"):
            self.fault(done, f"leaves {found.problems}")

    def retry(self) -> None:
        folder = self.damaged("retry")
        done = verbs.verb(folder, "retry", WORKDIR, "--failed")
        if not self.sane(done):
            return
        if done.status:
            self.refused_well(done)
            return
        found = self.read(folder)
        if found.problems and self.case.kind not in ("older revision", "older epoch", "open journal"):
            self.fault(done, f"leaves {found.problems}")
        elif not found.problems and found.failed:
            self.fault(done, f"leaves {len(found.failed)} failed tasks")

    def run(self) -> None:
        folder = self.damaged("run")
        done = verbs.run(folder, *RUN)
        if not self.sane(done):
            return
        found = self.read(folder, views=True)
        older = self.case.kind in ("older revision", "older epoch")
        self.case.exact = self.half.is_complete(found) or (older and done.status == 1)
        if self.case.exact and done.status == 1:
            return
        if self.case.kind in damages.HARMLESS:
            self.fault(done, f"is not harmless: {found.problems}")
            return
        if done.status in (0, 1):
            self.fault(done, f"ends well, and leaves {found.problems}, {len(found.held)} held")
            return
        self.refused_well(done)
        self.restore(folder)
        done = verbs.run(folder, *RUN)
        if self.sane(done):
            found = self.read(folder, views=True)
            if done.status != 1 or not self.half.is_complete(found):
                self.fault(done, f"does not come to the end when the file is restored: {found.problems}")


def slices(path: Path) -> list[tuple[object, ...]] | None:
    """Farmer, task and attempt of each slice in a timeline; the times in it are only for display."""
    try:
        events = json.loads(path.read_bytes())
        shown = [event for event in events if event["ph"] == "X"]
        return [(one["pid"], one["args"]["id"], one["args"]["attempt"]) for one in shown]
    except (KeyError, TypeError, ValueError):
        return None


def play(
    half: HalfDone, other: HalfDone, cases: list[Case], folder: Path, processes: int, whole: bool = True
) -> list[Case]:
    """Run several cases at a time, each in a forked process."""
    waiting = list(enumerate(cases))
    running: dict[int, tuple[int, Path]] = {}
    done: list[Case] = []
    while waiting or running:
        while waiting and len(running) < processes:
            number, case = waiting.pop(0)
            place = folder / str(number)
            place.mkdir()
            pid = os.fork()
            if not pid:
                _play_one(half, other, case, place, whole)
            running[pid] = number, place
        pid = next(iter(running))
        pid, _ = os.waitpid(pid, 0) if len(running) == 1 else _any_of(running)
        number, place = running.pop(pid)
        found = place / "case.json"
        result = json.loads(found.read_text()) if found.exists() else {"faults": ["the trial itself died"]}
        done.append(Case(cases[number].kind, cases[number].damage, cases[number].seed, **result))
        for path in place.rglob("*"):
            if not path.is_symlink() and not path.stat().st_mode & 0o400:
                path.chmod(0o700)
        shutil.rmtree(place)
    return done


def _any_of(running: dict[int, tuple[int, Path]]) -> tuple[int, int]:
    while True:
        for pid in running:
            found, status = os.waitpid(pid, os.WNOHANG)
            if found:
                return found, status
        time.sleep(0.01)


def _play_one(half: HalfDone, other: HalfDone, case: Case, place: Path, whole: bool) -> None:
    try:
        signal.alarm(4 * verbs.LIMIT)
        Trial(half, other, case, place).judge(whole)
        result = {"faults": case.faults, "exact": case.exact, "seconds": case.seconds}
        (place / "case.json").write_text(json.dumps(result))
    finally:
        os._exit(0)
