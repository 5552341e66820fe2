"""`taskfarmer check` on farms that were damaged on purpose, each in one way."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from support.house import Done, House
from taskfarmer.formats.results import result_line
from taskfarmer.formats.sealed import sealed, unsealed

WORKDIR = "list.txt_workdir"
Run = Callable[..., Done]


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A farm of 100 tasks, 2 of them failed, one of these unprocessed again; tests only read it."""
    house = House(tmp_path_factory.mktemp("template"))
    house.write("true\n" * 98 + "false\nfalse\n")
    assert house.command("pytaskfarmer.py", "list.txt", "-n", "2").status == 1
    assert house.verb("retry", WORKDIR, "99").status == 0
    return house.workdir


@pytest.fixture
def farm(template: Path, house: House) -> Path:
    """A copy of the template to damage."""
    shutil.copytree(template, house.workdir)
    return house.workdir


def check(house: House, *options: str) -> tuple[int, list[str]]:
    done = house.verb("check", WORKDIR, *options)
    assert "Traceback" not in done.stderr
    return done.status, done.out.splitlines()


def errors(house: House) -> list[str]:
    status, lines = check(house)
    found = [line.replace(str(house.workdir) + "/", "") for line in lines if line.startswith("error: ")]
    assert status == (1 if found else 0)
    return found


def newest(farm: Path) -> Path:
    return max((path for path in farm.glob("ledger/*/*") if path.name.isdigit()), key=lambda path: int(path.name))


