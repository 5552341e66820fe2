"""The scripts that `taskfarmer submit` writes, and the requests that it refuses without asking a scheduler."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from support.farming import need
from support.house import TOP, House

LIST = 'it\'s $(a) "list" #1.txt'
WAYS = {
    "one farmer": ["--time", "2h"],
    "an array": ["--array", "10", "--time", "90", "-n", "32"],
    "several nodes": ["--nodes", "3", "-p", "debug", "-A", "m1234", "-C", "gpu|cpu"],
    "an array of several nodes": ["--nodes", "3", "--array", "2"],
    "whole nodes": ["--nodes", "3", "-n", "auto"],
    "one that may be requeued": ["--requeue"],
    "one that requeues itself": ["--time", "12h", "--time-min", "30m", "--requeue"],
    "an array that requeues itself": ["--time", "12h", "--time-min", "30m", "--requeue", "--array", "4"],
    "nodes that requeue themselves": ["--time", "12h", "--time-min", "30m", "--requeue", "--nodes", "4"],
    "with words for sbatch": ["--", "--mem=4G", "--comment", 'it\'s a \\ # "word"', "-q", "regular"],
    "with words for farmers": ["-w", "a farm", "--timeout", "90m", "-v", "--warn-signal=USR2", "--config", "my.ini"],
    "Grid Engine": [
        "--scheduler",
        "gridengine",
        "--array",
        "3",
        "-n",
        "4",
        "--time",
        "1h",
        "-p",
        "long.q",
        "-A",
        "x y",
    ],
    "Grid Engine with a requeued job": [
        "--scheduler",
        "gridengine",
        "--requeue",
        "-n",
        "1",
        "--",
        "-l",
        "mem=4G",
        "-p",
        "-1",
    ],
}
GONE_WRONG = {
    "no such list": (["nosuch"], "no such task list"),
    "a directory": (["home"], "is a directory"),
    "an empty list": (["empty"], "contains no tasks"),
    "no list": ([], "Missing argument"),
    "two lists": (["list.txt", "list.txt"], "unexpected extra argument"),
    "no nodes": (["list.txt", "--nodes", "0"], "--nodes: 0 is not"),
    "no elements": (["list.txt", "--array", "0"], "--array: 0 is not"),
    "no slots": (["list.txt", "-n", "0"], "must be 1 to"),
    "no time": (["list.txt", "--time", "0"], "must be longer than 0 s"),
    "an invalid time": (["list.txt", "--time", "soon"], "invalid duration"),
    "the shortest time longer than the longest": (
        ["list.txt", "--time", "1h", "--time-min", "61"],
        "longer than --time",
    ),
    "less time than the farmers need for a shutdown": (["list.txt", "--time", "2"], "ask for more time"),
    "a gap that is too short": (["list.txt", "--time-min", "1m"], "ask for more time"),
    "no such runner": (["list.txt", "-r", "nosuch"], "no runner named"),
    "no such handler": (["list.txt", "-t", "nosuch"], "nosuch"),
    "an option of sbatch on the wrong side": (["list.txt", "--mem", "4G"], "after --"),
    "a word that is no option": (["list.txt", "--", "word"], "expected a scheduler option after --"),
    "a line break in a word": (["list.txt", "--", "--comment=a\nb"], "not allowed in a job script"),
    "an empty name": (["list.txt", "--partition", ""], "invalid name"),
    "no sign of tasks that are left": (["list.txt", "--requeue", "--exit-zero"], "--exit-zero"),
    "no such scheduler": (["list.txt", "--scheduler", "pbs"], "pbs"),
    "nodes of Grid Engine": (["list.txt", "--scheduler", "gridengine", "--nodes", "2"], "--array"),
    "gaps of Grid Engine": (["list.txt", "--scheduler", "gridengine", "--time-min", "1h"], "--time"),
    "features of Grid Engine": (["list.txt", "--scheduler", "gridengine", "-C", "gpu"], "-l"),
    "whole nodes of Grid Engine": (["list.txt", "--scheduler", "gridengine", "-n", "auto"], "--proc N"),
}


def everything(folder: Path) -> list[tuple[str, int]]:
    return sorted((str(path), path.stat().st_mtime_ns) for path in [folder, *folder.rglob("*")])


def words_of(command: str) -> list[str]:
    """The words of a command, as bash parses them."""
    done = subprocess.run(["bash", "-c", f"printf '%s\\0' {command}"], capture_output=True, text=True, check=True)
    return done.stdout.split("\0")[:-1]


def shown(house: House, *options: str) -> str:
    """The script for a list with a difficult name."""
    (house.folder / LIST).write_text("true\n")
    before = everything(house.folder)
    done = house.verb("submit", LIST, "--dry-run", *options)
    assert done.status == 0, done.stderr
    assert done.stderr == ""
    assert everything(house.folder) == before
    return done.out


@pytest.mark.parametrize("way", WAYS)
def test_a_script_is_bash_with_its_options_at_the_top_and_the_farmer_gets_the_signal(way: str, house: House) -> None:
    need(shutil.which("shellcheck"), "shellcheck is not installed")
    text = shown(house, *WAYS[way])
    script = house.folder / "job.sh"
    script.write_text(text)
    for program in (["bash", "-n"], ["shellcheck"]):
        done = subprocess.run([*program, str(script)], capture_output=True, text=True)
        assert (done.returncode, done.stdout + done.stderr) == (0, ""), text
    lines = text.splitlines()
    marks = [number for number, line in enumerate(lines) if re.match(r"#SBATCH |#\$ ", line)]
    assert lines[0] == "#!/bin/bash"
    assert marks == list(range(1, len(marks) + 1))
    joined = text.replace("\\\n", "")
    (farmer,) = re.findall(r"^.* --block-signal=USR1(?:,USR2)? .*$", joined, re.MULTILINE)
    words = words_of(farmer.removesuffix("&"))
    assert words[-1] == str(house.folder / LIST)
    by_step, itself = "srun" in words, words[0] == "exec"
    assert by_step == ("--signal=USR1@" in text)
    assert by_step or itself or re.search(r"^trap 'kill -USR1 \"\$farmer\"' USR1", text, re.MULTILINE)
    assert ("requeue" in joined.partition("\n\n")[2]) == ("themselves" in way or "itself" in way)


def test_a_script_contains_the_requested_options(house: House) -> None:
    text = shown(house, *WAYS["an array"])
    assert "#SBATCH --nodes=1 --ntasks=1 --cpus-per-task=32\n#SBATCH --array=1-10\n#SBATCH --time=01:30:00\n" in text
    assert " --proc 32 " in text
    text = shown(house, *WAYS["several nodes"])
    assert "#SBATCH --nodes=3 --ntasks-per-node=1 --cpus-per-task=8\n" in text
    assert "#SBATCH --partition=debug --account=m1234 --constraint='gpu|cpu'\n" in text
    assert ' --proc "$SLURM_CPUS_PER_TASK" ' in text
    text = shown(house, *WAYS["Grid Engine"])
    for line in ("-t 1-3", "-pe smp 4", "-l s_rt=00:58:00,h_rt=01:00:00", "-q long.q", "-A 'x y'", "-cwd -V -j y"):
        assert f"#$ {line}\n" in text
    assert "exit 99" not in text
    assert "#$ -l mem=4G -p -1\n" in shown(house, *WAYS["Grid Engine with a requeued job"])
    assert "exit 99" in shown(house, *WAYS["Grid Engine with a requeued job"])


def test_options_of_a_farmer_are_passed_on_unchanged_and_paths_are_absolute(house: House) -> None:
    (house.folder / "my.ini").write_text("")
    words = shlex.split(shown(house, *WAYS["with words for farmers"]).partition("\n\n")[2].replace("\\\n", ""), True)
    for word in ("--timeout=90m", "--verbose", "--warn-signal=USR2"):
        assert word in words
    assert f"--workdir={house.folder}/a farm" in words
    assert f"--config={house.folder}/my.ini" in words


def test_the_script_runs_the_list_in_its_current_directory(house: House) -> None:
    """Run the script by hand, as a job would. The job runs the program that submitted it, at any path."""
    script = house.folder / "job.sh"
    script.write_text(shown(house, "-n", "2", "-w", "a farm"))
    elsewhere = house.folder / "home"
    done = subprocess.run(["bash", str(script)], cwd=elsewhere, env={"PATH": os.environ["PATH"]}, capture_output=True)
    assert done.returncode == 0, done.stderr
    assert (house.folder / "a farm" / "finished").read_text() == "0 true\n"


def test_an_installed_program_submits_itself(house: House) -> None:
    house.write("true\n")
    folder = house.folder / "bin"
    folder.mkdir()
    for name in ("taskfarmer", "pytaskfarmer.py"):
        program = folder / name
        program.write_text(f"#!{sys.executable}\nfrom taskfarmer import start\nstart.taskfarmer()\n")
        program.chmod(0o755)
    done = house.process([str(folder / "taskfarmer"), "submit", "list.txt", "--dry-run"])
    assert f" {folder}/pytaskfarmer.py --proc" in done.out, done.stderr
    done = house.process([sys.executable, "-m", "taskfarmer", "submit", "list.txt", "--dry-run"])
    assert f" {sys.executable} {TOP}/pytaskfarmer.py --proc" in done.out, done.stderr


@pytest.mark.parametrize("what", GONE_WRONG)
def test_the_error_for_an_invalid_request_is_one_line_and_touches_nothing(what: str, house: House) -> None:
    words, fact = GONE_WRONG[what]
    house.write("true\n")
    (house.folder / "empty").write_text("# nothing\n\n")
    before = everything(house.folder)
    done = house.verb("submit", *words)
    assert done.status == 2
    assert fact in done.error_line
    assert done.out == ""
    assert everything(house.folder) == before


def test_a_completed_list_is_not_submitted(house: House) -> None:
    house.write("true\n")
    assert house.command("pytaskfarmer.py", "list.txt").status == 0
    done = house.verb("submit", "list.txt")
    assert done.status == 2
    assert "all tasks are recorded" in done.error_line
    house.write("true\ntrue\n")
    assert house.verb("submit", "list.txt", "--dry-run").status == 0
