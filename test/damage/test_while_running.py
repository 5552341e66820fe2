"""When a file is damaged under a running farmer, it stops with a message or continues, and records nothing wrong."""

from __future__ import annotations

import shutil
import signal
import subprocess
from pathlib import Path

import pytest

from support import verbs
from support.checker import check
from support.farming import Farmer, eventually, send
from support.halfdone import NAME, WORKDIR, HalfDone

Halves = tuple[HalfDone, HalfDone]

VIEWS = ("toprocess", "finished", "failed", "timeline.json", "views.json", "ledger/HEAD")


def newest(workdir: Path) -> Path:
    names = [path for path in (workdir / "ledger").glob("*/*") if path.name.isdigit()]
    return max(names, key=lambda path: int(path.name))


@pytest.mark.parametrize("name", [*VIEWS, "tasks", "farm.json", "newest revision"])
@pytest.mark.parametrize("damage", ["empty", "gone", "a folder"])
@pytest.mark.campaign
def test_nothing_wrong_is_recorded(halves: Halves, tmp_path: Path, name: str, damage: str) -> None:
    assert_nothing_wrong_is_recorded(halves[0], tmp_path / "farm", name, damage)


@pytest.mark.parametrize(("name", "damage"), [("farm.json", "gone")])
def test_nothing_wrong_is_recorded_without_farm_json(halves: Halves, tmp_path: Path, name: str, damage: str) -> None:
    assert_nothing_wrong_is_recorded(halves[0], tmp_path / "farm", name, damage)


def assert_nothing_wrong_is_recorded(half: HalfDone, folder: Path, name: str, damage: str) -> None:
    workdir = half.copy(folder)
    (folder / "hold").touch()
    farmer = Farmer([NAME, "-n", "4", "--wait"], folder)
    try:
        known = {path.name for path in (half.workdir / "farmers").glob("*.json")}
        eventually(lambda: {path.name for path in (workdir / "farmers").glob("*.json")} - known, "a farmer at work")
        eventually(lambda: len(check(workdir).state["farmers"]) == 1, "the dead are expelled", 40)
        path = newest(workdir) if name == "newest revision" else workdir / name
        snapshot = folder / "snapshot"
        shutil.copytree(path, snapshot) if path.is_dir() else shutil.copyfile(path, snapshot)
        shutil.rmtree(path) if path.is_dir() else path.unlink()
        if damage == "empty":
            path.touch()
        elif damage == "a folder":
            path.mkdir()
        (folder / "hold").unlink()
        # the farmer retries for minutes if it cannot record a result: the user stops it
        if not ended_within(farmer, 15):
            send(farmer.pid, signal.SIGTERM)
            assert ended_within(farmer, 90), farmer.said
    finally:
        farmer.kill_tree()
        farmer.process.wait(20)
    assert "Traceback" not in farmer.said
    status = farmer.process.returncode
    assert status in (1, 74, 75), farmer.said
    if name in VIEWS:
        assert status == 1, farmer.said
    else:
        shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
        shutil.copytree(snapshot, path) if snapshot.is_dir() else shutil.copyfile(snapshot, path)
        assert verbs.run(folder, "run", NAME, "-n", "4", "--wait").status == 1
    report = check(folder / WORKDIR, views=True)
    assert half.is_complete(report), report.problems


def ended_within(farmer: Farmer, seconds: float) -> bool:
    try:
        farmer.process.wait(seconds)
    except subprocess.TimeoutExpired:
        return False
    return True
