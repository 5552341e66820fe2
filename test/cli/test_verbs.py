"""`status`, `logs`, `retry`, and the reaction of all verbs to a wrong work directory."""

from __future__ import annotations

import json
import os
import pty
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from support.house import PROGRAMS, Done, House

Run = Callable[..., Done]
WORKDIR = "list.txt_workdir"


def status(house: House) -> dict[str, Any]:
    done = house.verb("status", WORKDIR, "--json")
    assert done.status == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


@contextmanager
def farmer(house: House, text: str, *options: str) -> Iterator[subprocess.Popen[bytes]]:
    """A farmer whose tasks have started: each touches `began-ID`."""
    house.write(text)
    process = subprocess.Popen(
        [*PROGRAMS["pytaskfarmer.py"], "list.txt", "--grace", "0", *options],
        cwd=house.folder,
        env=house.environ,
        stderr=subprocess.DEVNULL,
    )
    try:
        end = time.monotonic() + 30
        while not (house.folder / "began").exists():
            assert time.monotonic() < end and process.poll() is None
            time.sleep(0.01)
        yield process
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(30)
        finally:
            process.kill()


# --- a wrong work directory ----------------------------------------------------------------------------


@pytest.mark.parametrize("verb", [["status"], ["logs", "0"], ["retry", "--failed"], ["check"], ["check", "--repair"]])
def test_the_error_for_a_directory_without_a_farm_is_one_line_and_changes_nothing(
    house: House, verb: list[str]
) -> None:
    (house.folder / "empty").mkdir()
    for name in ("empty", "nowhere"):
        done = house.verb(verb[0], name, *verb[1:])
        assert done.status == 2
        assert "no farm here" in done.error_line
        assert name in done.error_line
    assert list((house.folder / "empty").iterdir()) == []


def test_the_error_for_a_list_in_place_of_its_farm_is_explained(farm_run: Run, house: House) -> None:
    farm_run("true\n")
    done = house.verb("status", "list.txt")
    assert done.status == 2
    assert "the work directory of this task list is list.txt_workdir" in done.error_line


def test_an_unknown_verb_names_the_verbs_and_how_to_run_a_list(house: House) -> None:
    done = house.verb("list.txt")
    assert done.status == 2
    assert "status" in done.error_line
    assert "pytaskfarmer.py TASKLIST" in done.error_line


def test_the_error_for_no_verb_is_one_line(house: House) -> None:
    done = house.verb()
    assert done.status == 2
    assert "see taskfarmer --help" in done.error_line


@pytest.mark.parametrize(
    "verb", [[], *([name] for name in ("status", "logs", "retry", "runners", "handlers", "check", "completion"))]
)
def test_every_verb_has_a_help(house: House, verb: list[str]) -> None:
    done = house.verb(*verb, "-h")
    assert done.status == 0
    assert "Examples:" in done.out
    assert done.stderr == ""


# --- status --------------------------------------------------------------------------------------------


def test_status_counts_every_task_in_one_place(farm_run: Run, house: House) -> None:
    farm_run("true\nexit 3\nkill -9 $$\n")
    found = status(house)
    assert found["schema_version"] == 1
    assert (found["tasks"], found["finished"], found["failed"]) == (3, 1, 2)
    assert (found["held"], found["unprocessed"], found["farmers"]) == (0, 0, [])
    assert {(one["task_id"], one["status"], one["signal"]) for one in found["failures"]} == {(1, 3, 0), (2, 0, 9)}
    assert all(os.path.isfile(one["log"]) for one in found["failures"])


def test_status_for_people_is_plain_lines_off_a_terminal(farm_run: Run, house: House) -> None:
    farm_run("exit 3 # \x1b[31mred\ntrue\n")
    done = house.verb("status", WORKDIR)
    assert done.status == 0
    assert "\x1b" not in done.out
    assert "\\x1b[31mred" in done.out
    assert "exit status 3" in done.out
    assert any(line.split()[:2] == ["finished", "1"] for line in done.out.splitlines())


