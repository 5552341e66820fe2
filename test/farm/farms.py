"""A user's folder, the farm in it, and farmers as processes.

Whatever a test starts carries a mark in its environment; it is found by that, and ended by its pid.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

TEST = Path(__file__).parents[1]
sys.path.insert(0, str(TEST))

from checker import Report, check  # noqa: E402
from farming import children, eventually, lives, send  # noqa: E402

MARK = "TASKFARMER_TEST_MARK"
SECONDS = 60.0


def command_line() -> list[str]:
    return [sys.executable, "-m", "taskfarmer", "run"]


class Farmer:
    """A process of `taskfarmer run`, and what it says."""

    def __init__(self, words: Sequence[str], cwd: Path, environment: Mapping[bytes, bytes], log: Path) -> None:
        self.log = log
        with open(log, "wb") as file:
            self.process = subprocess.Popen(
                words, cwd=cwd, env=environment, stdin=subprocess.PIPE, stdout=file, stderr=file
            )
        assert self.process.stdin is not None
        # it has a line to read: a task that read it would take it away from the user's terminal
        self.process.stdin.write(b"typed by the user\n")
        self.process.stdin.close()

    @property
    def pid(self) -> int:
        return self.process.pid

    @property
    def said(self) -> str:
        return self.log.read_text(errors="replace")

    @property
    def ended(self) -> bool:
        return self.process.poll() is not None

    def workers(self) -> list[int]:
        """The pids of its workers; of a task that it has adopted too."""
        return children(self.pid)

    def signal(self, number: int) -> None:
        if not self.ended:
            send(self.pid, number)

    def wait(self, seconds: float = SECONDS) -> int:
        """The exit status, negative for a signal."""
        try:
            return self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"the farmer did not end within {seconds} s; it said:\n{self.said}") from None

    def says(self, text: str, seconds: float = SECONDS) -> None:
        """Wait until it has said `text`."""
        eventually(lambda: text in self.said or self.ended, lambda: f"{text!r} in:\n{self.said}", seconds)
        assert text in self.said, self.said


class Farm:
    """A folder with a task list, the farm of that list, and its farmers."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.list = folder / "tasks.txt"
        self.workdir = folder / "tasks.txt_workdir"
        self.started = folder / "started"
        self.started.mkdir()
        self.mark = uuid.uuid4().hex
        self.farmers: list[Farmer] = []
        self.environment: dict[str, str] = {}

    # --- the list ------------------------------------------------------------------------------

    def write(self, *commands: str | bytes) -> None:
        """Make the task list out of commands, a line each."""
        self.list.write_bytes(b"".join(os.fsencode(command) + b"\n" for command in commands))

    def append(self, text: str | bytes) -> None:
        with open(self.list, "ab") as file:
            file.write(os.fsencode(text))

    def age_list(self) -> None:
        """Let the list look as if it was changed last an hour ago."""
        then = time.time() - 3600
        os.utime(self.list, (then, then))

    def begun(self, command: str) -> str:
        """The command with a word in front that says that it runs: the file `started/ID`."""
        return f": > {self.started}/$PROC_NUMBER; {command}"

    def wait_for_tasks(self, *ids: int) -> None:
        """Wait until all of these run, by their own witness."""
        names = {str(number) for number in ids}
        eventually(lambda: names <= set(os.listdir(self.started)), lambda: f"tasks {sorted(names)} run; {self._said()}")

    def _said(self) -> str:
        return "\n".join(farmer.said for farmer in self.farmers)

    # --- farmers -------------------------------------------------------------------------------

    def start(
        self,
        *options: object,
        tasklist: object = None,
        before: Sequence[str] = (),
        cwd: Path | None = None,
        environment: Mapping[str, str] | None = None,
        words: Sequence[str] | None = None,
    ) -> Farmer:
        """Start a farmer on the list. `before` is a program to start it with, `words` another command line."""
        variables = {
            name: value for name, value in os.environ.items() if name not in ("SCRATCH", "TASKFARMER_CONFIG_DIR")
        }
        variables |= {"PYTHONPATH": str(TEST.parent), "HOME": str(self.folder), MARK: self.mark}
        variables |= self.environment | dict(environment or {})
        line = words if words is not None else [*command_line(), str(tasklist or self.list), *map(str, options)]
        farmer = Farmer(
            [*before, *line],
            cwd or self.folder,
            {os.fsencode(name): os.fsencode(value) for name, value in variables.items()},
            self.folder / f"farmer-{len(self.farmers)}.err",
        )
        self.farmers.append(farmer)
        return farmer

    def run(self, *options: object, seconds: float = SECONDS, **more: Any) -> Farmer:
        """Start a farmer and wait for its end."""
        farmer = self.start(*options, **more)
        farmer.wait(seconds)
        return farmer

    def processes(self) -> list[int]:
        """Everything alive that came out of this test."""
        found = []
        mark = f"{MARK}={self.mark}\0".encode()
        for name in filter(str.isdigit, os.listdir("/proc")):
            try:
                if mark in Path(f"/proc/{name}/environ").read_bytes() and lives(int(name)):
                    found.append(int(name))
            except OSError:
                continue
        return found

    def no_survivors(self, seconds: float = 0.0) -> None:
        """Assert that no process is left; within `seconds` where ends are not waited for by anybody."""
        end = time.monotonic() + seconds
        while self.processes() and time.monotonic() < end:
            time.sleep(0.02)
        left = {pid: words_of(pid) for pid in self.processes()}
        assert not left, f"{left}; {self._said()}"

    def close(self) -> None:
        end = time.monotonic() + 20
        while left := self.processes():
            for pid in left:
                send(pid, signal.SIGKILL)
            assert time.monotonic() < end, left
            time.sleep(0.02)
        for farmer in self.farmers:
            farmer.process.wait(20)

    # --- the farm ------------------------------------------------------------------------------

    def log(self, task: int) -> str:
        return os.fsdecode((self.workdir / "logs" / f"log_{task}").read_bytes())

    def view(self, name: str) -> dict[int, bytes]:
        """A view as it stands: commands by ID. No ID may be there twice."""
        pairs = [line.split(b" ", 1) for line in (self.workdir / name).read_bytes().split(b"\n")[:-1]]
        found = {int(pair[0]): pair[1] for pair in pairs}
        assert len(found) == len(pairs)
        return found

    def places(self) -> tuple[list[int], list[int], list[int]]:
        """The IDs in `toprocess`, `finished` and `failed`, sorted."""
        names = ("toprocess", "finished", "failed")
        return tuple(sorted(self.view(name)) for name in names)  # type: ignore[return-value]

    def slices(self) -> list[dict[str, Any]]:
        """The attempts in the timeline."""
        return [event for event in self.timeline() if event["ph"] == "X"]

    def timeline(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = json.loads((self.workdir / "timeline.json").read_bytes())
        return found

    def check(self, views: bool = True) -> Report:
        """Let the independent checker read the farm; it must find nothing."""
        report = check(self.workdir, views)
        assert report.problems == [], self._said()
        return report

    def attempts(self, task: int) -> list[tuple[int, str]]:
        """(attempt, outcome) of every result of a task, by the checker."""
        return sorted((line.attempt, line.outcome) for line in self.check().lines if line.task == task)


def words_of(pid: int) -> bytes:
    """The words of a process, each with a zero byte after it; empty if the process has ended."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""
