from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from farming import Field


@pytest.fixture
def field(tmp_path: Path) -> Iterator[Field]:
    """A folder for a task list and its farm; all its processes are killed after the test."""
    field = Field(tmp_path)
    try:
        yield field
    finally:
        field.close()
