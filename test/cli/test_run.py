"""`pytaskfarmer.py TASKLIST` and `taskfarmer run TASKLIST` from end to end."""

from __future__ import annotations

import os
import re
import signal
import stat
import subprocess
import time
from collections.abc import Callable

import pytest

from support.house import PROGRAMS, TOP, Done, House

Run = Callable[..., Done]
PREFIX = re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d \S+: ")


def test_a_list_runs_and_every_task_is_in_one_view(farm_run: Run) -> None:
    done = farm_run("echo a\nexit 3\n# a comment\n\necho c\n")
    assert done.status == 1
    assert sorted(done.view("finished")) == ["0 echo a", "2 echo c"]
    assert done.view("failed") == ["1 exit 3"]
    assert done.view("toprocess") == []
    assert done.stdout == b""


def test_the_closing_lines_list_the_remaining_tasks_and_the_logs(farm_run: Run) -> None:
    done = farm_run("true\nexit 3\n")
    assert "this farmer: 1 finished, 1 failed" in done.stderr
    assert "the farm: 2 tasks: 1 finished, 1 failed, 0 unprocessed" in done.stderr
    assert "failed: 1; see list.txt_workdir/failed" in done.stderr
    assert "taskfarmer logs list.txt_workdir --failed" in done.stderr
    assert all(PREFIX.match(line) for line in done.stderr.splitlines())


def test_quiet_prints_nothing_if_all_tasks_finish(farm_run: Run) -> None:
    done = farm_run("true\n", "--quiet")
    assert (done.status, done.stderr) == (0, "")


def test_quiet_prints_failed_tasks(farm_run: Run) -> None:
    done = farm_run("false\n", "-q")
    assert done.status == 1
    assert "failed: 1; see" in done.error_line


def test_both_commands_run_a_list(house: House) -> None:
    house.write("true\n")
    assert house.command("pytaskfarmer.py", "list.txt", "-w", "one").status == 0
    assert house.verb("run", "list.txt", "-w", "two").status == 0


def test_a_list_that_is_named_like_a_verb_is_a_list(house: House) -> None:
    (house.folder / "status").write_text("true\n")
    assert house.command("pytaskfarmer.py", "status").status == 0
    assert (house.folder / "status_workdir" / "finished").read_text() == "0 true\n"


def test_the_top_level_script_runs_by_its_path_and_through_a_link(house: House) -> None:
    assert os.stat(TOP / "pytaskfarmer.py").st_mode & stat.S_IXUSR
    (house.folder / "link").symlink_to(TOP / "pytaskfarmer.py")
    done = house.process([*PROGRAMS["pytaskfarmer.py"][:1], "link", "--version"], environ={"PYTHONPATH": ""})
    assert done.status == 0
    assert done.out.startswith("taskfarmer ")


@pytest.mark.parametrize(
    "options",
    [
        ["-n", "2", "--timeout", "1:00", "--verbose=1", "-r", "default", "-t", "default"],
        ["--proc=2", "--timeout=60", "-v", "True", "--runner=default", "--tasklist", "default"],
        ["--work", "farm", "--logDir", "logs", "-n"],
        ["-j", "auto", "--grace", "0", "--lease", "5m", "--max-deaths", "0", "--epoch-length", "4", "--wait"],
        ["--timeout", "none", "--lock-dir", "."],
    ],
)
def test_options_of_old_and_new_scripts_are_accepted(farm_run: Run, options: list[str]) -> None:
    done = farm_run("true\n", *options)
    assert done.status == 0, done.stderr


