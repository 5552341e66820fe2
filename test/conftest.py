"""What all tests have: the command line in real processes, and `need` for what a machine may lack."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

TEST = Path(__file__).parent
sys.path[:0] = [str(TEST), str(TEST / "cli")]

from farming import need  # noqa: E402
from house import Done, House  # noqa: E402

__all__ = ["need"]


@pytest.fixture
def house(tmp_path: Path) -> House:
    """A folder for a task list, and the commands that are run in it."""
    return House(tmp_path)


@pytest.fixture
def farm_run(house: House) -> Callable[..., Done]:
    """`farm_run(list_text, *options)`: write the list and run `pytaskfarmer.py list.txt *options` to its end."""

    def run(list_text: str | bytes, *options: object) -> Done:
        house.write(list_text)
        return house.command("pytaskfarmer.py", house.list.name, *options)

    return run
