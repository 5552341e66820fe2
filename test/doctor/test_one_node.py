"""The findings of a lone doctor, on real file systems and on misbehaving ones."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from support.doctors import FOLDER, TOP, Doctor, environment, examine, left_behind
from support.farming import eventually, need
from taskfarmer.doctor.examination import lock_directory
from taskfarmer.peers import scheduled


def test_a_good_directory_passes_and_is_left_unchanged(directory: Path) -> None:
    (directory / "mine").write_text("as it was")
    found = examine(directory)
    assert (found.status, found.error) == (0, "")
    assert found.json["schema_version"] == 1
    assert found.json["verdict"] == "safe"
    assert found.json["exit_status"] == 0
    for name in ("link excludes", "rename is atomic", "flock here"):
        assert found.states[name] == "proven"
    assert found.states["other nodes"] == "not proven"
    assert found.json["here"]["commit"]["count"] >= 3
    assert left_behind(directory) == ["mine"]


def test_the_table_has_every_check_and_ends_with_the_verdict(directory: Path) -> None:
    words = [sys.executable, "-m", "taskfarmer", "doctor"]
    done = subprocess.run(words, cwd=directory, env=environment(), capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert str(directory) in lines[0]
    assert lines[2].split() == ["CHECK", "STATE", "FOUND", "MEANS"]
    assert any(line.startswith("link excludes") for line in lines)
    assert "safe and fast on this node" in lines[-1]


MISBEHAVIOUR = {
    "no-links": (2, "link excludes"),
    "link-replaces": (2, "link excludes"),
    "link-says-yes": (2, "link excludes"),
    "rename-in-steps": (2, "rename is atomic"),
    "flock-says-yes": (1, "flock here"),
    "no-flock": (1, "flock here"),
}
STATE = {1: "slow", 2: "unsafe"}


def test_a_misbehaving_file_system_is_detected(directory: Path, misbehaving_calls: str) -> None:
    started = {how: Doctor(directory, LD_PRELOAD=misbehaving_calls, DOCTOR_SHIM=how) for how in MISBEHAVIOUR}
    for how, found in {how: doctor.wait() for how, doctor in started.items()}.items():
        status, check = MISBEHAVIOUR[how]
        assert found.status == status, (how, found.error)
        assert [name for name, said in found.states.items() if said == STATE[status]] == [check], how
        assert check in found.json["conclusion"]
    assert left_behind(directory) == []


def test_a_lost_reply_is_detected(directory: Path, misbehaving_calls: str) -> None:
    found = examine(directory, LD_PRELOAD=misbehaving_calls, DOCTOR_SHIM="lost-reply")
    assert found.status == 0, found.out
    assert found.json["here"]["links"]["unheard"] == found.json["here"]["links"]["names"]


def test_a_failed_sync_is_reported(directory: Path) -> None:
    need(shutil.which("strace"), "strace is not installed")
    words = ["strace", "-f", "-qq", "-o", "/dev/null", "-e", "trace=fsync", "-e", "inject=fsync:error=EIO:when=2+"]
    words += [sys.executable, "-m", "taskfarmer", "doctor", str(directory)]
    done = subprocess.run(words, env=environment(), capture_output=True, text=True, timeout=60)
    need("ptrace" not in done.stderr, "processes cannot be traced here")
    assert done.returncode == 2, done.stdout
    assert done.stderr.count("\n") == 1
    assert "this directory cannot hold a farm" in done.stderr
    assert left_behind(directory) == []


def test_the_lock_directory_is_the_one_of_the_farm(directory: Path) -> None:
    scratch, other = directory / "scratch", directory / "other"
    scratch.mkdir(), other.mkdir()
    (directory / "list").write_text("true\n")
    words = [sys.executable, str(TOP / "pytaskfarmer.py"), "list", "--lock-dir", "scratch"]
    subprocess.run(words, cwd=directory, env=environment(), check=True, capture_output=True, timeout=60)
    farm = directory / "list_workdir"
    before = left_behind(directory)
    found = examine(farm, SCRATCH=str(other))
    private = scratch / f".taskfarmer-{os.getuid()}"
    assert found.json["lock_directory"]["path"] == str(private)
    assert lock_directory(str(other), str(scratch), os.getuid()) == str(private)
    assert lock_directory(str(scratch), str(other), os.getuid()) == str(other)
    assert lock_directory(str(other), None, os.getuid()) == str(other)
    assert left_behind(directory) == before


def test_a_lock_directory_that_cannot_be_used_is_slow(directory: Path) -> None:
    found = examine(directory, "--lock-dir", directory / "nowhere")
    assert found.status == 1
    assert "lock directory here" in found.json["conclusion"]


@pytest.mark.parametrize("what", ["missing", "file", "read-only", "another's folder"])
def test_the_error_for_an_unusable_directory_is_one_line(directory: Path, what: str) -> None:
    path = directory / "it"
    if what == "file":
        path.write_text("")
    elif what == "read-only":
        path = Path("/proc")
    elif what == "another's folder":
        need(os.getuid() == 0, "files of others need root")
        path.mkdir()
        (path / FOLDER).mkdir()
        os.chown(path / FOLDER, 12345, 12345)
    before = left_behind(directory)
    found = examine(path)
    assert found.status == 2
    assert found.out == ""
    assert found.error.count("\n") == 1
    assert str(path) in found.error
    assert "Traceback" not in found.error
    assert left_behind(directory) == before


def test_a_directory_whose_name_is_not_utf8_is_examined(directory: Path) -> None:
    path = os.fsencode(directory) + b"/\xff\n"
    os.mkdir(path)
    found = examine(Path(os.fsdecode(path)))
    assert found.status == 0, found.error
    assert found.json["directory"]["path"].endswith("\\xff\n")


def test_files_of_a_killed_doctor_are_removed_by_the_next(directory: Path) -> None:
    doctor = Doctor(directory, "--nodes", 2, "--wait", 60)
    try:
        eventually(lambda: list(directory.glob(f"{FOLDER}/*.work")), "a doctor at work")
    finally:
        doctor.kill()
    assert left_behind(directory) != []
    found = examine(directory)
    assert found.status == 0
    assert left_behind(directory) == []


def test_files_of_an_unknown_doctor_are_removed_when_they_are_old(directory: Path) -> None:
    folder = directory / FOLDER
    folder.mkdir(0o700)
    young, old = folder / "1-young-1.sign", folder / "2-old-2.sign"
    for path in (young, old):
        path.write_text(json.dumps({"beat": 1}))
    os.utime(old, (1.0, 1.0))
    race = folder / "race-2-old-2-with-3-gone-3.0"
    race.write_text("")
    assert examine(directory).status == 0
    assert left_behind(directory) == [FOLDER, f"{FOLDER}/{young.name}"]


@pytest.mark.parametrize(
    ("variables", "nodes"),
    [
        ({}, 1),
        ({"SLURM_NNODES": "4"}, 4),
        ({"SLURM_NNODES": "4", "SLURM_STEP_NUM_NODES": "2"}, 2),
        ({"SLURM_NNODES": "many"}, 1),
    ],
)
def test_the_number_of_nodes_comes_from_slurm(variables: dict[str, str], nodes: int) -> None:
    assert scheduled.nodes(variables) == nodes
