"""A task list and its farm: lists that grow, lists that changed, and files that are not task lists."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from support.farming import eventually
from support.farms import Farm

USAGE = 2


def snapshot(folder: Path) -> dict[str, bytes | None]:
    """Every file below a folder, with its content."""
    return {
        str(path.relative_to(folder)): path.read_bytes() if path.is_file() else None
        for path in sorted(folder.rglob("*"))
        if path.name != "lock"
    }


def waiting(farm: Farm, name: str = "go") -> str:
    return farm.marked(f"while ! [ -e {farm.folder}/{name} ]; do sleep 0.02; done")


# --- grown -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("end", ["\n", ""])
def test_a_list_that_grew_at_its_end_between_runs_has_new_tasks(farm: Farm, end: str) -> None:
    """A list without newline at its end is an hour old, so its last line is complete."""
    farm.write("echo 0", "echo 1")
    if not end:
        farm.list.write_text("echo 0\necho 1")
        farm.age_list()
    assert farm.run().wait() == 0
    farm.append(("" if end else "\n") + "# more\n\necho 2\necho 3" + end)
    if not end:
        farm.age_list()
    farmer = farm.run()
    assert farmer.wait() == 0
    assert "2 more tasks" in farmer.said
    assert [farm.log(number) for number in range(4)] == ["0\n", "1\n", "2\n", "3\n"]
    assert farm.view("finished")[3] == b"echo 3"
    farm.append(("" if end else "\n") + "echo 4\n")
    assert farm.run().wait() == 0
    assert farm.places() == ([], [0, 1, 2, 3, 4], [])
    assert {line.attempt for line in farm.check().lines} == {1}


def test_a_last_line_that_was_extended_is_another_task(farm: Farm) -> None:
    farm.list.write_bytes(b"echo 0\necho 1")
    farm.age_list()
    assert farm.run().wait() == 0
    farm.append("0\necho 2\n")
    farmer = farm.run()
    assert farmer.wait() == USAGE
    assert "line 2" in farmer.said and "echo 10" in farmer.said
    assert farm.places() == ([], [0, 1], [])


def test_a_list_that_grows_under_a_running_farmer_has_new_tasks(farm: Farm) -> None:
    farm.write(waiting(farm), "echo 1")
    farmer = farm.start("-n", 2)
    farm.wait_for_tasks(0)
    farm.append("echo 2\necho 3\n")
    eventually(lambda: (farm.workdir / "logs" / "log_3").exists(), "the new tasks run")
    (farm.folder / "go").touch()
    assert farmer.wait() == 0
    assert farm.log(3) == "3\n"
    assert farm.places() == ([], [0, 1, 2, 3], [])
    farm.check()


def test_tasks_that_append_tasks_to_their_list_are_all_run(farm: Farm) -> None:
    farm.write(f"echo 'echo second; echo echo third >> {farm.list}' >> {farm.list}")
    farmer = farm.start("-n", 2)
    assert farmer.wait() == 0
    while len(farm.view("finished")) < 3:
        before = len(farm.view("finished"))
        assert farm.run("-n", 2).wait() == 0
        assert len(farm.view("finished")) > before
    assert farm.log(2) == "third\n"
    farm.check()


def test_two_farmers_import_a_grown_list_once(farm: Farm) -> None:
    farm.write(waiting(farm), waiting(farm))
    farmers = [farm.start("-n", 2, "--wait") for _ in range(2)]
    farm.wait_for_tasks(0, 1)
    farm.append("".join(f"echo {number}\n" for number in range(2, 40)))
    eventually(lambda: (farm.workdir / "logs" / "log_39").exists(), "the new tasks run")
    (farm.folder / "go").touch()
    assert [farmer.wait() for farmer in farmers] == [0, 0]
    assert farm.places() == ([], list(range(40)), [])
    assert len(farm.check().lines) == 40


# --- changed ---------------------------------------------------------------------------------------

CHANGES = {
    "another task": (b"a\nb\nX\nd\n", "line 3", "'X'", "'c'"),
    "a task in between": (b"a\nnew\nb\nc\nd\n", "line 2", "'new'", "'b'"),
    "one task less": (b"a\nc\nd\n", "line 2", "'c'", "'b'"),
    "the last one gone": (b"a\nb\nc\n", "ends before task 3", "'d'", ""),
    "nothing left": (b"", "ends before task 0", "'a'", ""),
    "after a comment": (b"# one\n\n# two\na\nB\nc\nd\ne\n", "line 5", "'B'", "'b'"),
    "a longer last task": (b"a\nb\nc\ndd\n", "line 4", "'dd'", "'d'"),
}


@pytest.mark.parametrize("name", CHANGES)
def test_a_list_that_changed_before_its_end_is_refused_and_no_file_is_touched(farm: Farm, name: str) -> None:
    farm.environment = {"PATH": f"{farm.folder}:{os.environ['PATH']}"}
    for program in "abcd":
        (farm.folder / program).write_text("#!/bin/sh\n")
        (farm.folder / program).chmod(0o755)
    farm.write(*"abcd")
    assert farm.run().wait() == 0
    before = snapshot(farm.workdir)
    content, *words = CHANGES[name]
    farm.list.write_bytes(content)
    farmer = farm.run()
    assert farmer.wait() == USAGE
    for word in [*words, str(farm.list), "-w"]:
        assert word in farmer.said
    assert len(farmer.said.splitlines()) == 1
    assert snapshot(farm.workdir) == before


@pytest.mark.parametrize(
    "content",
    [
        b"# another comment\necho 0\n\n   \n# more\necho 1\n",
        b"echo 0\r\necho 1\r\n",
        b"echo 0\necho 1",
        b"  echo 0  \n\techo 1\n#\n",
    ],
)
def test_comments_and_blanks_may_change(farm: Farm, content: bytes) -> None:
    farm.list.write_bytes(b"# a comment\necho 0\necho 1\n")
    assert farm.run().wait() == 0
    farm.list.write_bytes(content)
    assert farm.run().wait() == 0
    farm.list.write_bytes(content + b"\necho 2\n")
    assert farm.run().wait() == 0
    assert farm.places() == ([], [0, 1, 2], [])
    assert farm.log(2) == "2\n"
    farm.check()


def test_a_list_that_changed_under_a_running_farmer_is_reported_and_does_not_stop_it(farm: Farm) -> None:
    farm.write(waiting(farm), "echo 1")
    farmer = farm.start("-n", 2)
    farm.wait_for_tasks(0)
    farm.write("something else", "echo 1", "echo 2")
    farmer.says("line 1")
    (farm.folder / "go").touch()
    assert farmer.wait() == 0
    assert farm.places() == ([], [0, 1], [])


def test_a_list_that_is_deleted_under_a_running_farmer_does_not_stop_it(farm: Farm) -> None:
    farm.write(waiting(farm), "echo 1")
    farmer = farm.start("-n", 1)
    farm.wait_for_tasks(0)
    farm.list.unlink()
    (farm.folder / "go").touch()
    assert farmer.wait() == 0
    assert farm.places() == ([], [0, 1], [])


# --- which farm ------------------------------------------------------------------------------------


def test_a_work_directory_of_another_list_is_refused(farm: Farm) -> None:
    farm.write("echo 0", "echo 1")
    assert farm.run().wait() == 0
    before = snapshot(farm.workdir)
    other = farm.folder / "other.txt"
    other.write_text("echo 0\necho other\n")
    farmer = farm.run("-w", farm.workdir, tasklist=other)
    assert farmer.wait() == USAGE
    assert "belongs to another task list" in farmer.said and str(farm.list) in farmer.said and "-w" in farmer.said
    assert snapshot(farm.workdir) == before


def test_two_spellings_of_a_path_are_one_farm(farm: Farm) -> None:
    farm.write("echo 0", "echo 1")
    assert farm.run().wait() == 0
    (farm.folder / "link").symlink_to(farm.list)
    (farm.folder / "there").symlink_to(farm.folder)
    for tasklist in ("tasks.txt", "./tasks.txt", "../" + farm.folder.name + "/tasks.txt", "there/tasks.txt"):
        farmer = farm.run(tasklist=tasklist)
        assert farmer.wait() == 0
    assert farm.run("-w", "there/tasks.txt_workdir", tasklist="link").wait() == 0
    assert [path.name for path in farm.folder.glob("*_workdir")] == ["tasks.txt_workdir"]
    assert len(farm.check().lines) == 2


def test_a_list_that_was_moved_together_with_its_farm_goes_on(farm: Farm) -> None:
    farm.write("echo 0", "false")
    assert farm.run().wait() == 1
    elsewhere = farm.folder / "else" / "where"
    elsewhere.mkdir(parents=True)
    for path in (farm.list, farm.workdir):
        shutil.move(path, elsewhere)
    farm.list, farm.workdir = elsewhere / "tasks.txt", elsewhere / "tasks.txt_workdir"
    farm.append("echo 2\n")
    assert farm.run().wait() == 1
    assert farm.places() == ([], [0, 2], [1])
    farm.check()


# --- files that are not lists ----------------------------------------------------------------------


def refused(farm: Farm, *words: str, **more: object) -> None:
    """Assert that a run is refused in one line that contains these words, and that no work directory is created."""
    before = {path for path in farm.folder.rglob("*") if path.suffix != ".err"}
    farmer = farm.run(**more)  # type: ignore[arg-type]
    assert farmer.wait(20) == USAGE, farmer.said
    assert len(farmer.said.splitlines()) == 1, farmer.said
    for word in words:
        assert word in farmer.said
    assert {path for path in farm.folder.rglob("*") if path.suffix != ".err"} == before


def test_a_missing_list_is_refused(farm: Farm) -> None:
    refused(farm, str(farm.list), "no such task list")


def test_a_list_in_a_missing_folder_is_refused(farm: Farm) -> None:
    refused(farm, "no such task list", tasklist=farm.folder / "no" / "list")


def test_a_directory_is_refused_as_a_list(farm: Farm) -> None:
    farm.list.mkdir()
    refused(farm, str(farm.list), "is a directory")


def test_a_fifo_is_refused_as_a_list(farm: Farm) -> None:
    os.mkfifo(farm.list)
    refused(farm, str(farm.list), "is a pipe")


@pytest.mark.parametrize("content", [b"\x7fELF\x02\x01\0\0\0", b"echo 0\necho \0\n", b"a" * 5_000_000 + b"\0"])
def test_a_binary_file_is_refused_as_a_list(farm: Farm, content: bytes) -> None:
    farm.list.write_bytes(content)
    refused(farm, str(farm.list), "NUL byte", f"line {content.partition(bytes(1))[0].count(10) + 1}")


def test_a_list_that_may_not_be_read_is_refused(farm: Farm, as_a_user: list[str]) -> None:
    farm.write("true")
    farm.list.chmod(0)
    refused(farm, str(farm.list), "no permission to read", before=as_a_user)


@pytest.mark.parametrize("line", ["#TASKFARMER x", "#TASKFARMER", "#TASKFARMER\tx=1"])
def test_a_reserved_line_is_refused(farm: Farm, line: str) -> None:
    farm.write("true", line, "true")
    refused(farm, str(farm.list), "line 2", "reserved")


def test_a_reserved_line_among_appended_lines_is_named_by_its_number(farm: Farm) -> None:
    farm.write("true", "# a comment", "true")
    assert farm.run().wait() == 0
    farm.append("true\n#TASKFARMER x\n")
    for more in ((), ("--dry-run",)):
        farmer = farm.run(*more)
        assert farmer.wait() == USAGE
        assert f"{farm.list}: line 5: #TASKFARMER is reserved" in farmer.said


def test_a_list_that_did_not_grow_leaves_the_tasks_as_they_are(farm: Farm) -> None:
    farm.write("true", "true")
    assert farm.run().wait() == 0
    before = (farm.workdir / "tasks").stat().st_mtime_ns
    assert farm.run().wait() == 0
    assert (farm.workdir / "tasks").stat().st_mtime_ns == before


def test_a_comment_that_only_resembles_a_reserved_line_is_a_comment(farm: Farm) -> None:
    farm.write("#TASKFARMERS of the world", "# TASKFARMER x", "#taskfarmer", "true")
    assert farm.run().wait() == 0
    assert farm.places() == ([], [0], [])


def test_the_error_for_a_folder_without_write_permission_names_the_remedy(farm: Farm, as_a_user: list[str]) -> None:
    folder = farm.folder / "shared"
    folder.mkdir()
    tasklist = folder / "list"
    tasklist.write_text("true\n")
    folder.chmod(0o555)
    try:
        refused(farm, str(folder), "-w", tasklist=tasklist, before=as_a_user)
        assert farm.run("-w", farm.folder / "mine", tasklist=tasklist, before=as_a_user).wait() == 0
    finally:
        folder.chmod(0o755)


def test_a_work_directory_that_is_a_file_is_refused(farm: Farm) -> None:
    farm.write("true")
    farm.workdir.write_text("precious\n")
    refused(farm, str(farm.workdir), "-w")
    assert farm.workdir.read_text() == "precious\n"


def test_a_work_directory_with_other_things_in_it_is_left_alone_or_used_without_harm(farm: Farm) -> None:
    farm.write("true")
    farm.workdir.mkdir()
    (farm.workdir / "precious").write_text("precious\n")
    farm.run()
    assert (farm.workdir / "precious").read_text() == "precious\n"
