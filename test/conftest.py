"""What all tests have: the command line in real processes, and `need` for what a machine may lack."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

TEST = Path(__file__).parent
sys.path[:0] = [str(TEST), str(TEST / "cli")]

from farming import leave_mounts_of_the_machine, need  # noqa: E402
from house import Done, House  # noqa: E402

__all__ = ["need"]

LONG = (
    "test_every_example_is_interrupted.py",
    "test_crash_points.py",
    "test_slurm_interruptions.py",
    "test_interruption_matrix.py",
    "test_storm.py",
    "clusters",
    "submit",
    "damage",
    "storm",
    "nodes",
    "sharing",
    "property",
    "faults",
)
"""What is begun first, so that nothing long is left for the end."""


def pytest_configure(config: pytest.Config) -> None:
    """Give each process that runs tests its own mounts, so that no test changes those of the machine."""
    leave_mounts_of_the_machine()
    _stop_ignoring_signals()


def _stop_ignoring_signals() -> None:
    """Undo `nohup` and `&`: a farmer that starts with a signal ignored would go on ignoring it."""
    for number in (signal.SIGHUP, signal.SIGINT, signal.SIGQUIT):
        if signal.getsignal(number) == signal.SIG_IGN:
            signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)


def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    """Tests of farmers wait more than they work."""
    return max(4, 2 * len(os.sched_getaffinity(0)))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=_rank)


def _rank(item: pytest.Item) -> int:
    parts = item.path.relative_to(TEST).parts
    return next((number for number, name in enumerate(LONG) if name in parts), len(LONG))


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
