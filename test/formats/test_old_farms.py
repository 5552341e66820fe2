"""Farms of older versions can be opened for ever: read, continued, exact; others are refused with an explanation.

`test/data/make_farm.py` describes how the farm of format 1 was created.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import tarfile
from pathlib import Path
from typing import Any

import pytest

from support.checker import Report, check
from support.house import Done, House
from taskfarmer.formats.sealed import sealed, unsealed

DATA = Path(__file__).parents[1] / "data"
FORMATS = ("farm-format-1",)
WORKDIR = "list.txt_workdir"


@pytest.fixture(params=FORMATS)
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def expected(name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((DATA / f"{name}.json").read_text())
    return found


@pytest.fixture
def farm(name: str, house: House) -> Path:
    """The old farm with its list, unpacked."""
    with tarfile.open(DATA / f"{name}.tar.xz") as archive:
        for member in archive:
            assert member.isdir() or member.isfile()
            archive.extract(member, house.folder, **({"filter": "data"} if hasattr(tarfile, "data_filter") else {}))
    return house.workdir


def judged(farm: Path, views: bool = False) -> Report:
    report = check(farm, views, retried=True)
    assert report.problems == []
    return report


def run(house: House, *options: object) -> Done:
    return house.command("pytaskfarmer.py", "list.txt", "-n", "4", "--wait", *options)


def newest(farm: Path) -> Path:
    return max((path for path in farm.glob("ledger/*/*") if path.name.isdigit()), key=lambda path: int(path.name))


def contents(farm: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in farm.rglob("*") if path.is_file()}


def test_every_kind_of_line_is_in_the_farm(farm: Path) -> None:
    report = judged(farm)
    assert {line.outcome for line in report.lines} == {"finished", "failed", "returned", "lost"}
    assert max(line.attempt for line in report.lines) > 1
    state = report.state
    places = [state["returned"], *(entry[1] for entry in state["farmers"].values())]
    assert re.search(r"@\d+!\d+", " ".join(places))
    assert len(state["segments"]) == 3
    assert state["closed_bytes"]
    assert state["departed"]
    assert len([path for path in (farm / "ledger").iterdir() if path.is_dir()]) > 1
    lines = b"".join(path.read_bytes() for path in (farm / "tasks").iterdir() if not path.suffix)
    assert b"\xe9\xff" in lines
    assert b' {"command": "echo a carriage\\rreturn"}\n' in lines
    assert list((farm / "farmers").glob("*.farewell"))
    assert any(unsealed(path.read_bytes())["running"] for path in (farm / "farmers").glob("*.alive"))  # type: ignore[index]


def test_an_old_farm_is_intact_and_its_counts_are_exact(farm: Path, house: House, expected: dict[str, Any]) -> None:
    before = contents(farm)
    done = house.verb("check", WORKDIR)
    assert done.status == 0, done.out
    done = house.verb("status", WORKDIR, "--json")
    assert done.status == 0, done.stderr
    status = json.loads(done.out)
    assert {name: status[name] for name in expected["counts"]} == expected["counts"]
    assert sorted(farmer["farmer"] for farmer in status["farmers"]) == expected["farmers"]
    assert sorted(failure["task_id"] for failure in status["failures"]) == expected["failed"]
    assert house.verb("status", WORKDIR).status == 0
    assert contents(farm) == before


def test_an_old_farm_can_be_completed(farm: Path, house: House, expected: dict[str, Any]) -> None:
    done = run(house)
    assert done.status == 1, done.stderr
    report = judged(farm, views=True)
    assert sorted(report.failed) == expected["failed_at_the_end"]
    assert report.complete
    assert len(report.tasks) == expected["counts"]["tasks"]
    assert not report.state["farmers"]
    for task, attempt in expected["attempts"].items():
        assert report.attempts[int(task)] >= attempt


def test_failed_tasks_of_an_old_farm_run_again_and_their_logs_are_printed(
    farm: Path, house: House, expected: dict[str, Any]
) -> None:
    done = house.verb("logs", WORKDIR, "0", "4")
    assert done.status == 0, done.stderr
    assert b"finished\n" in done.stdout
    assert b"\xe9\xff not UTF-8\n" in done.stdout
    done = house.verb("retry", WORKDIR, "--failed")
    assert done.status == 0, done.stderr
    assert not judged(farm).failed
    assert run(house).status == 1
    report = judged(farm, views=True)
    again = [line for line in report.lines if line.outcome == "failed" and line.task in expected["failed"]]
    assert sorted({line.task for line in again}) == sorted(set(expected["failed"]) - {7})
    assert 7 in report.finished  # it was lost, and now nothing prevents it from finishing


def test_unknown_members_are_kept(farm: Path, house: House) -> None:
    """A later version of the same format may write more members; they are copied from revision to revision."""
    path = farm / "farm.json"
    document = unsealed(path.read_bytes())
    assert document is not None
    path.write_bytes(sealed({**document, "later": [1]}))
    identity = path.read_bytes()
    document: Any = unsealed(newest(farm).read_bytes())
    document["later"] = {"a": 1}
    document["segments"][0]["later"] = "b"
    newest(farm).write_bytes(sealed(document))
    assert run(house).status == 1
    state = judged(farm, views=True).state
    assert state["revision"] > document["revision"]
    assert state["later"] == {"a": 1}
    assert state["segments"][0]["later"] == "b"
    assert path.read_bytes() == identity


@pytest.mark.parametrize("which", ["farm.json", "revision"])
def test_a_farm_of_a_newer_format_is_refused_by_every_verb(farm: Path, house: House, which: str) -> None:
    path = farm / "farm.json" if which == "farm.json" else newest(farm)
    document = unsealed(path.read_bytes())
    assert document is not None
    path.write_bytes(sealed({**document, "format": 2}))
    before = contents(farm)
    for words in (
        ["run", "list.txt"],
        ["status", WORKDIR],
        ["check", WORKDIR],
        ["retry", WORKDIR, "--failed"],
        ["logs", WORKDIR, "0"],
    ):
        done = house.verb(*words)
        assert done.status == 2, words
        assert f"{path}: format 2" in done.error_line
        assert "newer" in done.error_line
    assert contents(farm) == before


# --- PyTaskFarmer 0.1.0 ------------------------------------------------------------------------------

OLDEST = DATA / "pytaskfarmer-0.1.0"
"""The files that PyTaskFarmer 0.1.0 left for `list.txt` when it was interrupted."""


@pytest.fixture
def oldest(house: House) -> Path:
    shutil.copytree(OLDEST, house.folder, dirs_exist_ok=True)
    return house.workdir


def test_a_work_directory_of_pytaskfarmer_is_refused_and_left_alone(oldest: Path, house: House) -> None:
    before = contents(oldest)
    done = house.command("pytaskfarmer.py", "list.txt")
    assert done.status == 2
    assert "PyTaskFarmer 0.1.0" in done.error_line
    assert "-w DIR" in done.error_line
    for words in (["status", WORKDIR], ["check", WORKDIR], ["retry", WORKDIR, "--failed"]):
        done = house.verb(*words)
        assert done.status == 2
        assert "no farm here" in done.error_line
    assert contents(oldest) == before


def test_the_remedies_for_a_work_directory_of_pytaskfarmer_work(oldest: Path, house: House) -> None:
    """The list can run with another work directory; and the rest of the old one can be used as a list."""
    assert house.command("pytaskfarmer.py", "list.txt", "-w", "other").status == 1
    assert check(house.folder / "other", views=True).complete
    subprocess.run(f"cut -d' ' -f2- {WORKDIR}/toprocess > rest.txt", shell=True, cwd=house.folder, check=True)
    assert house.command("pytaskfarmer.py", "rest.txt").status == 0
    report = check(house.folder / "rest.txt_workdir", views=True)
    assert report.problems == []
    assert [line.split(b" ", 1)[1] for _, line in sorted(report.tasks.items())] == [
        b"sleep 0.3",
        b"sleep 0.3",
        b"echo seven",
    ]
