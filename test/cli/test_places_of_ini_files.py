"""Real farmers read INI files in the directories that docs/from-pytaskfarmer.md lists."""

from __future__ import annotations

from pathlib import Path

import pytest

from support.house import Done, House

RUNNER = "[own]\nRunner = taskfarmer.runners.BasicRunner\n"
HANDLER = "[own]\nTaskList = taskfarmer.task.ListTaskList\n"
READ = [
    ("home/.pytaskfarmer/runners.d", RUNNER),
    ("home/.pytaskfarmer/tasklists.d", HANDLER),
    ("lists", RUNNER),
    ("lists/runners.d", RUNNER),
    ("lists", HANDLER),
    ("lists/tasklists.d", HANDLER),
    (".", RUNNER),
    (".", HANDLER),
]
NOT_READ = [
    ("pytaskfarmer/runners.d", RUNNER),
    ("pytaskfarmer/tasklists.d", HANDLER),
    ("home/.pytaskfarmer", RUNNER),
    ("home", RUNNER),
    ("lists/below", RUNNER),
]


def run(house: House, folder: str, text: str) -> Done:
    """Run a farmer for `lists/list.txt` with the runner or the handler that an INI file in `folder` defines."""
    (house.folder / "lists").mkdir(exist_ok=True)
    (house.folder / "lists" / "list.txt").write_text("echo one\n")
    (house.folder / folder).mkdir(parents=True, exist_ok=True)
    (house.folder / folder / "own.ini").write_text(text)
    option = "-r" if text is RUNNER else "-t"
    return house.command("pytaskfarmer.py", "lists/list.txt", "-q", option, "own")


@pytest.mark.parametrize(("folder", "text"), READ)
def test_an_ini_file_is_read_in_the_documented_places(house: House, folder: str, text: str) -> None:
    done = run(house, folder, text)
    assert done.status == 0, done.stderr


@pytest.mark.parametrize(("folder", "text"), NOT_READ)
def test_an_ini_file_is_read_nowhere_else(house: House, folder: str, text: str) -> None:
    done = run(house, folder, text)
    assert done.status == 2
    assert "named 'own'" in done.error_line
    assert not (house.folder / "lists" / "list.txt_workdir").exists()


def test_an_ini_file_next_to_a_list_counts_only_if_other_users_cannot_write_it(house: House) -> None:
    path = house.folder / "lists" / "own.ini"
    path.parent.mkdir()
    path.touch()
    path.chmod(0o666)
    done = run(house, "lists", RUNNER)
    assert done.status == 2
    assert f"{path}: ignored because it is world-writable" in done.stderr


def test_the_page_lists_these_directories() -> None:
    page = (Path(__file__).parents[2] / "docs" / "from-pytaskfarmer.md").read_text()
    section = page.partition("### Where INI files are")[2].partition("\n### ")[0]
    for place in ("~/.pytaskfarmer/runners.d", "~/.pytaskfarmer/tasklists.d", "folder of the task list", "current"):
        assert place in section
    assert "`pytaskfarmer/tasklists.d`: it meant" in section.replace("\n", " ")
