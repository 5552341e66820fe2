"""Which job a process belongs to, according to the variables of its scheduler."""

from __future__ import annotations

import pytest

from taskfarmer.peers import scheduled

SLURM = {"SLURM_JOB_ID": "12", "SLURM_CPUS_ON_NODE": "64"}
ELEMENT = {"SLURM_ARRAY_JOB_ID": "10", "SLURM_ARRAY_TASK_ID": "4"}
GRID = {"SGE_ROOT": "/sge", "JOB_ID": "3", "NSLOTS": "4"}


@pytest.mark.parametrize(
    ("variables", "name", "cpus"),
    [
        ({}, None, None),
        ({"JOB_ID": "3", "NSLOTS": "4"}, None, None),
        (SLURM, "12", "64"),
        ({**SLURM, **ELEMENT, "SLURM_CPUS_PER_TASK": "8"}, "10_4", "8"),
        ({**GRID, "SGE_TASK_ID": "undefined"}, "3", "4"),
        ({**GRID, "SGE_TASK_ID": "2"}, "3_2", "4"),
        ({**SLURM, **GRID}, "12", "64"),
    ],
)
def test_a_farmer_knows_its_job_and_its_cpus(variables: dict[str, str], name: str | None, cpus: str | None) -> None:
    job = scheduled.job({**variables, "HOME": "/home/joe"})
    assert "HOME" not in job
    assert (scheduled.job_name(job), scheduled.cpus(job)) == (name, cpus)