def alter(farm: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Change the newest revision, and update its checksum."""
    path = newest(farm)
    document = unsealed(path.read_bytes())
    assert document is not None
    change(document)
    path.write_bytes(sealed(document))


def journal(farm: Path) -> Path:
    (path,) = (farm / "results").iterdir()
    return path


def count(farm: Path, line: bytes, counters: dict[str, int]) -> None:
    """Append a line to the journal, and make it count."""
    path = journal(farm)
    path.write_bytes(path.read_bytes() + line)

    def change(document: dict[str, Any]) -> None:
        document["departed"][path.name] += len(line)
        for name, more in counters.items():
            document[name] += more

    alter(farm, change)


def test_an_intact_farm_has_each_task_in_one_place(farm: Path, house: House) -> None:
    status, lines = check(house)
    assert status == 0
    assert lines[-1].endswith("100 tasks: 98 finished, 1 failed, 0 held, 1 unprocessed: each in exactly one place")


def test_a_farm_that_has_changed_epochs_and_grown_is_intact(farm_run: Run, house: House) -> None:
    for number in range(1, 8):
        farm_run("true\n" * 20 * number, "-n", "2", "--epoch-length", "4")
    status, lines = check(house)
    assert status == 0
    assert "140 tasks: 140 finished" in lines[-1]


def test_checking_changes_nothing(farm: Path, house: House) -> None:
    before = {path: (path.stat().st_mtime_ns, path.stat().st_size) for path in farm.rglob("*")}
    check(house)
    assert {path: (path.stat().st_mtime_ns, path.stat().st_size) for path in farm.rglob("*")} == before


def test_a_corrupt_revision_is_named(farm: Path, house: House) -> None:
    path = newest(farm)
    older = path.with_name(str(int(path.name) - 1))
    older.write_bytes(older.read_bytes().replace(b"finished", b"finishes"))
    assert errors(house) == [f"error: {older.relative_to(farm)}: corrupt revision (checksum mismatch)"]


def test_a_missing_revision_is_named(farm: Path, house: House) -> None:
    path = newest(farm)
    path.with_name(str(int(path.name) - 1)).unlink()
    (one, *_) = errors(house)
    assert f"a revision between this one and {path.name} is missing" in one


def test_a_corrupt_segment_is_named(farm: Path, house: House) -> None:
    (segment,) = (path for path in (farm / "tasks").iterdir() if path.suffix == "")
    segment.write_bytes(segment.read_bytes().replace(b"70 true", b"70 tru3"))
    assert any(line.startswith(f"error: tasks/{segment.name}: tasks from 64 on are corrupt") for line in errors(house))


def test_a_corrupt_index_is_named(farm: Path, house: House) -> None:
    (index,) = (farm / "tasks").glob("*.index")
    data = bytearray(index.read_bytes())
    data[25] ^= 1
    index.write_bytes(data)
    assert any(line.startswith(f"error: tasks/{index.name}: corrupt (checksum mismatch); ") for line in errors(house))


def test_a_missing_segment_is_named(farm: Path, house: House) -> None:
    for path in (farm / "tasks").iterdir():
        path.unlink()
    assert any("error: tasks/" in line and "tasks cannot be read" in line for line in errors(house))


def test_a_corrupt_counted_result_is_named(farm: Path, house: House) -> None:
    path = journal(farm)
    lines = path.read_bytes().split(b"\n")
    lines[3] = lines[3][:-1] + (b"0" if lines[3][-1:] != b"0" else b"1")
    path.write_bytes(b"\n".join(lines))
    found = errors(house)
    assert any(f"results/{path.name}: line 4 is corrupt" in line for line in found)
    assert any("is nowhere" in line for line in found)


def test_bytes_after_the_counted_size_are_ignored(farm: Path, house: House) -> None:
    path = journal(farm)
    path.write_bytes(path.read_bytes() + b"what a ghost wrote\n")
    assert errors(house) == []


def test_missing_results_are_named(farm: Path, house: House) -> None:
    path = journal(farm)
    size = path.stat().st_size
    path.unlink()
    found = errors(house)
    assert any(f"contains 0 bytes of results, but the ledger counts {size}" in line for line in found)
    assert any(path.name in line and f"{size} bytes of it count" in line for line in found)


def test_a_journal_that_is_too_short_is_named(farm: Path, house: House) -> None:
    path = journal(farm)
    path.write_bytes(path.read_bytes()[:-10])
    assert any(f"{path.name}: has " in line for line in errors(house))


def test_counters_that_disagree_are_named(farm: Path, house: House) -> None:
    alter(farm, lambda document: document.update(finished=97))
    name = newest(farm).relative_to(farm)
    assert errors(house) == [
        f"error: {name}: 100 tasks, but 1 unprocessed + 0 held + 97 finished + 1 failed = 99",
        f"error: {name}: counts 97 finished tasks, but the results contain 98",
    ]


def test_a_task_in_two_places_of_the_ledger_is_named(farm: Path, house: House) -> None:
    alter(farm, lambda document: document.update(returned=document["returned"] + " 0:99+1@3"))
    assert any("task 99 is twice in the ledger" in line for line in errors(house))


def test_a_task_that_is_recorded_and_unprocessed_is_named(farm: Path, house: House) -> None:
    alter(farm, lambda document: document.update(returned="0:5+1 " + document["returned"]))
    assert any(
        "task 5 is in two places: attempt 1 is recorded, and attempt 1 is unprocessed" in line for line in errors(house)
    )


def test_a_task_without_a_place_is_named(farm: Path, house: House) -> None:
    count(farm, result_line(99, 1, 0, 1.0, 2.0, b"returned"), {})
    lines = [line for line in journal(farm).read_bytes().splitlines(True) if not line.startswith(b"7 ")]
    data = b"".join(lines)
    journal(farm).write_bytes(data)
    alter(farm, lambda document: document["departed"].update({journal(farm).name: len(data)}))
    assert any("task 7 is nowhere" in line for line in errors(house))


def test_an_attempt_that_is_recorded_twice_is_named(farm: Path, house: House) -> None:
    count(farm, result_line(7, 1, 0, 1.0, 2.0, b"finished"), {})
    (one,) = errors(house)
    assert "attempt 1 at task 7 is recorded twice" in one


def test_a_result_of_a_task_that_was_never_claimed_is_named(farm: Path, house: House) -> None:
    house.write("true\n" * 98 + "false\nfalse\ntrue\n")
    house.command("pytaskfarmer.py", "list.txt", "--timeout", "0.001")
    alter(farm, lambda document: document["segments"][0].update(next=50))
    assert any("but was never claimed" in line for line in errors(house))


def test_a_result_of_a_task_that_does_not_exist_is_named(farm: Path, house: House) -> None:
    count(farm, result_line(100, 1, 0, 1.0, 2.0, b"finished"), {})
    (one,) = errors(house)
    assert "this farm has no task 100" in one


def test_claims_of_tasks_that_were_never_handed_out_are_named(farm: Path, house: House) -> None:
    alter(farm, lambda document: document.update(returned="0:200+5"))
    assert any("0:200+5 was never claimed" in line for line in errors(house))


def test_an_absurd_revision_is_reported_in_one_line(farm: Path, house: House) -> None:
    alter(farm, lambda document: document.pop("segments"))
    (one,) = errors(house)
    assert "member `segments` is missing" in one


def test_a_corrupt_farm_json_is_reported_in_one_line(farm: Path, house: House) -> None:
    (farm / "farm.json").write_text("{}")
    (one,) = errors(house)
    assert one.startswith("error: farm.json: corrupt (checksum mismatch); ")
    assert "restore it from a snapshot" in one


def test_a_farm_of_a_newer_format_is_refused(farm: Path, house: House) -> None:
    document = unsealed((farm / "farm.json").read_bytes())
    assert document is not None
    (farm / "farm.json").write_bytes(sealed({**document, "format": 2}))
    done = house.verb("check", WORKDIR)
    assert done.status == 2
    assert "format 2, but this version supports format 1" in done.error_line


def test_leftovers_are_notes_and_not_errors(farm: Path, house: House) -> None:
    (farm / "tasks" / "left").write_bytes(b"0 true\n")
    (farm / "results" / "host-1-00000000").write_bytes(b"")
    status, lines = check(house)
    assert status == 0
    assert any(line.startswith("note: ") and "tasks/left" in line for line in lines)
    assert any(line.startswith("note: ") and "host-1-00000000" in line for line in lines)


@pytest.mark.parametrize(
    ("name", "damage"),
    [
        ("finished", lambda path: path.write_bytes(path.read_bytes() + b"0 true\n")),
        ("finished", lambda path: path.write_bytes(path.read_bytes().partition(b"\n")[2])),
        ("finished", lambda path: path.unlink()),
        ("failed", lambda path: path.write_bytes(b"")),
        ("failed", lambda path: path.write_bytes(b"98 other\n")),
        ("toprocess", lambda path: path.write_bytes(b"0 true\n")),
        ("timeline.json", lambda path: path.write_bytes(path.read_bytes()[:-2])),
        ("timeline.json", lambda path: path.unlink()),
    ],
)
def test_a_view_that_disagrees_is_named_and_repaired(
    farm: Path, house: House, name: str, damage: Callable[[Path], object]
) -> None:
    sound = (farm / name).read_bytes()
    damage(farm / name)
    assert [line for line in errors(house) if line.startswith(f"error: {name}: ")] == errors(house)
    assert errors(house)
    status, lines = check(house, "--repair")
    assert status == 0
    assert "the views were rebuilt" in lines
    assert sorted((farm / name).read_bytes().split()) == sorted(sound.split())
    assert errors(house) == []


def test_a_timeline_that_was_repaired_is_json(farm: Path, house: House) -> None:
    (farm / "timeline.json").unlink()
    check(house, "--repair")
    slices = [event for event in json.loads((farm / "timeline.json").read_bytes()) if event["ph"] == "X"]
    assert len(slices) == 100


def test_views_of_a_damaged_farm_are_not_repaired(farm: Path, house: House) -> None:
    (farm / "finished").write_bytes(b"")
    journal(farm).write_bytes(b"")
    status, lines = check(house, "--repair")
    assert status == 1
    assert "not repaired: the views depend on files that are damaged" in lines
    assert (farm / "finished").read_bytes() == b""


def test_a_repair_of_an_intact_farm_changes_nothing(farm: Path, house: House) -> None:
    before = (farm / "finished").stat().st_mtime_ns
    status, lines = check(house, "--repair")
    assert status == 0
    assert lines[-1].startswith("nothing to repair")
    assert (farm / "finished").stat().st_mtime_ns == before


def test_many_findings_of_one_kind_are_counted_instead_of_listed(farm: Path, house: House) -> None:
    shutil.copy(farm / "finished", farm / "failed")
    found = errors(house)
    assert len(found) < 30
    assert any("78 more of the same" in line or "79 more of the same" in line for line in found)


def test_outdated_views_are_notes_while_a_farmer_is_registered(farm: Path, house: House) -> None:
    entry = [1, "", 0, 1]
    alter(farm, lambda document: document.update(farmers={"host-1-00000000": entry}))
    (farm / "finished").write_bytes(b"")
    status, lines = check(house)
    assert status == 0
    assert any(line.startswith("note: ") and "98 tasks are missing" in line for line in lines)


@pytest.mark.parametrize(("folder", "status"), [("farmers", 1), ("logs", 0)])
def test_a_missing_folder_that_farmers_need_is_named(farm: Path, house: House, folder: str, status: int) -> None:
    shutil.rmtree(farm / folder)
    os.mkfifo(farm / folder)
    found, lines = check(house)
    assert found == status
    said = f"{farm / folder}: Not a directory; no farmer can start; an empty folder will do"
    assert any(said in line for line in lines)
