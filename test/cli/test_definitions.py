"""`taskfarmer runners`, `taskfarmer handlers`, `taskfarmer completion`, and unexpected errors."""

from __future__ import annotations

import signal
import subprocess
import sys

import pytest

from support.house import PROGRAMS, TOP, House


def test_the_default_runner_is_shown_with_its_class(house: House) -> None:
    done = house.verb("runners")
    assert (done.status, done.stderr) == (0, "")
    assert done.out.splitlines()[1].split()[:3] == ["default", "yes", "taskfarmer.runners.BasicRunner"]


def test_runners_are_shown_with_their_file_and_their_problems(house: House) -> None:
    (house.folder / "my.ini").write_text(
        "[good]\nRunner = taskfarmer.runners.ShifterRunner\nimage = img\n\n[bad]\nRunner = nowhere.Runner\n\n"
        "[lines]\nTaskList = taskfarmer.tasks.ListTaskList\n"
    )
    done = house.verb("runners", "--config", "my.ini")
    rows = {line.split()[0]: line.split()[1:] for line in done.out.splitlines()}
    assert done.status == 0
    assert rows["good"][0] == "yes"
    assert rows["good"][2:] == ["my.ini", "image=img"]
    assert rows["bad"][0] == "no"
    assert "lines" not in rows
    assert done.error_line.startswith("not usable: my.ini: [bad] Runner: module nowhere cannot be imported")


def test_handlers_are_shown_likewise(house: House) -> None:
    (house.folder / "my.ini").write_text("[lines]\nTaskList = taskfarmer.tasks.ListTaskList\n")
    done = house.verb("handlers")
    assert [line.split()[:2] for line in done.out.splitlines()[1:]] == [["default", "yes"], ["lines", "yes"]]


def test_a_file_that_cannot_be_parsed_is_a_warning(house: House) -> None:
    (house.folder / "my.ini").write_text("[broken\nRunner = x\n")
    done = house.verb("runners")
    assert done.status == 0
    assert done.error_line.startswith("warning: ")
    assert "my.ini" in done.error_line


def test_an_unknown_runner_is_one_line_and_no_farm_is_created(house: House) -> None:
    house.write("true\n")
    done = house.command("pytaskfarmer.py", "list.txt", "-r", "nobody")
    assert done.status == 2
    assert "no runner named 'nobody'" in done.error_line
    assert not house.workdir.exists()


# --- completion ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_script_completes_both_commands(house: House, shell: str) -> None:
    done = house.verb("completion", shell)
    assert done.status == 0
    assert "_TASKFARMER_COMPLETE" in done.out
    assert "_PYTASKFARMER_PY_COMPLETE" in done.out


def test_bash_accepts_the_script(house: House) -> None:
    script = house.verb("completion", "bash").stdout
    done = house.process(["bash", "-c", 'eval "$(cat)"; complete -p taskfarmer pytaskfarmer.py'], input=script)
    assert (done.status, done.stderr) == (0, "")


@pytest.mark.parametrize(
    ("program", "words", "expected"),
    [
        ("taskfarmer", "taskfarmer st", ["plain,status", "plain,stop"]),
        ("taskfarmer", "taskfarmer check --rep", ["plain,--repair"]),
        ("pytaskfarmer.py", "pytaskfarmer.py list.txt -q --time", ["plain,--timeout"]),
        ("pytaskfarmer.py", "pytaskfarmer.py li", ["file,li"]),
        ("pytaskfarmer.py", "pytaskfarmer.py li -w fa", ["dir,fa"]),
    ],
)
def test_words_are_completed_by_click(house: House, program: str, words: str, expected: list[str]) -> None:
    variable = {"taskfarmer": "_TASKFARMER_COMPLETE", "pytaskfarmer.py": "_PYTASKFARMER_PY_COMPLETE"}[program]
    environ = {variable: "bash_complete", "COMP_WORDS": words, "COMP_CWORD": str(len(words.split()) - 1)}
    done = house.process(PROGRAMS[program], environ=environ)
    assert done.out.split() == expected


# --- unexpected errors ---------------------------------------------------------------------------------

BREAK = """
import sys
from taskfarmer.cli import program
def broken(path):
    raise {error}
import taskfarmer.cli.status
taskfarmer.cli.status.open_farm = broken
sys.exit(program.main("taskfarmer", sys.argv[1:]))
"""


def test_an_unexpected_error_is_one_line_and_verbose_shows_where(house: House) -> None:
    words = [sys.executable, "-c", BREAK.format(error="RuntimeError('a\\nb')"), "status", "x"]
    done = house.process(words)
    assert done.status == 70
    assert done.error_line.startswith("taskfarmer: error: internal error: RuntimeError: a b; please report it")
    done = house.process([*words, "--verbose"])
    assert done.status == 70
    assert "Traceback" in done.stderr


def test_an_error_of_the_system_names_the_file(house: House) -> None:
    error = "PermissionError(13, 'Permission denied', '/some/file')"
    done = house.process([sys.executable, "-c", BREAK.format(error=error), "status", "x"])
    assert (done.status, done.error_line) == (
        74,
        "taskfarmer: error: /some/file: Permission denied; restore its permissions, or ask its owner",
    )


@pytest.mark.parametrize(
    ("error", "status"), [("KeyboardInterrupt", 130), ("EOFError('end')", 70), ("ModuleNotFoundError(name='x')", 2)]
)
def test_no_error_ends_in_a_traceback(house: House, error: str, status: int) -> None:
    done = house.process([sys.executable, "-c", BREAK.format(error=error), "status", "x"])
    assert done.status == status
    assert "Traceback" not in done.stderr


def test_a_missing_dependency_is_reported(house: House) -> None:
    done = house.process([sys.executable, "-S", "-E", str(TOP / "pytaskfarmer.py"), "list.txt"])
    assert done.status == 2
    assert done.error_line.startswith(f"pytaskfarmer.py: error: {sys.executable} has no module click; ")


def test_a_verb_other_than_run_exits_on_a_signal_at_once(house: House) -> None:
    house.write("true\n" * 200_000)
    process = subprocess.Popen(
        [*PROGRAMS["pytaskfarmer.py"], "list.txt", "--dry-run"],
        cwd=house.folder,
        env=house.environ,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    try:
        assert process.stdout is not None
        assert process.stdout.read(10)  # the rest fills the pipe
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == -signal.SIGTERM
    finally:
        process.kill()
        process.communicate()
