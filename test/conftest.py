"""Settings of all tests: mounts and signals of the test process, marks, and the order of tests."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from support.farming import leave_shared_mounts

pytest_plugins = ["support.fixtures"]

TEST = Path(__file__).parent
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
"""Tests that start first, so that no long test is left for the end."""
SLOW = (
    "clocks",
    "clusters",
    "crash",
    "damage",
    "doctor",
    "farm",
    "faults",
    "logs",
    "nodes",
    "property",
    "security",
    "sharing",
    "site",
    "storm",
    "submit",
    "test_limits_of_the_system.py",
    "views",
)
"""Folders and modules whose tests are all marked `slow`: they start clusters, many farmers, or file systems."""


def pytest_configure(config: pytest.Config) -> None:
    """Give each process that runs tests its own mounts, so that no test changes those of the machine."""
    leave_shared_mounts()
    _stop_ignoring_signals()


def _stop_ignoring_signals() -> None:
    """Undo `nohup` and `&`: a farmer that starts with a signal ignored would go on ignoring it."""
    for number in (signal.SIGHUP, signal.SIGINT, signal.SIGQUIT):
        if signal.getsignal(number) == signal.SIG_IGN:
            signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)


def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    """Tests of farmers wait more than they work."""
    return max(4, 2 * len(os.sched_getaffinity(0)))


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if set(_parts(item)) & set(SLOW):
            item.add_marker(pytest.mark.slow)
    items.sort(key=_rank)


def _parts(item: pytest.Item) -> tuple[str, ...]:
    return item.path.relative_to(TEST).parts


def _rank(item: pytest.Item) -> int:
    return next((number for number, name in enumerate(LONG) if name in _parts(item)), len(LONG))
