"""Names and labels of farmers in a timeline."""

from __future__ import annotations

import time

from taskfarmer.formats.timeline import farmer_number, named
from taskfarmer.peers import scheduled
from taskfarmer.peers.identity import Identity

_DIGITS_OF_TIMES = 12


def farmer_events(identity: Identity | None, farmer: str, slots: int) -> bytes:
    """The events that name a farmer and its slots. Without an identity, the farmer's ID is its name."""
    name = farmer
    if identity is not None:
        job = identity.job_name
        name = f"{identity.host} pid {identity.pid}" + (f" job {job}" if job else "")
    return named(farmer_number(farmer), name, slots, _labels(identity) if identity is not None else "")


def _labels(identity: Identity) -> str:
    """Details of a farmer's job: step, number of restarts, CPUs, end of the allocation."""
    job = identity.job
    found = [f"step {job['SLURM_STEP_ID']}"] if job.get("SLURM_STEP_ID") else []
    if (job.get("SLURM_RESTART_COUNT") or "0") != "0":
        found.append(f"restart {job['SLURM_RESTART_COUNT']}")
    if cpus := scheduled.cpus(job):
        found.append(f"cpus {cpus}")
    end = job.get("SLURM_JOB_END_TIME", "")
    if end.isdecimal() and len(end) < _DIGITS_OF_TIMES:
        found.append(time.strftime("ends %Y-%m-%d %H:%M:%S", time.localtime(int(end))))
    return ", ".join(found)
