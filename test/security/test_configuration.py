"""INI files and modules of other users: their definitions are neither run nor imported, and the file is reported."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from support.users import ATTACKER, VICTIM, User, acting_as

HARM = "raise SystemExit('imported')\n"


def define(folder: Path, name: str = "a.ini", runner: str = "taskfarmer.runners.BasicRunner") -> Path:
    path = folder / name
    path.write_text(f"[r]\nRunner = {runner}\n")
    return path


def test_a_file_of_another_user_is_skipped_with_a_warning_but_trusted_if_it_is_named_explicitly(user: User) -> None:
    with acting_as(ATTACKER):
        define(user.scratch)
    for words in (("runners",), ("run", user.list, "-r", "r")):
        done = user.verb(*words, cwd=user.scratch)
        assert done.status == (2 if "run" in words else 0)
        assert done.lines_with("a.ini: ignored because it belongs to another user: name it with --config")
        assert [line.split()[0] for line in done.out.splitlines()][1:] in ([], ["default"])
    assert not user.workdir.exists()
    done = user.run("-r", "r", "--config", "a.ini", cwd=user.scratch)
    assert (done.status, done.lines_with("warning")) == (0, []), done.said


def test_a_file_of_the_user_is_trusted_if_only_the_sticky_bit_protects_it(user: User) -> None:
    with acting_as(VICTIM):
        define(user.scratch)
    done = user.run("-r", "r", cwd=user.scratch)
    assert (done.status, done.lines_with("warning")) == (0, []), done.said
    user.scratch.chmod(0o777)
    done = user.run("-r", "r", cwd=user.scratch)
    assert done.status == 2
    assert "a.ini: ignored because its directory is world-writable (chmod o-w)" in done.said


def test_a_foreign_link_to_a_file_of_the_user_is_skipped_and_hides_no_other_file(user: User) -> None:
    with acting_as(VICTIM):
        folder = user.home / ".pytaskfarmer" / "runners.d"
        folder.mkdir(parents=True)
        theirs = define(folder)
        other = define(user.folder_of_his, "old.ini", "nowhere.Runner")
    with acting_as(ATTACKER):
        (user.scratch / "0.ini").symlink_to(other)
        (user.scratch / "1.ini").symlink_to(theirs)
    done = user.run("-r", "r", cwd=user.scratch)
    assert done.status == 0, done.said
    assert len(done.lines_with("ignored because it belongs to another user")) == 2


@pytest.mark.parametrize("mode", [0o777, 0o1777])
def test_modules_are_not_searched_in_directories_writable_by_all(user: User, mode: int) -> None:
    with acting_as(VICTIM):
        mine = define(user.home, "mine.ini", "mymodule.Runner")
    with acting_as(ATTACKER):
        (user.scratch / "mymodule.py").write_text(HARM)
    user.scratch.chmod(mode)
    done = user.run("-r", "r", "--config", mine, cwd=user.scratch)
    assert (done.status, len(done.said.splitlines())) == (2, 1), done.said
    assert "No module named 'mymodule'" in done.said
    assert f"{user.scratch} is ignored because it is world-writable (chmod o-w)" in done.said
    user.scratch.chmod(0o755)
    os.chown(user.scratch / "mymodule.py", VICTIM, VICTIM)
    done = user.run("-r", "r", "--config", mine, cwd=user.scratch)
    assert "imported" in done.said
