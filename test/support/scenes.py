"""A farm, a farmer in one of its states, and a way to stop it: the cells of the interruption matrix."""

from __future__ import annotations

import fcntl
import os
import signal
import subprocess
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from support.farming import eventually, is_running
from support.farms import TEST, Farm, Farmer

DONE, AGAIN = 0, 75
MANY = 256
FARMER_MARK = "TASKFARMER_TEST_FARMER"

# Python imports this first. At one point of the farmer's life, an audit event with a word in its arguments, the farmer
# waits for the file `pass`. So it stays in that state for as long as the test wants, and runs unchanged code.
POINT = """
import os, sys, time

def watch(name, word, count, folder, armed):
    left, me = int(count), os.getpid()

    def at(event, arguments):
        nonlocal left
        if event != name or os.getpid() != me or left < 1 or word not in str(arguments[:2]):
            return
        if armed and not os.path.exists(folder + "/armed"):
            return
        left -= 1
        if not left:
            os.close(os.open(folder + "/at", os.O_CREAT | os.O_WRONLY))
            while not os.path.exists(folder + "/pass"):
                time.sleep(0.01)

    sys.addaudithook(at)

if "TEST_POINT" in os.environ:
    watch(*os.environ.pop("TEST_POINT").split("|"))
"""
RUNNER = """
import subprocess

from taskfarmer.runners import Runner


class Mine(Runner):
    def run(self, taskid, command, logfh):
        self.program = subprocess.Popen(["/bin/bash", "-c", command], stdout=logfh, stderr=logfh)
        return self.program.wait()

    def terminate(self):
        self.program.terminate()
"""

# {} waits until the test releases all tasks
KINDS = {
    "plain": "exec {}",
    "ignores SIGTERM": "trap '' TERM; {}",
    "calls setsid": "setsid {} & setsid --wait {}; wait",
    "forks twice": "(setsid {} &) ; {}",
    "256 at once": "exec {}",
    "a pipeline": "set -o pipefail; {} | cat | sort",
    "own runner": "{}",
}
STOPS = (
    "SIGUSR1",
    "SIGTERM",
    "SIGINT",
    "SIGINT twice",
    "SIGHUP",
    "--timeout",
    "SIGKILL",
    "SIGSTOP SIGCONT",
    "SIGSTOP SIGUSR1 SIGCONT",
)
GOES_ON = "SIGSTOP SIGCONT"
"""After these stops the farmer continues as before."""


@dataclass(frozen=True)
class Cell:
    state: str
    stop: str
    kind: str

    @property
    def many(self) -> bool:
        return self.kind == "256 at once"


class TooEarly(Exception):
    """The timeout expired before the farmer reached its state."""


