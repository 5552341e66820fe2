"""Lines are appended to a list when a farmer cannot import them because of a full disk."""

from __future__ import annotations

import signal
import sys

import pytest

from support.farms import Farm, Farmer

TROUBLE = 74
AGAIN = 75
FULL_DISK = """
import errno, os, sys
from taskfarmer.storage import durable
from taskfarmer.farmer import growth
from taskfarmer.start import taskfarmer

full, patience = sys.argv[1:3]
fresh = durable.open_exclusive


def fresh_if_there_is_room(path, flags):
    if "/tasks/" in path and os.path.exists(full):
        raise OSError(errno.ENOSPC, "No space left on device", path)
    return fresh(path, flags)


durable.open_exclusive = fresh_if_there_is_room
growth.PATIENCE = float(patience)
sys.argv[:3] = ["taskfarmer"]
sys.exit(taskfarmer())
"""
"""A farmer that cannot create a file of tasks while the file `full` exists."""


def grown_in_trouble(farm: Farm, *options: object, patience: float = 600.0) -> Farmer:
    """A farmer whose list grew while the disk was full; its first task may finish."""
    full = farm.folder / "full"
    farm.write(farm.marked(f"while ! [ -e {farm.folder}/go ]; do sleep 0.02; done"))
    words = [sys.executable, "-c", FULL_DISK, str(full), str(patience), "run", str(farm.list), "-n", "1"]
    farmer = farm.start(words=[*words, *map(str, options)])
    farm.wait_for_tasks(0)
    full.touch()
    farm.append("echo added\n")
    (farm.folder / "go").touch()
    farmer.says("No space left on device")
    assert "cannot import new lines of" in farmer.said and "until this is resolved" in farmer.said
    return farmer


def added_line_ran(farm: Farm) -> None:
    assert farm.places() == ([], [0, 1], [])
    assert farm.log(1) == "added\n"
    assert len(farm.check().lines) == 2


@pytest.mark.parametrize("options", [(), ("--wait",)])
def test_a_farmer_stays_until_it_can_import_added_lines(farm: Farm, options: tuple[str, ...]) -> None:
    farmer = grown_in_trouble(farm, *options)
    (farm.folder / "full").unlink()
    assert farmer.wait() == 0
    assert farmer.said.count("No space left on device") == 1
    added_line_ran(farm)


def test_a_farmer_that_is_stopped_before_that_reports_that_tasks_are_left(farm: Farm) -> None:
    farmer = grown_in_trouble(farm)
    farmer.signal(signal.SIGTERM)
    assert farmer.wait() == AGAIN
    assert "the last lines of the task list are not in the farm yet: run the same command again" in farmer.said
    assert farm.run().wait() == 0
    added_line_ran(farm)


def test_a_farmer_that_gives_up_waiting_reports_the_error(farm: Farm) -> None:
    farmer = grown_in_trouble(farm, patience=0.5)
    assert farmer.wait() == TROUBLE
    assert farmer.said.splitlines()[-1].startswith(f"taskfarmer: error: {farm.workdir}/tasks")
    assert farm.places() == ([], [0], [])
    assert farm.run().wait() == 0
    added_line_ran(farm)


def test_a_free_slot_runs_added_lines_while_the_only_task_runs(farm: Farm) -> None:
    farm.write(farm.marked(f"while ! [ -e {farm.folder}/go ]; do sleep 0.02; done"))
    farmer = farm.start("-n", 2)
    farm.wait_for_tasks(0)
    farm.append(f"touch {farm.folder}/go\n")
    assert farmer.wait() == 0
    assert farm.places() == ([], [0, 1], [])
    farm.check()