def test_status_on_a_terminal_is_a_table(farm_run: Run, house: House) -> None:
    farm_run("false\n")
    ours, theirs = pty.openpty()
    try:
        done = subprocess.run(
            [*PROGRAMS["taskfarmer"], "status", WORKDIR],
            cwd=house.folder,
            env={**house.environ, "TERM": "xterm", "COLUMNS": "200"},
            stdout=theirs,
            stderr=subprocess.PIPE,
            timeout=60,
            check=False,
        )
        shown = os.read(ours, 65536).decode()
    finally:
        os.close(ours)
        os.close(theirs)
    assert (done.returncode, done.stderr) == (0, b"")
    assert "COMMAND" in shown
    assert "─" in shown


def test_status_shows_the_newest_ten_failures_and_how_many_there_are(farm_run: Run, house: House) -> None:
    farm_run("false\n" * 15, "-n", "1")
    found = status(house)
    assert found["failed"] == 15
    assert [one["task_id"] for one in found["failures"]] == list(range(14, 4, -1))
    assert "the newest of 15" in house.verb("status", WORKDIR).out


def test_a_retried_failure_does_not_count_as_a_failure(farm_run: Run, house: House) -> None:
    farm_run("test -e there\nfalse\nfalse\n")
    house.verb("retry", WORKDIR, "0", "1")
    assert [one["task_id"] for one in status(house)["failures"]] == [2]
    (house.folder / "there").touch()
    house.command("pytaskfarmer.py", "list.txt")
    assert {(one["task_id"], one["attempt"]) for one in status(house)["failures"]} == {(1, 2), (2, 1)}


def test_status_lists_live_farmers(house: House) -> None:
    with farmer(house, "touch began; sleep 60\nsleep 60\nsleep 60\n", "-n", "2") as process:
        found = status(house)
        (one,) = found["farmers"]
        assert (one["pid"], one["slots"], one["verdict"]) == (process.pid, 2, "alive")
        assert one["host"] == os.uname().nodename
        assert found["held"] == one["held"] >= 2
        assert "alive" in house.verb("status", WORKDIR).out


def test_status_shows_that_a_killed_farmer_is_gone(house: House) -> None:
    with farmer(house, "touch began; exec sleep 60\n") as process:
        process.kill()
        process.wait()
        end = time.monotonic() + 30
        while (verdict := status(house)["farmers"][0]["verdict"]) != "gone":
            assert verdict == "unknown"  # its processes are still about to exit
            assert time.monotonic() < end
        assert status(house)["held"] == 1


def test_a_change_of_toprocess_by_the_user_is_reported(farm_run: Run, house: House) -> None:
    done = farm_run("sleep 60\n" * 3, "-n", "1", "--timeout", "0.2", "--grace", "0")
    assert done.status == 75
    assert status(house)["warnings"] == []
    with open(house.workdir / "toprocess", "a") as file:
        file.write("9 echo mine\n")
    (warning,) = status(house)["warnings"]
    assert "toprocess was edited by hand" in warning
    assert "taskfarmer retry" in warning
    assert "warning: " in house.verb("status", WORKDIR).error_line


def test_names_and_commands_that_are_not_utf8_make_valid_json(house: House) -> None:
    name = os.fsdecode(b"l\xe9st")
    (house.folder / name).write_bytes(b"false # caf\xe9\n")
    house.command("pytaskfarmer.py", name, "-w", "farm")
    done = house.verb("status", "farm", "--json")
    found = json.loads(done.stdout.decode("ascii"))
    assert found["list_path"].endswith("l\\xe9st")
    assert found["failures"][0]["command"] == "false # caf\\xe9"


# --- logs ----------------------------------------------------------------------------------------------


def test_one_log_is_printed_unchanged(farm_run: Run, house: House) -> None:
    farm_run(b"printf 'caf\\351'\n")
    done = house.verb("logs", WORKDIR, 0)
    assert (done.status, done.stdout) == (0, b"caf\xe9")


def test_several_logs_have_a_header_each(farm_run: Run, house: House) -> None:
    farm_run("echo a\nprintf b\necho c\n")
    logs = house.workdir / "logs"
    done = house.verb("logs", WORKDIR, "1-2", "0")
    assert (
        done.out
        == f"==> task 1: {logs}/log_1 <==\nb\n==> task 2: {logs}/log_2 <==\nc\n==> task 0: {logs}/log_0 <==\na\n"
    )


