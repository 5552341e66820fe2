"""A farmer is killed at each system call by which it changes a file of its farm, or the call fails.

`strace` first lists these calls of the farmer's process, and then injects a SIGKILL or an error into the n-th of them.
A farmer without faults must then complete the list: every task ran and is recorded once, and the views are exact,
according to a checker that reads the files. CI runs a tenth of the points, a different tenth for each error; `pytest
-s -m campaign test/crash` runs all of them, and prints their number.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from support.checker import check
from support.farming import need

TASKS = 14
FORMS = {
    "openat": ("openat", "open", "creat"),
    "write": ("write", "writev", "sendfile", "copy_file_range"),
    "pwrite64": ("pwrite64", "pwritev", "pwritev2"),
    "fsync": ("fsync", "fdatasync"),
    "close": ("close",),
    "link": ("link", "linkat"),
    "rename": ("rename", "renameat", "renameat2"),
    "unlink": ("unlink", "unlinkat"),
    "mkdir": ("mkdir", "mkdirat"),
    "rmdir": ("rmdir",),
    "fchmod": ("fchmod", "chmod", "fchmodat"),
}
READING = re.compile(
    "execve|access|faccessat2?|l?stat|fstat|newfstatat|statx|f?statfs|lseek|read|pread64|readlink|readlinkat|getdents64|"
    "ioctl|fcntl|flock|getcwd|dup"
)
WHATS = ("signal=SIGKILL", "error=ENOSPC", "error=EIO", "error=ESTALE", "error=EDQUOT")
SHARE = 10
AT_ONCE = 4
TRIES = 5
ANSWERS = {0, 1, 2, 74, 75}


class Victim:
    """A list whose tasks each leave a file, and farmers on it, with or without strace."""

    def __init__(self, folder: Path, cache: Path) -> None:
        self.folder = folder
        self.cache = cache
        self.list = folder / "list"
        self.workdir = folder / "farm"
        self.ran = folder / "ran"
        self.ran.mkdir()
        # the last task runs alone for a while, so that a heartbeat becomes shorter than the one before
        seconds = [0.1] * (TASKS - 1) + [1.4]
        lines = (f"sleep {seconds[number]}; echo x >> {self.ran}/{number}\n" for number in range(TASKS))
        self.list.write_text("".join(lines))

    def run(self, *before: str, options: tuple[str, ...] = ()) -> subprocess.CompletedProcess[str]:
        variables = {name: value for name, value in os.environ.items() if name != "SCRATCH"}
        variables["PYTHONPATH"] = str(Path(__file__).parents[2])
        # each run imports from the same compiled files, so that its calls have the same numbers
        variables["PYTHONPYCACHEPREFIX"] = str(self.cache)
        variables.pop("PYTHONDONTWRITEBYTECODE", None)
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

    def calls(self) -> dict[str, list[int]]:
        """For each call that may change the farm, the positions (from 1) among the farmer's calls of that name."""
        log = self.folder / "strace"
        self.run("strace", "-qq", "-y", "-o", str(log))
        found: dict[str, list[int]] = {}
        seen: dict[str, int] = {}
        for line in log.read_text(errors="replace").splitlines():
            call, paren, _ = line.partition("(")
            if not paren or call.startswith(("---", "+++")):
                continue
            seen[call] = seen.get(call, 0) + 1
            if str(self.workdir) not in line or READING.fullmatch(call) or (call == "openat" and "O_CREAT" not in line):
                continue
            found.setdefault(call, []).append(seen[call])
        return found

    def end(self) -> None:
        """A farmer without faults completes the list; no task is lost or recorded twice, and the views are exact."""
        last = self.run(options=("--wait",))
        assert last.returncode == 0, last.stderr
        report = check(self.workdir, views=True)
        assert report.problems == [], (report.problems, last.stderr)
        assert report.finished == set(range(TASKS))
        assert {int(path.name) for path in self.ran.iterdir()} == set(range(TASKS))


@pytest.fixture(scope="module")
def points(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[int]]:
    need(shutil.which("strace"), "strace is not installed")
    cache = tmp_path_factory.getbasetemp() / "pycache"
    Victim(tmp_path_factory.mktemp("warm"), cache).run()
    return Victim(tmp_path_factory.mktemp("look"), cache).calls()


def strike(tmp_path: Path, call: str, what: str, number: int) -> bool:
    """Inject a fault at one point, and complete the list; whether the farmer reached the point."""
    folder = tmp_path / f"{call}-{what}-{number}"
    folder.mkdir(parents=True)
    victim = Victim(folder, tmp_path.parent / "pycache")
    hit = victim.run(
        "strace", "-qq", "-o", str(folder / "hit"), "-e", f"trace={call}", "-e", f"inject={call}:{what}:when={number}"
    )
    killed = hit.returncode in (-9, 137)
    assert killed or hit.returncode in ANSWERS, (number, hit.returncode, hit.stderr)
    assert "Traceback" not in hit.stderr, (number, hit.stderr)
    struck = killed or "(INJECTED)" in (folder / "hit").read_text(errors="replace")
    try:
        victim.end()
    except AssertionError as error:
        raise AssertionError(
            f"{call} {what} at point {number}: {error}; output of the first farmer: {hit.stderr}"
        ) from error
    shutil.rmtree(folder)
    return struck


def strike_all(tmp_path: Path, found: dict[str, list[int]], kind: str, whats: tuple[str, ...], share: int) -> None:
    """Inject at every `share`-th point of all forms of a call; each kind of fault uses different points."""
    forms = [call for call in FORMS[kind] if call in found]
    assert forms, f"a farmer makes no {kind} in its farm"
    chosen = [
        (call, what, number)
        for call in forms
        for what in whats
        for number in sorted({*found[call][WHATS.index(what) * 2 % share :: share], found[call][-1]})
    ]
    with ThreadPoolExecutor(AT_ONCE) as pool:
        struck = list(pool.map(lambda one: strike(tmp_path, *one), chosen))
    for what in whats:
        hits = sum(hit for hit, one in zip(struck, chosen, strict=True) if one[1] == what)
        for again in range(1, TRIES):
            # a rare call may not occur as often in every run, for example if no heartbeat becomes shorter
            if not hits:
                (tmp_path / f"again-{again}").mkdir(exist_ok=True)
                hits += strike(tmp_path / f"again-{again}", forms[0], what, found[forms[0]][0])
        tried = sum(one[1] == what for one in chosen)
        print(f"{'/'.join(forms)} {what}: {tried} of {sum(len(found[call]) for call in forms)} points, {hits} struck")
        assert hits, f"{what} was never injected into {kind}"


def test_no_other_call_changes_a_farm(points: dict[str, list[int]]) -> None:
    assert set(points) <= {form for forms in FORMS.values() for form in forms}


@pytest.mark.parametrize("kind", FORMS)
@pytest.mark.timeout(600)
def test_a_farmer_with_a_fault_at_a_call_loses_no_task_and_records_none_twice(
    tmp_path: Path, points: dict[str, list[int]], kind: str
) -> None:
    strike_all(tmp_path, points, kind, WHATS, SHARE)


@pytest.mark.campaign
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("kind", FORMS)
@pytest.mark.parametrize("what", WHATS)
def test_every_point_of_every_call(tmp_path: Path, points: dict[str, list[int]], kind: str, what: str) -> None:
    strike_all(tmp_path, points, kind, (what,), 1)