class Scene:
    """A farm for one cell, the farmer that is stopped, and the locks ("doors") that its tasks wait for."""

    def __init__(self, cell: Cell, folder: Path, timeout: float) -> None:
        folder.mkdir()
        self.cell = cell
        self.farm = Farm(folder)
        self.point = folder / "point"
        self.point.mkdir()
        (self.point / "sitecustomize.py").write_text(POINT)
        (folder / "myrunner.py").write_text(RUNNER)
        (folder / "mine.ini").write_text("[mine]\nRunner = myrunner.Mine\n")
        self.doors = {name: os.open(folder / name, os.O_CREAT | os.O_RDWR) for name in ("long", "short")}
        for door in self.doors.values():
            fcntl.flock(door, fcntl.LOCK_EX)
        self.stays = MANY if cell.many else 3
        self.timeout = timeout
        self.grace = 60.0 if cell.stop == "SIGINT twice" else 1.0
        self.status = AGAIN
        self.in_flight: set[int] = set()
        self.peer: Farmer | None = None

    # --- tasks ---------------------------------------------------------------------------------

    def stay(self, kind: str = "") -> str:
        """A task that is in flight until the long door opens."""
        return self.behind("long", KINDS[kind or self.cell.kind])

    def behind(self, door: str, words: str = "{}") -> str:
        wait = f"flock -s {self.farm.folder / door} true"
        return self.farm.marked(words.replace("{}", wait))

    def open(self, *names: str) -> None:
        for name in names:
            if name in self.doors:
                os.close(self.doors.pop(name))

    def runs(self, *ids: int) -> None:
        """Wait until these tasks are in flight."""
        names = {str(number) for number in ids}
        begun = lambda: names <= set(os.listdir(self.farm.started))  # noqa: E731
        eventually(lambda: begun() or self.over(), f"tasks {sorted(names)[:5]}... run", 60)
        self.in_flight = set(ids)

    def over(self) -> bool:
        """Fail if the farmer exited before it reached its state, unless its timeout was too short for that."""
        if self.farmer.ended and self.cell.stop == "--timeout":
            raise TooEarly
        assert not self.farmer.ended, self.farmer.said
        return False

    # --- the farmer ----------------------------------------------------------------------------

    def options(self, slots: int) -> list[object]:
        own = ["-r", "mine", "--config", self.farm.folder / "mine.ini"] if self.cell.kind == "own runner" else []
        return ["-n", slots, "--grace", f"{self.grace:g}", *own]

    def start(
        self, *options: object, slots: int = 0, point: tuple[str, str, int] | None = None, armed: str = ""
    ) -> None:
        """Start the farmer; it waits at `point`: an audit event, a word in it, and the number of such events."""
        self.mark = uuid.uuid4().hex
        environment = {FARMER_MARK: self.mark}
        if point is not None:
            environment["PYTHONPATH"] = f"{self.point}:{TEST.parent}"
            environment["TEST_POINT"] = "|".join((*map(str, point), str(self.point), armed))
        timeout = ["--timeout", self.timeout] if self.cell.stop == "--timeout" else []
        self.begun = time.monotonic()
        self.farmer = self.farm.start(
            *self.options(slots or self.stays),
            *timeout,
            *options,
            before=["env", "--default-signal=HUP,INT,TERM,USR1"],
            environment=environment,
        )

    def at_point(self) -> None:
        eventually((lambda: (self.point / "at").exists() or self.over()), "the farmer is at the point")

    def arm(self) -> None:
        (self.point / "armed").touch()

    def pass_point(self) -> None:
        (self.point / "pass").touch()

    def survivors(self) -> list[int]:
        """The live processes among the farmer and all its descendants."""
        mark = f"{FARMER_MARK}={self.mark}\0".encode()
        found = []
        for pid in self.farm.processes():
            try:
                if mark in Path(f"/proc/{pid}/environ").read_bytes() and is_running(pid):
                    found.append(pid)
            except OSError:
                continue
        return found

    # --- stops ---------------------------------------------------------------------------------

    def stop(self) -> None:
        """Send the stop to the farmer while it is in its state."""
        if self.cell.stop == "--timeout":
            over = self.begun + self.timeout + 1.0
            eventually(lambda: time.monotonic() > over or self.farmer.ended, "the timeout", self.timeout + 30.0)
            return
        for name in self.cell.stop.replace(" twice", "").split():
            self.farmer.signal(signal.Signals[name])
            if name == "SIGSTOP":
                eventually(self.is_stopped, "the farmer stands still")

    def is_stopped(self) -> bool:
        return Path(f"/proc/{self.farmer.pid}/stat").read_text().rpartition(")")[2].split()[0] == "T"

    def finish_stop(self) -> None:
        """Send the rest of the stop: a second signal, for example."""
        if self.cell.stop == "SIGINT twice":
            eventually(
                lambda: "SIGINT: " in self.farmer.said or self.farmer.ended, "the farmer has handled the first SIGINT"
            )
            self.farmer.signal(signal.SIGINT)
        elif self.cell.stop == GOES_ON and self.cell.state != "already stopping":
            self.open("long", "short")
            self.status = DONE

    # --- the end -------------------------------------------------------------------------------

    def judge(self) -> None:
        killed = self.cell.stop == "SIGKILL"
        status = self.farmer.wait(120)
        assert status == (-signal.SIGKILL if killed else self.status), f"exit status {status}: {self.farmer.said}"
        assert "Traceback" not in self.farmer.said
        if killed:
            eventually(lambda: not self.survivors(), "the processes of the killed farmer have exited", 15)
        survivors = self.survivors()
        assert survivors == [], f"{survivors} survive: {self.farmer.said}"
        if self.peer is not None:
            assert not self.peer.ended or self.cell.stop == GOES_ON, self.peer.said
            self.open("long", "short")
            assert self.peer.wait() == DONE, self.peer.said
        if (self.farm.workdir / "farm.json").exists():
            self.judge_farm(killed)
        self.open("long", "short")
        assert self.farm.run(*self.options(self.stays)).wait() == DONE, self.farm.farmers[-1].said
        self.farm.no_survivors()
        report = self.farm.check()
        assert report.finished == set(range(len(report.tasks)))

    def judge_farm(self, killed: bool) -> None:
        report = self.farm.check(views=not killed)
        assert report.failed == set()
        if killed or self.peer is not None:
            return
        assert report.held == set()
        if self.status == DONE:
            assert {line.attempt for line in report.lines} == {1}
            assert report.complete
            return
        assert self.in_flight <= report.unprocessed
        assert {report.attempts[task] for task in self.in_flight} <= {2}
        returned = {line.task for line in report.lines if line.outcome == "returned"}
        assert self.in_flight <= returned

    def close(self) -> None:
        self.open("long", "short")
        if (self.farm.workdir).is_mount():
            subprocess.run(["umount", "-l", str(self.farm.workdir)], check=True)
        self.farm.close()


@contextmanager
def full(disk: Path) -> Iterator[None]:
    """Fill a disk and keep it full inside the block: freed space is filled at once."""
    over, filled = threading.Event(), threading.Event()

    def fill() -> None:
        with open(disk / "filling", "ab", buffering=0) as file:
            while not over.is_set():
                try:
                    file.write(bytes(4096))
                except OSError:
                    filled.set()
                    over.wait(0.001)

    thread = threading.Thread(target=fill)
    thread.start()
    try:
        assert filled.wait(30)
        yield
    finally:
        over.set()
        thread.join()
        (disk / "filling").unlink()