def test_the_logs_of_failed_tasks_need_no_ids(farm_run: Run, house: House) -> None:
    farm_run("echo a\necho b; false\n")
    assert house.verb("logs", WORKDIR, "--failed").out == "b\n"


def test_a_task_without_a_log_is_named_with_its_place(farm_run: Run, house: House) -> None:
    farm_run("sleep 60\ntrue\n", "-n", "1", "--timeout", "0.2", "--grace", "0")
    done = house.verb("logs", WORKDIR, "1")
    assert done.status == 1
    assert "task 1 has no log" in done.error_line
    assert "it is unprocessed" in done.error_line


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["9"], "task 9 is not in this farm, which has tasks 0 to 1"),
        (["0-99999999999"], "not in this farm"),
        (["x"], "invalid task ID 'x'"),
        (["1-0"], "invalid range '1-0'"),
        ([], "give task IDs, or --failed"),
        (["1", "--failed"], "not both"),
    ],
)
@pytest.mark.parametrize("verb", ["logs", "retry"])
def test_the_error_for_wrong_ids_is_one_line(
    farm_run: Run, house: House, verb: str, args: list[str], words: str
) -> None:
    farm_run("true\nfalse\n")
    done = house.verb(verb, WORKDIR, *args)
    assert done.status == 2
    assert words in done.error_line
    assert status(house)["unprocessed"] == 0


# --- retry ---------------------------------------------------------------------------------------------


def test_failed_tasks_run_again_after_a_retry(farm_run: Run, house: House) -> None:
    farm_run("true\ntest -e there\ntest -e there\n")
    done = house.verb("retry", WORKDIR, "--failed")
    assert done.status == 0
    assert done.out.startswith("2 tasks are unprocessed again; to run all unprocessed tasks: pytaskfarmer.py ")
    assert (house.workdir / "toprocess").read_text() == "1 test -e there\n2 test -e there\n"
    assert (house.workdir / "failed").read_text() == ""
    (house.folder / "there").touch()
    line = done.out.partition(": ")[2].split()[1:]
    again = house.command("pytaskfarmer.py", *line)
    assert again.status == 0
    assert sorted(again.view("finished")) == ["0 true", "1 test -e there", "2 test -e there"]
    assert house.verb("check", WORKDIR).status == 0


def test_tasks_are_retried_by_ids_and_ranges_also_finished_ones(farm_run: Run, house: House) -> None:
    farm_run("true\n" * 9)
    assert house.verb("retry", WORKDIR, "3-5", "4", "0").out.startswith("4 tasks are unprocessed again")
    found = status(house)
    assert (found["unprocessed"], found["finished"]) == (4, 5)
    assert [line.split()[0] for line in (house.workdir / "toprocess").read_text().splitlines()] == ["0", "3", "4", "5"]


def test_a_task_that_is_not_recorded_is_refused_and_nothing_is_changed(farm_run: Run, house: House) -> None:
    farm_run("true\n")
    house.verb("retry", WORKDIR, "0")
    before = status(house)
    done = house.verb("retry", WORKDIR, "0")
    assert done.status == 2
    assert "task 0 cannot be retried: it is unprocessed" in done.error_line
    assert status(house) == before


def test_the_retry_of_a_claimed_task_is_refused_with_the_name_of_its_farmer(house: House) -> None:
    with farmer(house, "touch began; sleep 60\n"):
        name = status(house)["farmers"][0]["farmer"]
        done = house.verb("retry", WORKDIR, "0")
        assert done.status == 2
        assert f"it is claimed by {name}" in done.error_line


def test_a_retry_without_failed_tasks_is_not_an_error(farm_run: Run, house: House) -> None:
    farm_run("true\n")
    done = house.verb("retry", WORKDIR, "--failed")
    assert (done.status, done.stderr) == (0, "")
    assert "no failed tasks to retry" in done.out


def test_the_command_to_run_contains_a_non_default_work_directory(house: House) -> None:
    house.write("false\n")
    house.command("pytaskfarmer.py", "list.txt", "-w", "my farm")
    done = house.verb("retry", "my farm", "--failed")
    assert f"-w '{house.folder}/my farm'" in done.out
