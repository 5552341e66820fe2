"""How farmers learn the end of a job: one farmer of each job asks Slurm, also about the jobs of dead farmers."""

from __future__ import annotations

import re
import shutil
from contextlib import suppress
from datetime import datetime
from pathlib import Path

import pytest

from support.checker import Problem, sealed
from support.farming import eventually
from support.fields import EXAMPLES, ClusterField
from support.slow_jobs import AGAIN, SlowJob
from support.slurm_cluster import SlurmCluster

FARMERS = 6
LEASE = 300
MARGIN = 120


def ends(field: ClusterField) -> list[float]:
    """The end of the job according to each farmer that knows it."""
    jobs = []
    for path in field.workdir.glob("farmers/*.json"):
        with suppress(Problem, OSError):  # it is being written
            jobs.append(sealed(path)["job"])
    return [float(job["SLURM_JOB_END_TIME"]) for job in jobs if "SLURM_JOB_END_TIME" in job]


def asked_once(slurm: SlurmCluster, field: ClusterField) -> None:
    fast, deadlines = field.folder / "fast", field.folder / "deadlines"
    wait = f"n=0; until [ -e {fast} ] || [ $((n += 1)) -gt 200 ]; do sleep 0.1; done"
    field.tasks(48, 0.1, then=f"{wait}; echo $PROC_NUMBER ${{TASKFARMER_DEADLINE:-0}} >>{deadlines}")
    field.stand_in("squeue", f'echo "$*" >>{field.folder}/calls; exec {shutil.which("squeue")} "$@"')
    words = ("--ntasks-per-node=2", "--cpus-per-task=2", "--time=10", f"{EXAMPLES}/slurm/srun.sh", "list")
    job = slurm.submit(field.folder, field.variables, *words)
    eventually(lambda: len(ends(field)) == FARMERS, lambda: f"all farmers know the end; {field.said()}", 90, 0.2)
    end = datetime.fromisoformat(slurm.run_client("squeue", "-h", "-o", "%e", "-j", str(job)).strip()).timestamp()
    assert all(abs(one - end) <= 2 for one in ends(field)), (ends(field), end)
    assert (field.folder / "calls").read_text().splitlines() == [f"--noheader --states=all -j {job} -o %e"]
    begun = set(field.runs())
    fast.touch()
    assert slurm.wait(job) == [("COMPLETED", 0)], field.said()
    field.judge()
    told = dict(map(int, line.split()) for line in deadlines.read_text().splitlines())
    later = [told[task] for task in told.keys() - begun]
    assert later
    assert all(end - 2 * MARGIN < deadline <= end - MARGIN + 2 for deadline in later), (later, end)


def test_one_of_the_farmers_of_a_job_asks_slurm_for_its_end_and_all_get_the_answer(
    slurm: SlurmCluster, tmp_path: Path
) -> None:
    field = ClusterField(tmp_path)
    try:
        asked_once(slurm, field)
    finally:
        field.close()


def test_slurm_reports_that_the_job_of_a_dead_node_has_ended(slurm: SlurmCluster, tmp_path: Path) -> None:
    """The job array's other element gets the tasks of the dead node long before the lease expires."""
    field = ClusterField(tmp_path)
    try:
        where = ("--exclude=n1", "--exclusive", "--cpus-per-task=4", "--no-requeue")
        slow = SlowJob(slurm, field, "array.sh", "--array=1-2", *where)
        assert field.run("--lease", LEASE, "--timeout", 1, "--min-time-left", 60).process.returncode == AGAIN
        slow.submit("--wait")
        slow.wait_for_starts(8)
        slurm.kill_node("n3")
        slurm.wait_for_node("n3", "down")
        slow.hurry()
        eventually(lambda: "NODE_FAIL" in field.said(), lambda: f"Slurm says so; {field.said()}", 120, 0.2)
        assert re.search(rf"Slurm reports its job {slow.job}_[12] as NODE_FAIL", field.said())
        assert ("COMPLETED", 0) in slow.elements(), field.said()
        field.judge(once=False)
    finally:
        slurm.start_node("n3")
        slurm.wait_for_node("n3", "idle")
        field.close()


@pytest.mark.campaign
@pytest.mark.parametrize("time", range(10))
def test_slurm_is_asked_once_in_each_of_ten_jobs(time: int, slurm: SlurmCluster, tmp_path: Path) -> None:
    field = ClusterField(tmp_path)
    try:
        asked_once(slurm, field)
    finally:
        field.close()