def test_logs_go_to_the_directory_of_logs_dir(farm_run: Run, house: House) -> None:
    assert farm_run("echo there\n", "--logs-dir", "elsewhere").status == 0
    assert (house.folder / "elsewhere" / "log_0").read_bytes() == b"there\n"
    assert house.verb("logs", "list.txt_workdir", "0").out == "there\n"


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["-n", "0"], "-n/--proc/-j/--jobs: must be 1 to 4096, not 0"),
        (["-n", "4097"], "must be 1 to 4096, not 4097"),
        (["-n", "-4"], "must be 1 to 4096, not -4"),
        (["-n", "many"], "'many' is not a number of tasks"),
        (["--timeout", "0"], "--timeout: must be longer than 0 s; use `none`"),
        (["--timeout", "-5"], "--timeout: invalid duration '-5'"),
        (["--timeout", "nan"], "--timeout: invalid duration 'nan'"),
        (["--timeout", "1:90"], "--timeout: invalid duration '1:90'"),
        (["--grace", "none"], "--grace: invalid duration 'none'"),
        (["--lease", "0.5"], "--lease: must be at least 1 s"),
        (["--max-deaths", "-1"], "--max-deaths: "),
        (["--epoch-length", "0"], "--epoch-length: "),
        (["-w", ""], "-w/--workdir: empty path"),
        (["-q", "-v"], "exclude each other"),
        (["--unknown"], "--unknown"),
        (["another.txt"], "another.txt"),
        (["-w"], "-w"),
        (["--w", "dir"], "--w is ambiguous"),
    ],
)
def test_wrong_usage_is_one_line_and_no_farm_is_created(house: House, options: list[str], words: str) -> None:
    house.write("true\n")
    done = house.command("pytaskfarmer.py", "list.txt", *options)
    assert done.status == 2
    assert done.error_line.startswith("pytaskfarmer.py: error: ")
    assert words in done.error_line
    assert sorted(path.name for path in house.folder.iterdir()) == ["home", "list.txt"]


def test_a_bare_n_directly_before_the_list_is_explained(house: House) -> None:
    house.write("true\n")
    done = house.command("pytaskfarmer.py", "-n", "list.txt")
    assert done.status == 2
    assert "'list.txt' is not a number of tasks" in done.error_line
    assert "`-n auto list.txt`" in done.error_line


def test_the_error_for_no_list_is_one_line(house: House) -> None:
    done = house.command("pytaskfarmer.py")
    assert done.status == 2
    assert "TASKLIST" in done.error_line
    assert "see pytaskfarmer.py --help" in done.error_line


def test_the_error_for_a_missing_list_is_one_line_and_no_farm_is_created(house: House) -> None:
    done = house.command("pytaskfarmer.py", "nowhere.txt")
    assert done.status == 2
    assert done.error_line.startswith("pytaskfarmer.py: error: nowhere.txt: ")
    assert [path.name for path in house.folder.iterdir()] == ["home"]


def test_a_name_with_control_characters_is_escaped_in_messages(house: House) -> None:
    done = house.command("pytaskfarmer.py", "no\x1b[31m\nwhere")
    assert done.status == 2
    assert "no\\x1b[31m" in done.error_line


# --- exit status -------------------------------------------------------------------------------------


@pytest.mark.parametrize(("text", "plain"), [("true\n", 0), ("false\n", 1), ("", 0)])
def test_exit_zero_ignores_failed_tasks(farm_run: Run, house: House, text: str, plain: int) -> None:
    assert farm_run(text).status == plain
    assert house.command("pytaskfarmer.py", "list.txt", "--exit-zero").status == 0


def test_a_timeout_exits_75_with_a_remedy_also_with_exit_zero(farm_run: Run, house: House) -> None:
    done = farm_run("sleep 60\n" * 3, "-n", "1", "--timeout", "0.3", "--grace", "1")
    assert done.status == 75
    assert "3 tasks are unprocessed: run the same command again (exit status 75)" in done.stderr
    assert done.view("toprocess") == ["0 sleep 60", "1 sleep 60", "2 sleep 60"]
    again = house.command("pytaskfarmer.py", "list.txt", "-n", "1", "--timeout", "0.3", "--exit-zero")
    assert again.status == 75


def test_exit_zero_does_not_hide_wrong_usage(house: House) -> None:
    assert house.command("pytaskfarmer.py", "nowhere.txt", "--exit-zero").status == 2


@pytest.mark.parametrize("number", [signal.SIGUSR1, signal.SIGTERM, signal.SIGINT])
def test_a_stop_signal_releases_running_tasks(house: House, number: signal.Signals) -> None:
    house.write("touch began; sleep 60\n")
    process = subprocess.Popen(
        [*PROGRAMS["pytaskfarmer.py"], "list.txt", "--grace", "1"],
        cwd=house.folder,
        env=house.environ,
        stderr=subprocess.PIPE,
    )
    try:
        _until((house.folder / "began").exists)
        process.send_signal(number)
        _, stderr = process.communicate(timeout=30)
    finally:
        process.kill()
    assert process.returncode == 75
    assert f"stopped by {number.name}" in stderr.decode()
    assert (house.workdir / "toprocess").read_text() == "0 touch began; sleep 60\n"


def _until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


# --- dry run -----------------------------------------------------------------------------------------


