"""examples/gridengine/array.sh on a Grid Engine, as it stands: all tasks are run, whatever happens to the job."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from checker import check
from farming import eventually
from fields import EXAMPLES, ClusterField
from grid_engine import GridEngine

ARRAY = str(EXAMPLES / "gridengine" / "array.sh")


@pytest.fixture
def field(tmp_path: Path) -> Iterator[ClusterField]:
    field = ClusterField(tmp_path)
    try:
        yield field
    finally:
        field.close()


def slow(field: ClusterField, count: int) -> Path:
    """Tasks that are slow until the file is there that is returned."""
    fast = field.folder / "fast"
    field.tasks(count, 0.1, then=f"n=0; until [ -e {fast} ] || [ $((n += 1)) -gt 200 ]; do sleep 0.1; done")
    return fast


def test_an_array_of_three_farmers_ends_a_list(grid: GridEngine, field: ClusterField) -> None:
    field.tasks(60, 0.4)
    job = grid.submit(field.folder, field.variables, ARRAY, "list")
    grid.wait(job)
    report = field.judge()
    assert len({line.journal for line in report.lines}) == 3, field.said()


def deleted(grid: GridEngine, field: ClusterField) -> None:
    """qdel in the middle: the farmers hear of it, give back what did not end, and the same line goes on."""
    fast = slow(field, 36)
    job = grid.submit(field.folder, field.variables, ARRAY, "list")
    field.wait_for_runs(12)
    grid.tell("qdel", str(job))
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
    """The time of s_rt is over: the farmer gives back, and Grid Engine starts the element again."""
    fast = slow(field, 8)
    job = grid.submit(field.folder, field.variables, "-t", "1", "-l", "s_rt=0:0:6,h_rt=0:2:0", ARRAY, "list")
    eventually(lambda: sum(field.runs().values()) >= 8, f"the tasks begin again; {field.said()}", 120, 0.1)
    fast.touch()
    grid.wait(job)
    report = field.judge(once=False)
    assert [line for line in report.lines if line.outcome == "returned"]


def test_a_deleted_job_gives_back_and_the_same_line_goes_on(grid: GridEngine, field: ClusterField) -> None:
    deleted(grid, field)


def test_a_job_whose_time_is_over_is_run_again(grid: GridEngine, field: ClusterField) -> None:
    runs_again(grid, field)


@pytest.mark.campaign
@pytest.mark.parametrize("time", range(10))
@pytest.mark.parametrize("what", [deleted, runs_again])
def test_a_list_outlives_all_that_again(what: object, time: int, grid: GridEngine, field: ClusterField) -> None:
    assert callable(what)
    what(grid, field)
