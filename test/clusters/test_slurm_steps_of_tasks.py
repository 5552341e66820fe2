"""Tasks that are job steps get a signal together with their farmers; jobs that requeue themselves, and no others."""

from __future__ import annotations

from pathlib import Path

import pytest

from support.checker import check
from support.farming import eventually
from support.fields import ClusterField
from support.slow_jobs import AGAIN, SlowJob
from support.slurm_cluster import SlurmCluster

SLOTS = 6
RANKS = "srun --overlap --nodes=1 --nodelist=$(hostname -s) --ntasks=4 bash -c 'echo >>ranks; {}'"


def mpi(slurm: SlurmCluster, field: ClusterField, *options: str) -> SlowJob:
    """mpi.sh in the middle of a list of tasks that each are a step of four ranks."""
    slow = SlowJob(slurm, field, "mpi.sh", *options, tasks=4 * SLOTS, within=RANKS)
    slow.submit()
    slow.wait_for_starts(SLOTS)
    ranks = field.folder / "ranks"
    eventually(lambda: ranks.exists() and len(ranks.read_text()) >= 4 * SLOTS, "all ranks run", 60)
    return slow


def gives_back(slow: SlowJob) -> None:
    """Ranks, tasks and farmers got the signal in any order: no task has failed, and the rest runs later."""
    field = slow.field
    assert slow.elements() == [("FAILED", AGAIN)], field.said()
    field.nothing_runs()
    report = check(field.workdir, views=True)
    assert (report.problems, report.failed) == ([], set()), field.said()
    assert 0 < len([line for line in report.lines if line.outcome == "returned"]) <= SLOTS, field.said()
    slow.resubmit()
    field.judge(once=False)


def test_tasks_that_are_steps_and_are_signalled_with_their_farmers_have_not_failed(
    slurm: SlurmCluster, tmp_path: Path
) -> None:
    field = ClusterField(tmp_path)
    try:
        slow = mpi(slurm, field)
        slurm.run_client("scancel", "--signal=USR1", str(slow.job))
        gives_back(slow)
    finally:
        field.close()


def test_a_job_that_requeues_itself_ends_when_it_is_cancelled(slurm: SlurmCluster, tmp_path: Path) -> None:
    field = ClusterField(tmp_path)
    try:
        slow = SlowJob(slurm, field, "flex.sh", "--cpus-per-task=4", tasks=12)
        slow.submit()
        slow.wait_for_starts(4)
        slurm.run_client("scancel", str(slow.job))
        assert [state for state, _ in slow.elements()] == ["CANCELLED"], field.said()
        field.nothing_runs()
        assert (slurm.states(slow.job), slow.restarts()) == (["CANCELLED"], 0), field.said()
        assert check(field.workdir).problems == []
        slow.resubmit()
        field.judge(once=False)
    finally:
        field.close()


def test_an_element_of_an_array_requeues_itself_and_no_other(slurm: SlurmCluster, tmp_path: Path) -> None:
    """The job ID of the array's last element is also that of the array."""
    field = ClusterField(tmp_path)
    try:
        slow = SlowJob(slurm, field, "flex.sh", "--array=1-2", "--cpus-per-task=4", tasks=24)
        slow.submit()
        slow.wait_for_starts(8)
        last = next(one for one in slurm.elements(slow.job) if one["JobId"] == one["ArrayJobId"])
        slurm.run_client("scancel", "--batch", "--signal=USR1", f"{slow.job}_{last['ArrayTaskId']}")
        slow.has_restarted(1)
        restarts = {one["ArrayTaskId"]: int(one["Restarts"]) for one in slurm.elements(slow.job)}
        assert restarts == {"1": 0, "2": 0, last["ArrayTaskId"]: 1}, field.said()
        slow.hurry()
        assert slow.elements() == [("COMPLETED", 0)] * 2, field.said()
        field.judge(once=False)
    finally:
        field.close()


@pytest.mark.campaign
@pytest.mark.timeout(400)
@pytest.mark.parametrize("time", range(10))
def test_tasks_that_are_steps_have_not_failed_if_the_signal_comes_before_the_time_limit(
    time: int, slurm: SlurmCluster, tmp_path: Path
) -> None:
    field = ClusterField(tmp_path)
    try:
        gives_back(mpi(slurm, field, "--time=3", "--signal=USR1@140"))
    finally:
        field.close()
