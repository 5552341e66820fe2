"""A folder with a home, scratch space, and two users. They are real users of the kernel, so this needs root."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from farming import need
from users import READING, User, close_held, may_import


@pytest.fixture(scope="session")
def options() -> Sequence[str]:
    """The options that let another user run this Python: none, or access to a checkout that only root may read."""
    need(os.getuid() == 0, "two users need root")
    need(shutil.which("setpriv"), "setpriv (util-linux) is not installed")
    for found in ((), READING):
        if may_import(*found):
            return found
    need(False, "another user cannot start this Python")
    raise AssertionError("unreachable")


def _folder() -> Path:
    # not tmp_path, which only its owner may enter
    folder = Path(tempfile.mkdtemp(prefix="taskfarmer-users-"))
    folder.chmod(0o755)
    return folder


@pytest.fixture
def user(options: Sequence[str]) -> Iterator[User]:
    folder = _folder()
    yield User(folder, options)
    close_held()
    shutil.rmtree(folder)


@pytest.fixture(scope="module")
def farmed(options: Sequence[str]) -> Iterator[User]:
    """A user whose farm has its lock in scratch space, for all tests of a module that grow the farm."""
    folder = _folder()
    user = User(folder, options)
    done = user.run(SCRATCH=str(user.scratch))
    assert (done.status, done.lines_with("warning")) == (0, []), done.said
    yield user
    close_held()
    shutil.rmtree(folder)
