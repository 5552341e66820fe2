"""Commands, logs and names of other users on a terminal: escaped there, unchanged in a pipe."""

from __future__ import annotations

import os
import pty
import re
import subprocess
import sys
import termios
import tty
from collections.abc import Sequence
from pathlib import Path

import pytest

from support.farming import eventually, need
from support.house import PROGRAMS, House

HOSTILE = b"\x1b]0;title\x07 \x1b[2J\x1b[31m \x9b2J \xc2\x9b2J \xe2\x80\xae \xff \x08\x7f \r"
"""Title, bell, clear, color, C1 as a byte and as a character, right-to-left override, invalid UTF-8, backspace."""

NAME = os.fsdecode(HOSTILE.replace(b" ", b"-"))

LOOK = re.compile(rb"\x1b\[[\d;]*m")
"""Rich's own colors, the only control sequences that may reach a terminal."""


def on_terminal(house: House, words: Sequence[str], before: Sequence[str] = ()) -> tuple[int, bytes]:
    """The exit status of a command whose output is a terminal, and the bytes that reached the terminal."""
    ours, theirs = pty.openpty()
    tty.setraw(theirs, termios.TCSANOW)  # so that the terminal adds no CR
    environ = {**house.environ, "TERM": "xterm", "COLUMNS": "400", "LC_ALL": "C.UTF-8"}
    process = subprocess.Popen(
        [*before, *words], cwd=house.folder, env=environ, stdin=subprocess.DEVNULL, stdout=theirs, stderr=theirs
    )
    os.close(theirs)
    shown = b""
    try:
        while data := os.read(ours, 65536):
            shown += data
    except OSError:  # EIO: the other end is closed
        pass
    finally:
        os.close(ours)
    return process.wait(60), shown


def harmless(shown: bytes, colors: bool = False) -> str:
    """The shown text, after a check of each character."""
    text = (LOOK.sub(b"", shown) if colors else shown).decode("utf-8")
    assert [letter for letter in text if not letter.isprintable() and letter not in "\n\t"] == [], shown
    return text


SILENT = ("check", "retry")
"""Verbs that may print nothing that contains a name."""


def taskfarmer(*words: object) -> list[str]:
    return [*PROGRAMS["taskfarmer"], *map(str, words)]


@pytest.fixture
def farm(house: House) -> House:
    """A farm with hostile commands and logs: one task finished, one failed."""
    house.write(b"printf '%s\\n' '" + HOSTILE + b"'; exit 3\n" + b"printf 'a\\tb\\ncaf\\303\\251' # " + HOSTILE + b"\n")
    done = house.command("pytaskfarmer.py", "list.txt")
    assert done.status == 1, done.stderr
    return house


def test_a_log_is_escaped_on_a_terminal_and_unchanged_in_a_pipe(farm: House) -> None:
    status, shown = on_terminal(farm, taskfarmer("logs", farm.workdir, 0))
    text = harmless(shown)
    assert status == 0
    assert text == "\\x1b]0;title\\x07 \\x1b[2J\\x1b[31m \\x9b2J \\x9b2J \\u202e \\xff \\x08\\x7f \\r\n"
    assert farm.verb("logs", farm.workdir, 0).stdout == HOSTILE + b"\n"
    assert on_terminal(farm, taskfarmer("logs", farm.workdir, 1)) == (0, "a\tb\ncafé".encode())


def test_characters_stay_intact_at_any_position_where_a_long_log_is_cut(farm: House) -> None:
    log = farm.workdir / "logs" / "log_0"
    log.write_text("x" + "é漢" * 50_000 + "\n")
    status, shown = on_terminal(farm, taskfarmer("logs", farm.workdir, "0-1"))
    assert status == 0
    assert shown.decode() == (
        f"==> task 0: {log} <==\n{log.read_text()}==> task 1: {farm.workdir}/logs/log_1 <==\na\tb\ncafé\n"
    )


def test_a_dry_run_is_escaped_on_a_terminal_and_unchanged_in_a_pipe(farm: House) -> None:
    words = ("run", "list.txt", "--dry-run", "-w", "elsewhere")
    status, shown = on_terminal(farm, taskfarmer(*words))
    assert status == 0
    # the first one ends with a carriage return before its quote, so its line is JSON
    assert (harmless(shown).count("\\x1b]0;title"), harmless(shown).count("\\u001b]0;title")) == (1, 1)
    assert farm.verb(*words).stdout.endswith(b" # " + HOSTILE.rstrip() + b"\n")


@pytest.mark.parametrize(
    "words",
    [
        ("run", NAME),
        ("run", NAME, "--dry-run", "-w", "elsewhere"),
        ("status", NAME + "_workdir"),
        ("status", NAME + "_workdir", "--json"),
        ("logs", NAME + "_workdir", "--failed"),
        ("logs", NAME + "_workdir", "0", "1", "2"),
        ("check", NAME + "_workdir"),
        ("retry", NAME + "_workdir", "0"),
        ("retry", NAME + "_workdir", "99"),
        ("run", "no" + NAME),
        ("run", NAME, "-n", NAME),
        ("run", NAME, "-r", NAME),
        ("run", NAME, "-t", NAME),
        ("--" + NAME,),
        (NAME,),
        ("logs", "no" + NAME, "1"),
    ],
    ids=lambda words: " ".join(words).replace(NAME, "NAME"),
)
def test_hostile_names_and_commands_are_escaped_on_a_terminal(named: House, words: tuple[str, ...]) -> None:
    status, shown = on_terminal(named, taskfarmer(*words))
    text = harmless(shown, colors=words[0] == "status")
    assert status in (0, 1, 2, 74, 75)
    assert "Traceback" not in text
    assert "x1b]0;title" in text or "u001b]0;title" in text or words[0] in SILENT


