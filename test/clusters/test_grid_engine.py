"""examples/gridengine/array.sh on a Grid Engine, unchanged: all tasks run, even if the job is deleted or times out."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from support.checker import check, sealed
from support.farming import TEST, eventually
from support.fields import EXAMPLES, ClusterField
from support.grid_engine import GridEngine

ARRAY = str(EXAMPLES / "gridengine" / "array.sh")


@pytest.fixture
def field(tmp_path: Path) -> Iterator[ClusterField]:
    field = ClusterField(tmp_path)
    try:
        yield field
    finally:
        field.close()


def slow(field: ClusterField, count: int) -> Path:
    """Tasks that wait until the returned file exists."""
    fast = field.folder / "fast"
    field.tasks(count, 0.1, then=f"n=0; until [ -e {fast} ] || [ $((n += 1)) -gt 200 ]; do sleep 0.1; done")
    return fast


def jobs(grid: GridEngine, field: ClusterField) -> list[dict[str, Any]]:
    """The output of `taskfarmer jobs`."""
    done = subprocess.run(
        [sys.executable, "-m", "taskfarmer", "jobs", str(field.workdir), "--json"],
        env={**os.environ, **grid.environment, "PYTHONPATH": str(TEST.parent)},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    found: list[dict[str, Any]] = json.loads(done.stdout)["jobs"]
    return found


def array(grid: GridEngine, field: ClusterField) -> None:
    """Three farmers complete a list. Each reports its element, and `jobs` shows them while they work."""
    fast = slow(field, 60)
    job = grid.submit(field.folder, field.variables, ARRAY, "list")
    field.wait_for_runs(12)
    told = [sealed(path) for path in field.workdir.glob("farmers/*.json")]
    elements = sorted((one["job"]["JOB_ID"], one["job"]["SGE_TASK_ID"]) for one in told)
    assert elements == [(str(job), str(element)) for element in (1, 2, 3)]
    shown = jobs(grid, field)
    assert [(one["job"], one["scheduler"], one["state"]) for one in shown] == [
        (f"{job}_{element}", "gridengine", "RUNNING") for element in (1, 2, 3)
    ]
    for one in shown:
        assert (one["nodes"], one["slots"]) == (1, 4)
        assert one["farmers_alive"] == 1
        assert one["held"] >= 4
    fast.touch()
    grid.wait(job)
    report = field.judge()
    assert len({line.journal for line in report.lines}) == 3, field.said()
    assert jobs(grid, field) == []


def test_an_array_of_three_farmers_completes_a_list(grid: GridEngine, field: ClusterField) -> None:
    array(grid, field)


def deleted(grid: GridEngine, field: ClusterField) -> None:
    """When qdel deletes the job, the farmers get a signal and release unfinished tasks; the same command continues."""
    fast = slow(field, 36)
    job = grid.submit(field.folder, field.variables, ARRAY, "list")
    field.wait_for_runs(12)
    grid.run_client("qdel", str(job))
    grid.wait(job)
    field.nothing_runs()
    report = check(field.workdir, views=True)
    assert report.problems == []
    assert len([line for line in report.lines if line.outcome == "returned"]) == 12, field.said()
    assert len(report.unprocessed) == 36
    fast.touch()
    grid.wait(grid.submit(field.folder, field.variables, ARRAY, "list"))
    field.judge(once=False)


def runs_again(grid: GridEngine, field: ClusterField) -> None:
    """When the soft time limit s_rt expires, the farmer releases its tasks, and Grid Engine restarts the element."""
    fast = slow(field, 8)
    job = grid.submit(field.folder, field.variables, "-t", "1", "-l", "s_rt=0:0:6,h_rt=0:2:0", ARRAY, "list")
    eventually(lambda: sum(field.runs().values()) >= 8, lambda: f"the tasks are restarted; {field.said()}", 120, 0.1)
    fast.touch()
    grid.wait(job)
    report = field.judge(once=False)
    assert [line for line in report.lines if line.outcome == "returned"]


def test_a_deleted_job_releases_its_tasks_and_the_same_command_continues(grid: GridEngine, field: ClusterField) -> None:
    deleted(grid, field)


def test_a_job_that_reaches_its_time_limit_is_restarted(grid: GridEngine, field: ClusterField) -> None:
    runs_again(grid, field)


@pytest.mark.campaign
@pytest.mark.parametrize("time", range(10))
@pytest.mark.parametrize("what", [array, deleted, runs_again])
def test_a_list_survives_each_of_these_repeatedly(
    what: object, time: int, grid: GridEngine, field: ClusterField
) -> None:
    assert callable(what)
    what(grid, field)
