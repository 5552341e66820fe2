"""No existing file is emptied, truncated or replaced: output of an expelled farmer, of another farm, files of users."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.farming import Field, eventually, need
from support.farms import Farm

TOP = Path(__file__).parents[2]
LIMIT = ("--log-limit", "64k")
TASKS = 100


def verb(*words: object) -> subprocess.CompletedProcess[bytes]:
    line = [sys.executable, "-m", "taskfarmer", *map(str, words)]
    environment = {**os.environ, "PYTHONPATH": str(TOP)}
    return subprocess.run(line, env=environment, stdin=subprocess.DEVNULL, capture_output=True, timeout=60)


def everything(folder: Path) -> dict[str, bytes | None]:
    """The contents of all files in a directory; None for directories."""
    return {
        str(path.relative_to(folder)): path.read_bytes() if path.is_file() else None
        for path in sorted(folder.rglob("*"))
    }


def test_no_module_opens_a_file_with_truncation() -> None:
    assert [str(path) for path in (TOP / "taskfarmer").rglob("*.py") if "O_TRUNC" in path.read_text()] == []


# --- several farms in one directory of logs ----------------------------------------------------------


@pytest.fixture
def other(tmp_path: Path) -> Iterator[Farm]:
    (tmp_path / "other").mkdir()
    one = Farm(tmp_path / "other")
    try:
        yield one
    finally:
        one.close()


@pytest.mark.parametrize("options", [(), LIMIT, ("--logs", "failed")], ids=" ".join)
def test_farms_with_the_same_logs_dir_keep_and_find_their_outputs(
    farm: Farm, other: Farm, tmp_path: Path, options: tuple[str, ...]
) -> None:
    farm.write("echo of the first; exit 1", "echo only the first has this one; exit 1")
    other.write("printf 'of the second'; exit 1")
    shared = ("-n", 1, "--logs-dir", tmp_path / "logs", *options)
    first, second = farm.run(*shared), other.run(*shared)
    assert (first.process.returncode, second.process.returncode) == (1, 1), first.said + second.said
    assert "--logs-dir" not in first.said
    assert f"--logs-dir: {tmp_path}/logs contains logs of another farm" in second.said
    for one in (farm, other):
        verb("retry", one.workdir, 0)
        assert one.run(*shared).process.returncode == 1
    text = (tmp_path / "logs" / "log_0").read_bytes()
    assert (text.count(b"of the first\n"), text.count(b"of the second")) == (2, 2)
    lines = verb("logs", farm.workdir, 0).stdout.splitlines()
    assert [line.startswith(b"=== taskfarmer: attempt 2 on ") for line in lines] == [False, True, False]
    assert (lines[0], lines[2]) == (b"of the first", b"of the first")
    lines = verb("logs", other.workdir, 0).stdout.splitlines()
    assert (lines[0], lines[-1]) == (b"of the second", b"of the second")
    assert b"task 0, farm " in lines[-2]
    assert verb("logs", farm.workdir, "--grep", "second").returncode == 1
    assert verb("logs", other.workdir, "--grep", "^of").stdout == b"0:of the second\n" * 2


def test_farms_with_the_same_logs_dir_have_separate_packed_logs(farm: Farm, other: Farm, tmp_path: Path) -> None:
    farm.write("echo of the first")
    other.write("echo of the second")
    for one in (farm, other):
        assert one.run("--logs-dir", tmp_path / "logs", "--logs", "packed").process.returncode == 0
    assert verb("logs", farm.workdir, 0).stdout == b"of the first\n"
    assert verb("logs", other.workdir, 0).stdout == b"of the second\n"


def test_a_log_of_another_farm_is_not_printed(farm: Farm, other: Farm, tmp_path: Path) -> None:
    farm.write("echo well")
    other.write("echo of the second")
    assert farm.run("--logs-dir", tmp_path / "logs", "--logs", "failed").process.returncode == 0
    assert other.run("--logs-dir", tmp_path / "logs").process.returncode == 0
    done = verb("logs", farm.workdir, 0)
    assert (done.returncode, done.stdout) == (1, b"")
    assert b"only logs of failed tasks are kept" in done.stderr


def test_logs_in_the_work_directory_of_another_farm_are_kept_apart(farm: Farm, other: Farm) -> None:
    farm.write("echo of the first")
    other.write("echo of the second", "echo more of it")
    assert farm.run().process.returncode == 0
    assert other.run("--logs-dir", farm.workdir / "logs").process.returncode == 0
    farm.append("echo also of the first\n")
    assert farm.run().process.returncode == 0
    assert verb("logs", farm.workdir, "0-1").stdout.count(b"of the first\n") == 2
    assert verb("logs", other.workdir, "0-1").stdout.splitlines()[1::2] == [b"of the second", b"more of it"]


def test_a_users_file_with_the_name_of_a_log_is_kept(farm: Farm, tmp_path: Path) -> None:
    (tmp_path / "logs").mkdir()
    (tmp_path / "logs" / "log_0").write_text("my own, without an end")
    farm.write("echo of the task")
    farmer = farm.run("--logs-dir", tmp_path / "logs")
    assert farmer.process.returncode == 0
    assert "contains logs of another farm" in farmer.said
    text = (tmp_path / "logs" / "log_0").read_text()
    assert text.startswith("my own, without an end\n=== taskfarmer: attempt 1 on ")
    assert text.endswith("===\nof the task\n")
    assert verb("logs", farm.workdir, 0).stdout == b"of the task\n"


# --- files of a user in a new work directory -----------------------------------------------------------

NAMES = (
    "toprocess",
    "finished",
    "failed",
    "timeline.json",
    "views.json",
    "locks.json",
    "stop",
    "ledger/HEAD",
    "results/mine",
    "logs/log_0",
)


@pytest.mark.parametrize("name", NAMES)
def test_a_directory_with_a_users_file_of_a_farms_name_is_refused(farm: Farm, name: str) -> None:
    farm.write("echo hi")
    path = farm.workdir / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("mine\n")
    before = everything(farm.workdir)
    for words in (("run", farm.list), ("run", farm.list, "--dry-run"), ("submit", farm.list)):
        done = verb(*words)
        assert (done.returncode, done.stdout, done.stderr.count(b"\n")) == (2, b"", 1), done.stderr
        assert f"{path}: this directory has no farm, but files with names that a farm uses: {name}.".encode() in (
            done.stderr
        )
        assert b"-w DIR" in done.stderr
    assert everything(farm.workdir) == before


def test_conflicting_files_are_listed(farm: Farm) -> None:
    farm.write("echo hi")
    (farm.workdir / "logs").mkdir(parents=True)
    for name in ("timeline.json", *(f"logs/log_{n}" for n in range(6))):
        (farm.workdir / name).write_text("mine\n")
    said = verb("run", farm.list).stderr
    assert b": timeline.json, logs/log_0, logs/log_1, logs/log_2, logs/log_3 and 2 more." in said


def test_a_directory_with_other_files_of_a_user_becomes_a_farm(farm: Farm) -> None:
    farm.write("echo hi")
    for name in ("notes", "logs/mine", "tasks/mine", "ledger/mine", "farmers/mine", "jobs/mine"):
        path = farm.workdir / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("mine\n")
    before = everything(farm.workdir)
    assert farm.run().process.returncode == 0
    after = everything(farm.workdir)
    assert {name: after[name] for name in before} == before
    assert after["logs/log_0"] == b"hi\n"


# --- a farmer that wakes after its lease --------------------------------------------------------------


@pytest.mark.parametrize("options", [(), LIMIT, ("--logs", "failed")], ids=" ".join)
def test_a_farmer_that_wakes_after_its_lease_leaves_the_logs_of_recorded_tasks(
    tmp_path: Path, options: tuple[str, ...]
) -> None:
    need(os.getuid() == 0 and shutil.which("unshare"), "nodes of their own need root and unshare")
    field = Field(tmp_path)
    field.write(["echo begins; sleep 0.3; echo result $PROC_NUMBER; exit 1"] * TASKS)
    try:
        ghost = field.start("-n", 4, "--lease", 3, *options, node="ghost")
        results = field.workdir / "results"
        # its slots have prefetched their next tasks by then
        eventually(lambda: sum(path.read_bytes().count(b"\n") for path in results.glob("*")) >= 12, "some results")
        ghost.stop_tree()
        other = field.run("-n", 16, "--wait", *options, node="other")
        assert other.process.returncode == 1, other.said
        logs = field.workdir / "logs"
        before = {path.name: path.read_bytes() for path in logs.glob("log_*")}
        assert len(before) == TASKS
        for task in range(TASKS):
            assert b"\nresult %d\n" % task in before[f"log_{task}"]
        ghost.continue_tree()
        assert ghost.wait() == 74, ghost.said
        after = {path.name: path.read_bytes() for path in logs.glob("log_*")}
        # with `files` no output of the ghost reaches them; in other modes it may append
        kept = {name: text if options else after[name] for name, text in before.items()}
        assert {name: after[name][: len(text)] for name, text in kept.items()} == before
    finally:
        field.close()