def test_a_dry_run_lists_the_tasks_and_touches_nothing(house: House) -> None:
    house.write(b"echo caf\xe9\n# no\n\necho b")
    done = house.command("pytaskfarmer.py", "list.txt", "--dry-run")
    assert (done.status, done.stdout, done.stderr) == (0, b"0 echo caf\xe9\n1 echo b\n", "")
    assert not house.workdir.exists()


def test_a_dry_run_of_a_farm_lists_the_remaining_tasks(farm_run: Run, house: House) -> None:
    farm_run("true\nfalse\n")
    house.verb("retry", "list.txt_workdir", "--failed")
    house.list.write_text("true\nfalse\necho new\n")
    done = house.command("pytaskfarmer.py", "list.txt", "--dry-run")
    assert done.stdout == b"1 false\n2 echo new\n"


def test_a_dry_run_may_be_truncated_by_head(house: House) -> None:
    house.write("echo something that is long enough to fill a pipe in the end\n" * 50_000)
    line = f"{' '.join(PROGRAMS['pytaskfarmer.py'])} list.txt --dry-run | head -1; echo ${{PIPESTATUS[0]}}"
    done = house.process(["bash", "-c", line])
    assert done.out.splitlines()[0].startswith("0 echo something")
    assert done.out.splitlines()[1] == "0"
    assert done.stderr == ""


# --- streams -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("streams", ["2>&-", ">&- 2>&-", "<&- >&- 2>&-", "2>/dev/full", "2> >(exec true)"])
def test_a_farmer_continues_if_its_streams_are_closed_or_broken(house: House, streams: str) -> None:
    house.write("echo out; false\ntrue\n" * 20)
    line = f"{' '.join(PROGRAMS['pytaskfarmer.py'])} list.txt -v {streams}; echo $? > status"
    house.process(["bash", "-c", line])
    assert (house.folder / "status").read_text() == "1\n"
    assert (house.workdir / "logs" / "log_0").read_text() == "out\n"
    assert house.verb("check", "list.txt_workdir").status == 0


def test_the_error_for_stdout_on_a_full_disk_is_one_line(house: House) -> None:
    house.write("true\n")
    line = f"{' '.join(PROGRAMS['pytaskfarmer.py'])} list.txt --dry-run > /dev/full"
    done = house.process(["bash", "-c", line])
    assert done.status == 74
    assert done.error_line == "pytaskfarmer.py: error: stdout: No space left on device; free some space"


# --- imports -----------------------------------------------------------------------------------------

HEAVY = ("pydantic", "rich", "filelock", "multiprocessing", "asyncio", "importlib.metadata", "subprocess")


def _imported(house: House, *args: str) -> set[str]:
    done = house.process([PROGRAMS["taskfarmer"][0], "-X", "importtime", *args])
    assert done.status == 0
    return {line.rpartition("|")[2].strip() for line in done.stderr.splitlines() if line.startswith("import time:")}


@pytest.mark.parametrize("option", ["--version", "--help"])
def test_version_and_help_import_no_large_packages(house: House, option: str) -> None:
    found = _imported(house, str(TOP / "pytaskfarmer.py"), option)
    assert ("click" in found) == (option == "--help")
    assert found.isdisjoint(HEAVY)


def test_a_run_imports_neither_pydantic_nor_rich(house: House) -> None:
    house.write("true\n")
    found = _imported(house, str(TOP / "pytaskfarmer.py"), "list.txt")
    assert "filelock" in found
    assert found.isdisjoint(("pydantic", "rich", "asyncio", "importlib.metadata"))


@pytest.mark.parametrize("program", PROGRAMS)
def test_help_contains_examples_statuses_and_variables(house: House, program: str) -> None:
    args = ["--help"] if program == "pytaskfarmer.py" else ["run", "-h"]
    done = house.command(program, *args)
    assert done.status == 0
    for word in ("Examples:", "Exit status:", "75", "SCRATCH", "TASKFARMER_CONFIG_DIR", "--exit-zero"):
        assert word in done.out
    assert "epoch-length" not in done.out


def test_the_common_options_are_on_the_first_screen_and_the_others_follow_under_headings(house: House) -> None:
    lines = house.command("pytaskfarmer.py", "--help", environ={"COLUMNS": "80"}).out.splitlines()
    headings = [line for line in lines if line.endswith(":") and not line.startswith(" ")]
    assert headings == ["Common options:", "Time limits:", "Logs:", "Farm and tasks:", "Compatibility:"]
    first_screen = " ".join(lines[:24]).replace(",", "").split()
    assert {"--proc", "--workdir", "--dry-run", "--help"} <= set(first_screen)
    assert max(map(len, lines)) <= 80
