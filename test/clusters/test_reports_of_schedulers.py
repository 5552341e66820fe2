"""When Slurm or Grid Engine reports that a farmer has ended, others get its tasks long before the lease expires."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.checker import check
from support.farming import eventually
from support.fields import ClusterField
from support.grid_engine import GridEngine
from support.slow_jobs import AGAIN, SlowJob
from support.slurm_cluster import SlurmCluster

LEASE = 100
"""Heartbeats every 5 s; the tests end long before the lease expires."""


@pytest.fixture
def field(tmp_path: Path) -> Iterator[ClusterField]:
    field = ClusterField(tmp_path)
    try:
        yield field
    finally:
        field.close()


def script(field: ClusterField, text: str) -> str:
    path = field.folder / "script.sh"
    path.write_text(f"#!/bin/bash\n{text}\n")
    return str(path)


def slow_once(field: ClusterField, count: int) -> None:
    """Tasks that wait at their first attempt until the file `fast` exists."""
    wait = f"until [ -e {field.folder}/fast ] || [ $TASKFARMER_ATTEMPT -gt 1 ]; do sleep 0.1; done"
    field.tasks(count, 0.0, then=wait)


def wait_for_output(field: ClusterField, pattern: str) -> None:
    eventually(lambda: re.search(pattern, field.said()), lambda: f"{pattern}; {field.said()}", LEASE, 0.2)


# --- Slurm --------------------------------------------------------------------------------------------


def test_the_tasks_of_a_step_that_ended_go_to_another_step_of_the_job(slurm: SlurmCluster, field: ClusterField) -> None:
    slow_once(field, 4)
    farmer = f"pytaskfarmer.py list -n 2 --lease {LEASE} --timeout none"
    text = f"srun -N1 -n1 -w n1 {farmer} & sleep 2; srun -N1 -n1 -w n2 {farmer} --wait & wait"
    job = slurm.submit(field.folder, field.variables, "-w", "n1,n2", "--ntasks-per-node=1", script(field, text))
    field.wait_for_runs(4)
    (journal,) = [name for name in check(field.workdir).state["farmers"] if name.startswith("n1-")]
    step = next(
        number for number in ("0", "1") if "n1" in slurm.run_client("squeue", "-h", "-s", f"{job}.{number}", "-o", "%N")
    )
    slurm.run_client("scancel", "--signal=KILL", f"{job}.{step}")
    wait_for_output(field, rf"{journal} is dead \(Slurm reports its step {job}\.{step} as ended\)")
    (field.folder / "fast").touch()
    slurm.wait(job)
    field.judge(once=False)


@pytest.mark.campaign
def test_a_requeued_job_claims_the_tasks_of_its_earlier_run_at_once(slurm: SlurmCluster, field: ClusterField) -> None:
    try:
        where = ("--exclude=n1", "--requeue", "--cpus-per-task=4")
        slow = SlowJob(slurm, field, "array.sh", "--array=1", *where, tasks=8)
        assert field.run("--lease", 3600, "--timeout", 1, "--min-time-left", 60).process.returncode == AGAIN
        slow.submit()
        slow.wait_for_starts(4)
        (element,) = slurm.elements(slow.job)
        slurm.kill_node(element["NodeList"])
        slow.has_restarted(1)
        wait_for_output(field, rf"its job {slow.job}_1 was requeued, and runs again here")
        slow.hurry()
        assert slow.elements() == [("COMPLETED", 0)], field.said()
        field.judge(once=False)
    finally:
        for name in ("n2", "n3"):
            if name not in slurm.daemons:
                slurm.start_node(name)
                slurm.wait_for_node(name, "idle")


def test_a_failed_task_does_not_make_srun_k_kill_farmers_that_still_work(
    slurm: SlurmCluster, field: ClusterField
) -> None:
    slow_once(field, 1)
    with open(field.list, "a") as file:
        file.write("exit 3\n")
    text = "srun -K -N2 -n2 pytaskfarmer.py list -n 1 --timeout none"
    job = slurm.submit(field.folder, field.variables, "-N2", "-n2", script(field, text))
    wait_for_output(field, "other farmers still hold tasks: exit status 0")
    (field.folder / "fast").touch()
    assert slurm.wait(job) == [("FAILED", 1)], "the last farmer has the farm's status"
    report = check(field.workdir, views=True)
    assert (report.finished, report.failed, report.problems) == ({0}, {1}, [])
    assert {line.attempt for line in report.lines} == {1}, field.said()


# --- Grid Engine --------------------------------------------------------------------------------------


def test_the_tasks_of_a_deleted_grid_engine_job_go_to_another_job(grid: GridEngine, field: ClusterField) -> None:
    """Element 1 sees itself on a separate node, and is deleted without a warning."""
    slow_once(field, 4)
    (field.folder / "boot").write_text("11111111-2222-4333-8444-555555555555\n")
    inner = 'hostname far; mount --bind boot /proc/sys/kernel/random/boot_id; exec "$@"'
    farmer = f"{field.folder}/bin/pytaskfarmer.py list -n 2 --lease {LEASE}"
    text = f"""\
if [ $SGE_TASK_ID = 1 ]; then
    exec unshare --mount --uts --pid --fork --kill-child --mount-proc sh -c '{inner}' sh {farmer}
fi
until [ -e {field.ran}/1 ]; do sleep 0.1; done
exec {farmer} --wait"""
    job = grid.submit(field.folder, field.variables, "-V", "-cwd", "-j", "y", "-t", "1-2", script(field, text))
    field.wait_for_runs(4)
    (journal,) = [name for name in check(field.workdir).state["farmers"] if name.startswith("far-")]
    grid.run_client("qdel", f"{job}.1")
    wait_for_output(field, rf"{journal} is dead \(Grid Engine reports its job {job}_1 as ended\)")
    (field.folder / "fast").touch()
    grid.wait(job)
    field.judge(once=False)