@pytest.fixture(scope="module")
def named(tmp_path_factory: pytest.TempPathFactory) -> House:
    """A farm whose list has a hostile name, and a log file is missing, so that some verbs print a name."""
    house = House(tmp_path_factory.mktemp("named"))
    (house.folder / NAME).write_bytes(b"false # " + HOSTILE + b"\n" + b"true\nfalse\n")
    assert house.command("pytaskfarmer.py", NAME).status == 1
    work = house.folder / (NAME + "_workdir")
    (work / "logs" / "log_1").unlink()
    (work / "finished").write_bytes(HOSTILE)
    return house


PLUGIN = """
import os
import signal
import subprocess

class Runner:
    def __init__(self, **options):
        raise ValueError({text!r})

class Late:
    def run(self, taskid, command, logfh):
        raise ValueError({text!r})

class Deaf:
    def run(self, taskid, command, logfh):
        os.kill(os.getppid(), signal.SIGUSR1)  # this stops the farmer when the task runs, even on a slow machine
        return subprocess.call(command, shell=True)
    def terminate(self):
        raise ValueError({text!r})

class Lines:
    def __init__(self, path, workdir):
        raise ValueError({text!r})
    def __len__(self):
        return 1
    def __getitem__(self, number):
        return "true"
"""


def test_definitions_and_exceptions_of_plug_ins_are_escaped_on_a_terminal(house: House) -> None:
    text = HOSTILE.decode("utf-8", "replace").rstrip()
    (house.folder / "hostile.py").write_text(PLUGIN.format(text=text))
    (house.folder / f"{NAME}.ini").write_text(
        f"[r{text}]\nRunner = hostile.Runner\nkey = {text}\n[r]\nRunner = hostile.Runner\n"
        f"[late]\nRunner = hostile.Late\n[deaf]\nRunner = hostile.Deaf\n"
        f"[l]\nTaskList = hostile.Lines\n[m]\nRunner = hostile.No{text}\n"
    )
    (house.folder / "broken.ini").write_text(f"[x]\nRunner\n{text}\n")
    house.write("true\n")
    for words, expected in (
        (("runners",), 0),
        (("handlers",), 0),
        (("run", "list.txt", "-r", "r"), 2),
        (("run", "list.txt", "-r", "m"), 2),
        (("run", "list.txt", "-t", "l"), 2),
        (("run", "list.txt", "-r", "late"), 1),
        (("logs", "list.txt_workdir", "0"), 0),
    ):
        status, shown = on_terminal(house, taskfarmer(*words))
        assert status == expected, shown
        assert "x1b" in harmless(shown, colors=words[0] in ("runners", "handlers")) or "late" in words
    house.write("until grep -q 'in terminate' $TASKFARMER_LOG; do sleep 0.1; done; exit 1\n")
    line = taskfarmer("run", "list.txt", "-w", "other", "-r", "deaf", "--grace", "100")
    status, shown = on_terminal(house, line)
    assert status == 75, shown
    harmless(shown)
    assert b"in terminate" in (house.folder / "other" / "logs" / "log_0").read_bytes()


HOST = """
import os, socket, sys
socket.sethostname(b"no\\x1b[2Jde\\x07")
os.execv(sys.argv[1], sys.argv[1:])
"""


def test_a_hostile_host_name_is_escaped_on_a_terminal(house: House) -> None:
    need(os.geteuid() == 0, "a private host name needs root")
    before = ["unshare", "--uts", sys.executable, "-c", HOST]
    house.write("false\n")
    status, shown = on_terminal(house, taskfarmer("run", "list.txt"), before)
    assert status == 1
    assert "no\\x1b[2Jde\\x07" in harmless(shown)


def test_the_description_of_a_farmer_is_escaped_on_a_terminal(house: House) -> None:
    """The host and job in a farmer's description come from its node and its scheduler."""
    house.write("echo > ../begun; sleep 1000\n")
    house.environ["SLURM_JOB_ID"] = "7\x1b[2J\x07"
    process = subprocess.Popen(
        taskfarmer("run", "list.txt"),
        cwd=house.folder,
        env=house.environ,
        stdin=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        eventually(lambda: list(Path(house.workdir).glob("farmers/*.alive")), "a farmer")
        eventually(lambda: (house.workdir / "logs" / "log_0").exists(), "a task that runs")
        status, shown = on_terminal(house, taskfarmer("status", house.workdir))
        assert status == 0
        assert "7\\x1b[2J\\x07" in harmless(shown, colors=True)
    finally:
        process.terminate()
        process.wait(60)
