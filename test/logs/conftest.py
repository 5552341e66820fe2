"""A directory with a farm, and a library that counts file operations."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

TEST = Path(__file__).parents[1]
sys.path[:0] = [str(Path(__file__).parent), str(TEST), str(TEST / "farm"), str(TEST / "faults"), str(TEST.parent)]

from farming import need  # noqa: E402
from farms import Farm  # noqa: E402

from benchmarks.system import compiled  # noqa: E402


@pytest.fixture
def farm(tmp_path: Path) -> Iterator[Farm]:
    """A directory for a task list and its farm. Its processes are killed when the test ends."""
    one = Farm(tmp_path)
    try:
        yield one
    finally:
        one.close()


@pytest.fixture(scope="session")
def counting(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The library compiled from benchmarks/slow.c."""
    need(shutil.which("cc"), "there is no C compiler")
    return compiled("slow.c", str(tmp_path_factory.mktemp("library")), "-shared", "-fPIC")
