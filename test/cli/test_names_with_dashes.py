"""Task lists whose names begin with a dash."""

from __future__ import annotations

import re
import shlex

import pytest

from support.house import House

LIST = "-list"


@pytest.fixture
def dashed(house: House) -> House:
    house.write("echo one\nfalse\n")
    house.list.rename(house.folder / LIST)
    return house


@pytest.mark.parametrize("more", [[], ["--mem=1G", "-q", "x"], ["--", "--mem=1G", "-q", "x"]])
def test_the_first_word_after_the_dashes_is_the_list_if_none_precedes_them(dashed: House, more: list[str]) -> None:
    done = dashed.verb("submit", "--dry-run", "-n", "3", "--", LIST, *more)
    assert done.status == 0, done.stderr
    command = done.out.partition("exec ")[2].replace("\\\n", "")
    assert shlex.split(command)[-1] == str(dashed.folder / LIST)
    assert ("#SBATCH --mem=1G -q x\n" in done.out) == bool(more)


def test_words_after_the_dashes_go_to_the_scheduler_if_a_list_precedes_them(dashed: House) -> None:
    (dashed.folder / "other.txt").write_text("true\n")
    done = dashed.verb("submit", "--dry-run", "other.txt", "--", LIST)
    assert done.status == 0, done.stderr
    assert f"#SBATCH {LIST}\n" in done.out
    assert done.out.rstrip().endswith(str(dashed.folder / "other.txt"))


def test_a_missing_list_is_reported_and_no_option_is_mistaken_for_it(dashed: House) -> None:
    done = dashed.verb("submit", "--dry-run", "--", "--mem=1G")
    assert done.status == 2
    assert "no task list before --, and '--mem=1G' after it is not a file" in done.error_line


def test_commands_in_messages_of_a_farmer_can_be_typed(dashed: House) -> None:
    done = dashed.command("pytaskfarmer.py", "--", LIST)
    assert done.status == 1, done.stderr
    proposed = re.findall(r"taskfarmer (logs|retry) (\S+) --failed", done.stderr)
    assert len(proposed) == 2, done.stderr
    for verb, workdir in proposed:
        assert dashed.verb(verb, workdir, "--failed").status == 0
