"""A farmer that is killed at, or refused, each system call by which it changes a file of its farm.

`strace` first shows which calls those are, in the farmer's own process and nowhere else, and then injects a
SIGKILL, or an error, into the n-th of them. A clean farmer must then end the list: every task recorded
once, each one run, the views exact, by a checker that reads the files. What CI runs is a fixed share of
the points; `pytest -m campaign test/crash` runs all of them.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1]))

from checker import check
from farming import need

TASKS = 14
CALLS = (
    "openat",
    "write",
    "pwrite64",
    "fsync",
    "close",
    "link",
    "rename",
    "unlink",
    "mkdir",
    "rmdir",
    "ftruncate",
)
ERRORS = ("ENOSPC", "EIO", "ESTALE", "EDQUOT")
SHARE = 24
ANSWERS = {0, 1, 2, 74, 75}


class Victim:
    """A list whose tasks leave a witness each, and farmers on it, under strace or not."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.list = folder / "list"
        self.workdir = folder / "farm"
        self.ran = folder / "ran"
        self.ran.mkdir()
        # the last one runs alone for a while, so that a heartbeat becomes shorter than the one before
        seconds = [0.1] * (TASKS - 1) + [0.8]
        lines = (f"sleep {seconds[number]}; echo x >> {self.ran}/{number}\n" for number in range(TASKS))
        self.list.write_text("".join(lines))

    def run(self, *before: str, options: tuple[str, ...] = ()) -> subprocess.CompletedProcess[str]:
        variables = {name: value for name, value in os.environ.items() if name != "SCRATCH"}
        variables["PYTHONPATH"] = str(Path(__file__).parents[2])
        words = [sys.executable, "-m", "taskfarmer", "run", str(self.list), "-w", str(self.workdir), "-n", "2"]
        return subprocess.run(
            [*before, *words, "--grace", "1", "--epoch-length", "2", "--lease", "4", *options],
            capture_output=True,
            text=True,
            errors="replace",
            env=variables,
            stdin=subprocess.DEVNULL,
            timeout=120,
        )

    def calls(self, call: str) -> list[int]:
        """Which of the farmer's calls of that name, counted from 1, concern the farm and may change it."""
        log = self.folder / "strace"
        self.run("strace", "-qq", "-y", "-o", str(log), "-e", f"trace={call}")
        lines = [line for line in log.read_text(errors="replace").splitlines() if re.match(rf"{call}\(", line)]
        found = []
        for number, line in enumerate(lines, start=1):
            if str(self.workdir) in line and not (call == "openat" and "O_CREAT" not in line):
                found.append(number)
        return found

    def end(self) -> None:
        """A clean farmer ends the list, and nothing is lost, twice, or shown wrongly."""
        last = self.run(options=("--wait",))
        assert last.returncode == 0, last.stderr
        report = check(self.workdir, views=True)
        assert report.problems == [], (report.problems, last.stderr)
        assert report.finished == set(range(TASKS))
        assert {int(path.name) for path in self.ran.iterdir()} == set(range(TASKS))


def points(tmp_path: Path, call: str) -> list[int]:
    need(shutil.which("strace"), "strace is not installed")
    folder = tmp_path / "look"
    folder.mkdir()
    return Victim(folder).calls(call)


def strike(tmp_path: Path, call: str, what: str, share: int) -> None:
    """Inject at every `share`-th point; the first and the last are always among them."""
    numbers = points(tmp_path, call)
    assert numbers, f"a farmer makes no {call} in its farm"
    chosen = sorted({*numbers[::share], numbers[-1]})
    struck = 0
    for number in chosen:
        folder = tmp_path / f"{call}-{number}"
        folder.mkdir()
        victim = Victim(folder)
        hit = victim.run(
            "strace", "-qq", "-o", "/dev/null", "-e", f"trace={call}", "-e", f"inject={call}:{what}:when={number}"
        )
        killed = hit.returncode in (-9, 137)
        struck += killed or what.startswith("error")
        assert killed or hit.returncode in ANSWERS, (number, hit.returncode, hit.stderr)
        assert "Traceback" not in hit.stderr, (number, hit.stderr)
        try:
            victim.end()
        except AssertionError as error:
            raise AssertionError(
                f"{call} {what} at point {number}: {error}; the first farmer said: {hit.stderr}"
            ) from error
        shutil.rmtree(folder)
    assert struck
    print(f"{call} {what}: {len(chosen)} of {len(numbers)} points, {struck} struck")


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.timeout(600)
def test_a_farmer_killed_at_a_call_loses_nothing_and_records_nothing_twice(tmp_path: Path, call: str) -> None:
    strike(tmp_path, call, "signal=SIGKILL", SHARE)


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.timeout(600)
def test_a_farmer_whose_call_fails_once_loses_nothing_and_records_nothing_twice(tmp_path: Path, call: str) -> None:
    strike(tmp_path, call, f"error={ERRORS[CALLS.index(call) % len(ERRORS)]}", SHARE)


@pytest.mark.campaign
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("what", ["signal=SIGKILL", *(f"error={error}" for error in ERRORS)])
def test_every_point_of_every_call(tmp_path: Path, call: str, what: str) -> None:
    strike(tmp_path, call, what, 1)
