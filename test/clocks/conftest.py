"""A farm whose farmers are nodes with separate clocks."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

TEST = Path(__file__).parents[1]
sys.path[:0] = [str(Path(__file__).parent), str(TEST / "farm"), str(TEST)]

from nodes import Cluster  # noqa: E402


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    """A folder for a list and its farm, and nodes that share them; all processes are killed after the test."""
    one = Cluster(tmp_path)
    try:
        yield one
    finally:
        one.close()
