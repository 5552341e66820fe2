"""`taskfarmer check`: members of documents, files that a revision refers to, and files of dead farmers."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest

from support.house import House
from taskfarmer.formats.sealed import sealed, unsealed
from taskfarmer.peers.identity import new_identity

WORKDIR = "list.txt_workdir"
HANDLER = """
from taskfarmer.task import ListTaskList


class Doubled(ListTaskList):
    def __getitem__(self, taskid):
        return "true " + self.tasks[taskid]
"""


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> House:
    """A farm from a handler that reads line by line; tests only read it."""
    house = House(tmp_path_factory.mktemp("template"))
    (house.folder / "mine.py").write_text(HANDLER)
    (house.folder / "mine.ini").write_text("[doubled]\nTaskList = mine.Doubled\n")
    house.write("a\n" * 20)
    assert house.command("pytaskfarmer.py", "list.txt", "-n", "2", "-t", "doubled").status == 0
    return house


@pytest.fixture
def farm(template: House, house: House) -> Path:
    """A copy of the template to damage."""
    shutil.copytree(template.folder, house.folder, dirs_exist_ok=True)
    return house.workdir


def check(house: House) -> tuple[int, list[str]]:
    done = house.verb("check", WORKDIR)
    assert "Traceback" not in done.stderr
    return done.status, [line.replace(f"{house.workdir}/", "") for line in done.out.splitlines()]


def newest(farm: Path) -> Path:
    return max((path for path in farm.glob("ledger/*/*") if path.name.isdigit()), key=lambda path: int(path.name))


def alter(path: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Change a document, and update its checksum."""
    document = unsealed(path.read_bytes())
    assert document is not None
    change(document)
    path.write_bytes(sealed(document))


def test_a_farm_with_a_handler_is_intact(farm: Path, house: House) -> None:
    status, lines = check(house)
    assert (status, len(lines)) == (0, 1), lines


@pytest.mark.parametrize(
    ("damage", "text"),
    [
        (lambda path: path.unlink(), "No such file or directory"),
        (lambda path: path.write_bytes(path.read_bytes() + b"b\n"), "checksum mismatch"),
        (lambda path: path.write_bytes(b""), "checksum mismatch"),
        (lambda path: (path.unlink(), os.mkfifo(path)), "not a regular file"),
    ],
)
def test_a_source_that_is_missing_or_corrupt_is_named(
    farm: Path, house: House, damage: Callable[[Path], object], text: str
) -> None:
    (source,) = (farm / "tasks").glob("*.source")
    damage(source)
    status, lines = check(house)
    assert status == 1
    assert [line for line in lines if line.startswith(f"error: tasks/{source.name}: ") and text in line], lines


def test_a_corrupt_source_is_not_mistaken_for_a_changed_list(farm: Path, house: House) -> None:
    (source,) = (farm / "tasks").glob("*.source")
    source.write_bytes(source.read_bytes().replace(b"a", b"b"))
    house.write("# a comment\n" + "a\n" * 20)
    done = house.command("pytaskfarmer.py", "list.txt", "-n", "2", "-t", "doubled")
    assert done.status == 74
    assert f"{source}: corrupt (checksum mismatch)" in done.stderr


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (lambda one: one["farmers"].update({"host-1-00000000": [1, "", "0", 1]}), "`farmers['host-1-00000000'].bytes`"),
        (lambda one: one["farmers"].update({"host-1-00000000": [1, 5, 0, 1]}), "`farmers['host-1-00000000'].claims`"),
        (lambda one: one["farmers"].update({"../x": [1, "", 0, 1]}), "`farmers` is '../x'"),
        (lambda one: one["segments"][0].update(source_crc=7), "segments[0]: member `source_crc` is 7"),
        (lambda one: one["segments"][0].update(next=-1), "segments[0]: member `next` is -1"),
        (lambda one: one.update(closed_bytes=1.5), "`closed_bytes` is 1.5"),
        (lambda one: one.update(ended=None), "`ended` is None"),
        (lambda one: one.update(seconds="1"), "`seconds` is '1'"),
        (lambda one: one.update(by=["x"]), "`by` is an array"),
        (lambda one: one.update(epoch="1"), "`epoch` is '1'"),
        (lambda one: one.pop("ended"), "`ended` is missing"),
    ],
)
def test_a_member_of_a_revision_of_another_type_or_range_is_named(
    farm: Path, house: House, change: Callable[[dict[str, Any]], object], text: str
) -> None:
    alter(newest(farm), change)
    status, lines = check(house)
    assert status == 1
    name = newest(farm).relative_to(farm)
    assert any(line.startswith(f"error: {name}: ") and text in line for line in lines), lines


def test_members_of_older_revisions_are_checked_too(farm: Path, house: House) -> None:
    path = newest(farm)
    older = path.with_name(str(int(path.name) - 1))
    alter(older, lambda document: document.update(finished="many"))
    status, lines = check(house)
    assert status == 1
    said = f"error: {older.relative_to(farm)}: member `finished` is 'many'; "
    assert any(line.startswith(said) for line in lines), lines


