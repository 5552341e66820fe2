"""A folder that all users may enter, and members of a group: real users of the kernel, so this needs root."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(0, str(Path(__file__).parents[1] / "security"))

from farming import need
from members import Project
from users import READING, may_import


@pytest.fixture(scope="session")
def options() -> Sequence[str]:
    """The options that let another user run this Python: none, or access to a checkout that only root may read."""
    need(os.getuid() == 0, "several users need root")
    need(shutil.which("setpriv"), "setpriv (util-linux) is not installed")
    for found in ((), READING):
        if may_import(*found):
            return found
    need(False, "another user cannot start this Python")
    raise AssertionError("unreachable")


@pytest.fixture
def place() -> Iterator[Path]:
    # not tmp_path, which only its owner may enter
    folder = Path(tempfile.mkdtemp(prefix="taskfarmer-site-"))
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


@pytest.fixture
def project(place: Path, options: Sequence[str]) -> Iterator[Project]:
    project = Project(place / "project", options)
    yield project
    project.close()
