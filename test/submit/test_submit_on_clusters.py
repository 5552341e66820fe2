"""`taskfarmer submit` and `taskfarmer jobs` with a real Slurm of three nodes, and with a real Grid Engine.

The jobs on Slurm run at once, each with a separate list; each test waits for one of them.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import pytest

from support.checker import check
from support.farming import eventually
from support.fields import chosen
from support.grid_engine import GridEngine
from support.slurm_cluster import SlurmCluster
from support.submitting import Submitter


def slow(field: Submitter, count: int) -> Path:
    """Tasks that wait until the returned file exists."""
    fast = field.folder / "fast"
    field.tasks(count, 0.1, then=f"n=0; until [ -e {fast} ] || [ $((n += 1)) -gt 300 ]; do sleep 0.1; done")
    return fast


def array(slurm: SlurmCluster, field: Submitter) -> None:
    """Two elements, listed when they are pending, when they run, and when they have ended."""
    fast = slow(field, 24)
    before = time.time()
    job = field.submit("--array", "2", "-n", "4", "--time", "10m", "--", "--hold", "--comment", "a 'b\\ #c")
    (waiting,) = field.jobs()
    assert waiting["job"] == f"{job}_[1-2]"
    assert (waiting["scheduler"], waiting["state"], waiting["reason"]) == ("slurm", "PENDING", "JobHeldUser")
    assert waiting["farmers_unknown"] == waiting["slots"] == 0
    (script,) = field.scripts()
    assert waiting["script"] == str(script)
    assert slurm.try_client("squeue", "-h", "-o", "%k", "-j", str(job)).strip() == "a 'b\\ #c"
    slurm.run_client("scontrol", "release", str(job))
    field.wait_for_runs(8)
    running = field.jobs()
    assert [one["job"] for one in running] == [f"{job}_1", f"{job}_2"]
    for one in running:
        assert (one["state"], one["nodes"], one["slots"]) == ("RUNNING", 1, 4)
        assert one["farmers_unknown"] + one["farmers_alive"] == 1
        assert one["held"] >= 4
        assert before + 500 < one["ends"] < time.time() + 700
    table = field.verb("jobs", field.workdir).stdout.splitlines()
    assert table[0].split() == ["JOB", "SCHEDULER", "STATE", "NODES", "FARMERS", "SLOTS", "HELD", "ENDS"]
    assert [line.split()[0] for line in table[1:]] == [f"{job}_1", f"{job}_2"]
    fast.touch()
    assert slurm.wait(job) == [("COMPLETED", 0)] * 2, field.said()
    assert len({line.journal for line in field.judge().lines}) == 2
    assert field.jobs() == []


def nodes(slurm: SlurmCluster, field: Submitter) -> None:
    """Two nodes of one job; each runs as many tasks as it has CPUs for."""
    fast = slow(field, 16)
    job = field.submit("--nodes", "2", "--time", "10m", "--grace", "5", "--", "-c", "3")
    field.wait_for_runs(6)
    (running,) = field.jobs()
    assert (running["job"], running["nodes"], running["slots"]) == (str(job), 2, 6)
    fast.touch()
    assert slurm.wait(job) == [("COMPLETED", 0)], field.said()
    assert len({line.journal.split("-")[0] for line in field.judge().lines}) == 2


def returning(*options: str, tell: tuple[str, ...]) -> Callable[[SlurmCluster, Submitter], None]:
    """A job that requeues itself until the list is complete."""

    def run(slurm: SlurmCluster, field: Submitter) -> None:
        fast = slow(field, 16)
        job = field.submit(*options, "-n", "2", "--time", "20m", "--time-min", "10m", "--requeue")
        slots = 2 * (2 if "--nodes" in options else 1)
        field.wait_for_runs(slots)
        slurm.run_client("scancel", "--signal=USR1", *tell, str(job))
        eventually(lambda: max(int(one["Restarts"]) for one in slurm.elements(job)), "it is requeued", 60, 0.1)
        fast.touch()
        assert set(slurm.wait(job)) == {("COMPLETED", 0)}, field.said()
        report = field.judge(once=False)
        assert len([line for line in report.lines if line.outcome == "returned"]) == slots

    return run


def refused(slurm: SlurmCluster, field: Submitter) -> None:
    """The message of sbatch is shown, and no file is left; options precede variables of sbatch."""
    field.tasks(4)
    done = field.verb("submit", "list", "-p", "nosuch")
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert "invalid partition specified: nosuch" in done.stderr
    assert not field.workdir.exists()
    job = field.submit("-p", "test", "-n", "2", "--time", "1h", SBATCH_PARTITION="nosuch", SBATCH_TIMELIMIT="2")
    assert slurm.try_client("squeue", "-h", "--states=all", "-o", "%P %l", "-j", str(job)).split() == [
        "test",
        "1:00:00",
    ]
    assert slurm.wait(job) == [("COMPLETED", 0)], field.said()
    field.judge()


def by_hand(slurm: SlurmCluster, field: Submitter) -> None:
    """A script from a dry run can be passed to sbatch unchanged, with its arguments."""
    field.tasks(4)
    done = field.verb("submit", "list", "-n", "2", "--dry-run", "--", "--comment", "a 'b\\ #\"c")
    script = field.folder / "my script"
    script.write_text(done.stdout)
    job = slurm.submit(field.folder, field.environment, str(script))
    assert slurm.try_client("squeue", "-h", "--states=all", "-o", "%k", "-j", str(job)).strip() == "a 'b\\ #\"c"
    assert slurm.wait(job) == [("COMPLETED", 0)], field.said()
    field.judge()


ON_SLURM: dict[str, Callable[[SlurmCluster, Submitter], None]] = {
    "an array": array,
    "two nodes": nodes,
    "a job that requeues itself": returning(tell=("--batch",)),
    "two nodes that requeue themselves": returning("--nodes", "2", tell=()),
    "an array of one that requeues itself": returning("--array", "1", tell=("--batch",)),
    "a request that sbatch refuses": refused,
    "a script for sbatch": by_hand,
}


@pytest.fixture(scope="module")
def submissions(
    request: pytest.FixtureRequest, slurm: SlurmCluster, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[dict[str, Future[None]]]:
    environment = {**slurm.environment, "SLURM_CONF": str(slurm.configuration)}
    fields = {what: Submitter(tmp_path_factory.mktemp("submitted"), environment) for what in chosen(request)}
    try:
        with ThreadPoolExecutor(len(fields)) as pool:
            yield {what: pool.submit(ON_SLURM[what], slurm, fields[what]) for what in fields}
    finally:
        for field in fields.values():
            field.close()


@pytest.mark.parametrize("what", ON_SLURM)
def test_on_slurm(what: str, submissions: dict[str, Future[None]]) -> None:
    submissions[what].result(170)


def test_an_array_on_grid_engine(grid: GridEngine, tmp_path: Path) -> None:
    """Two elements from submission to completion; refusals contain the message of qsub."""
    field = Submitter(tmp_path, grid.environment)
    there = ("--scheduler", "gridengine")
    try:
        fast = slow(field, 24)
        done = field.verb("submit", "list", *there, "-p", "nosuch.q")
        assert done.returncode == 2
        assert 'unknown queue "nosuch.q"' in done.stderr
        assert not field.workdir.exists()
        job = field.submit(*there, "--array", "2", "-n", "4", "--time", "1h", "-p", "all.q")
        field.wait_for_runs(8)
        found = [one for one in field.jobs() if one["scheduler"] == "gridengine"]
        assert [(one["job"], one["state"]) for one in found] == [(f"{job}_1", "RUNNING"), (f"{job}_2", "RUNNING")]
        assert {one["script"] for one in found} == {str(field.scripts()[0])}
        fast.touch()
        grid.wait(job)
        report = field.judge()
        assert len({line.journal for line in report.lines}) == 2, field.said()
        assert check(field.workdir).problems == []
        assert field.jobs() == []
    finally:
        field.close()