@pytest.mark.parametrize(
    ("name", "value"), [("lease", "long"), ("epoch_length", 0), ("handler_options", []), ("list_path", None)]
)
def test_a_member_of_the_farm_of_another_type_or_range_is_named(
    farm: Path, house: House, name: str, value: object
) -> None:
    alter(farm / "farm.json", lambda document: document.update({name: value}))
    status, lines = check(house)
    assert status == 1
    assert any(line.startswith(f"error: farm.json: member `{name}`") for line in lines), lines
    done = house.verb("status", WORKDIR)
    assert done.status == 74
    assert f"farm.json: member `{name}`" in done.error_line


@pytest.mark.parametrize(
    "damage",
    [
        lambda path: path.unlink(),
        lambda path: path.write_bytes(b"{}"),
        lambda path: alter(path, lambda document: document.update(results="all")),
        lambda path: alter(path, lambda document: document.update(results=5)),
        lambda path: alter(path, lambda document: document["sizes"].update(toprocess=7)),
    ],
)
def test_a_wrong_summary_of_the_views_is_named_and_repaired(
    farm: Path, house: House, damage: Callable[[Path], object]
) -> None:
    damage(farm / "views.json")
    status, lines = check(house)
    assert status == 1
    assert any(line.startswith("error: views.json: ") for line in lines), lines
    assert house.verb("check", WORKDIR, "--repair").status == 0
    assert check(house)[0] == 0


# --- farmers that no revision names ---------------------------------------------------------------


def leave_signs(farm: Path, name: str, old: bool, **more: object) -> list[Path]:
    """Create the files that a farmer leaves if it is killed before its first commit."""
    me = new_identity(1, "0", {})
    (farm / "farmers" / f"{name}.json").write_bytes(sealed({**asdict(replace(me, farmer=name)), **more}))
    alive: dict[str, object] = {"beat": 1, "every": 30.0, "held": True, "running": []}
    signs = {".alive": sealed(alive), ".ballast": bytes(64 << 10)}
    for end, data in signs.items():
        path = farm / "farmers" / (name + end)
        path.write_bytes(data)
        if old:
            os.utime(path, (0, 0))
    return [farm / "farmers" / (name + end) for end in signs]


def dead_pid() -> int:
    child = subprocess.Popen(["true"])
    child.wait()
    return child.pid


@pytest.mark.parametrize(
    ("old", "more"),
    [(False, {"pid": "dead"}), (True, {"boot": "other", "host": "elsewhere"})],
    ids=["here", "elsewhere"],
)
def test_a_farmer_that_died_before_its_first_commit_does_not_excuse_damaged_views(
    farm: Path, house: House, old: bool, more: dict[str, object]
) -> None:
    if "pid" in more:
        more = {"pid": dead_pid(), "pid_start": "1"}
    signs = leave_signs(farm, "elsewhere-7-0a1b2c3d", old, **more)
    assert check(house)[0] == 0
    (farm / "finished").write_bytes(b"")
    status, lines = check(house)
    assert status == 1
    assert any(line.startswith("error: finished: ") for line in lines), lines
    assert any(line.startswith(f"note: farmers/{signs[0].name}: left over from a farmer killed") for line in lines)


def test_a_farmer_that_may_be_about_to_join_excuses_outdated_views(farm: Path, house: House) -> None:
    leave_signs(farm, "elsewhere-7-0a1b2c3d", False, boot="other", host="elsewhere")
    (farm / "finished").write_bytes(b"")
    status, lines = check(house)
    assert status == 0
    assert any(line.startswith("note: finished: ") for line in lines), lines


def test_the_last_farmer_removes_the_files_of_dead_farmers_only(farm: Path, house: House) -> None:
    here = leave_signs(farm, "here-7-00000001", False, pid=dead_pid(), pid_start="1")
    elsewhere = leave_signs(farm, "elsewhere-7-00000002", True, boot="other", host="elsewhere")
    young = leave_signs(farm, "elsewhere-7-00000003", False, boot="other", host="elsewhere")
    living = leave_signs(farm, "here-7-00000004", True)
    house.write("a\n" * 21)
    assert house.command("pytaskfarmer.py", "list.txt", "-n", "2", "-t", "doubled").status == 0
    assert [path for path in (*here, *elsewhere) if path.exists()] == []
    assert [path for path in (*young, *living) if not path.exists()] == []
    assert (farm / "farmers" / "here-7-00000001.json").exists(), "who it was stays"


def test_a_dead_farmer_gets_no_stop_request(farm: Path, house: House) -> None:
    leave_signs(farm, "here-7-00000001", False, pid=dead_pid(), pid_start="1")
    done = house.verb("stop", WORKDIR)
    assert (done.status, done.out) == (0, "no farmers are running\n")
    assert not (farm / "stop").exists()


def test_a_retry_that_is_refused_changes_nothing(farm: Path, house: House) -> None:
    assert house.verb("retry", WORKDIR, "3").status == 0
    before = {path: path.read_bytes() for path in farm.rglob("*") if path.is_file()}
    assert house.verb("retry", WORKDIR, "2-3").status == 2
    assert {path: path.read_bytes() for path in farm.rglob("*") if path.is_file()} == before


def test_views_json_names_what_it_shows(farm: Path) -> None:
    document = json.loads((farm / "views.json").read_text())
    assert document["revision"] == int(newest(farm).name)
