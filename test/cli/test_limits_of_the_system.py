"""If a process or a path reaches a limit, such as the number of open files, no file is reported as damaged."""

from __future__ import annotations

import os
import re
import shutil
import sys
from pathlib import Path

import pytest

from support.house import Done, House

BLAME = re.compile(r"snapshot|restore|damaged|corrupt|missing|no farm here|no such|some space|-w\)")
LONG = "x" * 300
LIMIT = "import os, resource, sys; resource.setrlimit(resource.RLIMIT_NOFILE, (int(sys.argv[1]),) * 2); "
LIMITED = LIMIT + "os.execv(sys.argv[2], sys.argv[2:])"
EXHAUSTED = """
import os, resource, sys
from taskfarmer.cli import program
out, err = os.dup(1), os.dup(2)
os.dup2(os.open(os.devnull, os.O_WRONLY), 1), os.dup2(1, 2)
program.main("taskfarmer", sys.argv[2:])  # all modules are imported now
os.dup2(out, 1), os.dup2(err, 2), os.closerange(3, 100)
resource.setrlimit(resource.RLIMIT_NOFILE, (3 + int(sys.argv[1]),) * 2)
sys.exit(program.main("taskfarmer", sys.argv[2:]))
"""
"""Runs a verb in a process that may only open its three standard files and a few more."""
VERBS = [
    ["run", "list.txt", "-n", "1", "--timeout", "1", "--grace", "0"],
    ["run", "list.txt", "-n", "1", "-w", "fresh", "--timeout", "1", "--grace", "0"],
    ["run", "list.txt", "-n", "1", "-r", "mine", "--timeout", "1", "--grace", "0"],
    ["submit", "list.txt", "--dry-run"],
    ["retry", "list.txt_workdir", "0"],
    ["check", "list.txt_workdir"],
    ["status", "list.txt_workdir"],
    ["jobs", "list.txt_workdir"],
    ["logs", "list.txt_workdir", "0"],
    ["stop", "list.txt_workdir"],
]


def limited(house: House, number: int, *words: str) -> Done:
    """Run `taskfarmer WORD...` with a limit on open files."""
    return house.process([sys.executable, "-c", LIMITED, str(number), sys.executable, "-m", "taskfarmer", *words])


@pytest.fixture
def farm(house: House) -> House:
    house.write("echo one\nfalse\n")
    (house.folder / "mine.ini").write_text("[mine]\nRunner = mine.Mine\n")
    (house.folder / "mine.py").write_text(
        "from taskfarmer.runners import BasicRunner\n\n\nclass Mine(BasicRunner):\n    pass\n"
    )
    assert house.verb("run", "list.txt", "-q").status == 1
    return house


@pytest.mark.parametrize("words", VERBS, ids=lambda words: " ".join(words[:1] + words[4:6]))
def test_too_many_open_files_are_never_reported_as_damage(farm: House, words: list[str]) -> None:
    refused = 0
    for number in range(5, 9):  # with four, Python itself does not start
        shutil.rmtree(farm.folder / "fresh", ignore_errors=True)
        if words[0] in ("run", "submit"):
            farm.verb("retry", "list.txt_workdir", "1")
        done = limited(farm, number, *words)
        assert "Traceback" not in done.stderr, (number, done.stderr)
        assert done.status in (0, 1, 2, 74, 75), (number, done.stderr)
        if "Too many open files" in done.stderr:
            refused += 1
            assert not BLAME.search(done.stderr + done.out), (number, done.stderr, done.out)
            assert "ulimit" in done.stderr, (number, done.stderr)
    assert refused or words[0] not in ("run", "retry")
    assert farm.verb("run", "list.txt", "-q").status == 1
    assert farm.verb("check", "list.txt_workdir").status == 0


@pytest.mark.parametrize("words", [*VERBS[5:], ["doctor", "."]], ids=lambda words: words[0])
def test_a_verb_that_cannot_open_files_reports_the_limit_and_no_file(farm: House, words: list[str]) -> None:
    refused = 0
    for spare in range(4):
        done = farm.process([sys.executable, "-c", EXHAUSTED, str(spare), *words])
        assert "Traceback" not in done.stderr, (spare, done.stderr)
        if done.status:
            refused += 1
            assert done.status in (1, 2, 74), (spare, done.stderr)
            assert "Too many open files" in done.stderr and "ulimit" in done.stderr, (spare, done.out, done.stderr)
            assert not BLAME.search(done.stderr + done.out), (spare, done.stderr, done.out)
    assert refused


@pytest.mark.parametrize(
    "words",
    [
        ["run", "list.txt", "-w", LONG],
        ["run", "list.txt", "--dry-run", "-w", LONG],
        ["run", LONG],
        ["run", "y" * 250],
        ["run", "list.txt", "--logs-dir", LONG],
        ["submit", "list.txt", "--dry-run", "-w", LONG],
        ["status", LONG],
        ["jobs", LONG],
        ["logs", LONG, "0"],
        ["retry", LONG, "0"],
        ["stop", LONG],
        ["check", LONG],
        ["doctor", LONG],
    ],
    ids=lambda words: " ".join(word[:12] for word in words),
)
def test_a_path_that_is_too_long_is_a_usage_error_and_no_farm_is_created(house: House, words: list[str]) -> None:
    house.write("echo one\n")
    shutil.copy(house.list, house.folder / ("y" * 250))
    before = sorted(os.listdir(house.folder))
    done = house.verb(*words)
    assert done.status == 2, done.stderr
    assert "File name too long" in done.error_line
    assert "shorter" in done.error_line or words[0] == "doctor"
    assert not BLAME.search(done.stderr), done.stderr
    assert ("--logs-dir" in done.error_line) == ("--logs-dir" in words)
    assert sorted(os.listdir(house.folder)) == before


def test_a_work_directory_with_too_long_paths_of_files_is_refused_before_it_is_created(house: House) -> None:
    house.write("echo one\n")
    folder = os.open(house.folder, os.O_RDONLY | os.O_DIRECTORY)
    while len(os.readlink(f"/proc/self/fd/{folder}")) < 3700:
        os.mkdir("d" * 100, dir_fd=folder)
        inner = os.open("d" * 100, os.O_RDONLY | os.O_DIRECTORY, dir_fd=folder)
        os.close(folder)
        folder = inner
    deep = os.readlink(f"/proc/self/fd/{folder}")
    os.close(folder)
    for length, status in ((3880, 0), (3920, 2), (4010, 2)):
        place = f"{deep}/{'w' * (length - len(deep) - 1)}"
        done = house.verb("run", "list.txt", "-w", place, "-q")
        assert done.status == status, (length, done.stderr)
        if status:
            assert "File name too long" in done.error_line
            assert not os.path.exists(place)


def test_a_farm_whose_parent_may_not_be_entered_is_refused_with_the_reason(house: House) -> None:
    test = str(Path(__file__).parents[1])
    (house.folder / "closed" / "farm").mkdir(parents=True)
    (house.folder / "closed").chmod(0)
    heed = f"import sys; sys.path.insert(0, {test!r}); from support import verbs; sys.exit(verbs.main(sys.argv[1:]))"
    done = house.process([sys.executable, "-c", heed, "status", "closed/farm"])
    (house.folder / "closed").chmod(0o700)
    assert done.status == 2
    assert "Permission denied" in done.error_line and "ask its owner" in done.error_line
