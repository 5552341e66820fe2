"""Fixtures of a farm on a failing disk, or with lost replies; the classes are in lies.py, disks.py and farms.py."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE.parent / "farm"), str(HERE.parent)]

from farming import need  # noqa: E402
from farms import Farm  # noqa: E402
from lies import Liar  # noqa: E402


@pytest.fixture
def farm(tmp_path: Path) -> Iterator[Farm]:
    """A folder for a list and its farm; all its processes are killed after the test."""
    one = Farm(tmp_path)
    try:
        yield one
    finally:
        one.close()


@pytest.fixture(scope="session")
def shim(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The shared object built from lies.c."""
    made = tmp_path_factory.mktemp("shim") / "lies.so"
    need(shutil.which("gcc"), "gcc is not installed")
    words = ["gcc", "-Wall", "-Wextra", "-Werror", "-O1", "-shared", "-fPIC", "-o", made, HERE / "lies.c", "-ldl"]
    subprocess.run(words, check=True)
    return made


@pytest.fixture
def liar(shim: Path, tmp_path: Path) -> Liar:
    """Injects false replies about the names below `tmp_path` into programs that are started with its variables."""
    return Liar(shim, tmp_path, tmp_path / "told")
