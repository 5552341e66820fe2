"""If variables of a scheduler are empty, as in containers and login scripts, they do not indicate a job."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from support.house import House
from taskfarmer.farmer.jobs import SchedulerReports
from taskfarmer.launch.jobs import FarmerInfo, jobs_at_work
from taskfarmer.peers import scheduled
from taskfarmer.storage.layout import Workdir

NAMES = (
    "SLURM_JOB_ID SLURM_CLUSTER_NAME SLURM_JOB_NAME SLURM_ARRAY_JOB_ID SLURM_ARRAY_TASK_ID SLURM_ARRAY_TASK_COUNT "
    "SLURM_STEP_ID SLURM_STEP_NUM_NODES SLURM_NNODES SLURM_PROCID SLURM_RESTART_COUNT SLURM_JOB_END_TIME "
    "SLURM_CPUS_ON_NODE SLURM_CPUS_PER_TASK JOB_ID JOB_NAME SGE_ROOT SGE_TASK_ID SGE_CELL QUEUE NSLOTS SCRATCH"
)
EMPTY = dict.fromkeys(NAMES.split(), "")
GRID_ENGINE = {"SGE_ROOT": "/sge", "JOB_ID": "3"}


def test_empty_variables_name_no_job() -> None:
    assert scheduled.job(EMPTY) == {}
    assert not scheduled.in_slurm(EMPTY)
    assert scheduled.nodes(EMPTY) == 1
    assert SchedulerReports(scheduled.job(EMPTY)).end_reason({"SLURM_JOB_ID": "12"}, 0.0, 0.0) is None


@pytest.mark.parametrize(
    ("variables", "name"),
    [
        ({**EMPTY, "SLURM_JOB_ID": "12"}, "12"),
        ({**EMPTY, "SLURM_JOB_ID": "12", "SLURM_ARRAY_JOB_ID": "10"}, "12"),
        ({**EMPTY, **GRID_ENGINE}, "3"),
        ({**GRID_ENGINE, "SLURM_JOB_ID": ""}, "3"),
    ],
)
def test_a_job_is_recognized_by_the_variables_that_are_not_empty(variables: dict[str, str], name: str) -> None:
    job = scheduled.job(variables)
    assert all(job.values())
    assert scheduled.job_name(job) == name


def test_a_farmer_with_empty_variables_belongs_to_no_scheduler(tmp_path: Path) -> None:
    worker = FarmerInfo(EMPTY, "n1", 1, 0, "alive")
    jobs, warnings = jobs_at_work(Workdir.at(str(tmp_path)), [worker], [], {}, 1.0)
    assert ([(one.job, one.scheduler) for one in jobs], warnings) == ([(None, None)], [])


def test_a_farmer_with_empty_variables_works_as_without_a_scheduler(house: House) -> None:
    house.write("echo one\nfalse\n")
    squeue = house.folder / "bin" / "squeue"
    squeue.parent.mkdir()
    squeue.write_text(f"#!/bin/sh\necho asked >> {house.folder}/asked\n")
    squeue.chmod(0o755)
    path = f"{squeue.parent}:{house.environ['PATH']}"
    done = house.command("pytaskfarmer.py", "list.txt", environ={**EMPTY, "PATH": path})
    assert done.status == 1, done.stderr
    assert not (house.folder / "asked").exists()
    events = json.loads((house.workdir / "timeline.json").read_text())
    names = [event["args"]["name"] for event in events if event["name"] == "process_name"]
    labels = [event["args"]["labels"] for event in events if event["name"] == "process_labels"]
    assert names and not any(" job" in name for name in names)
    assert not any("step" in label or "restart" in label for label in labels)
