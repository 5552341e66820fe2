"""How farmers are called in a timeline."""

from __future__ import annotations

from taskfarmer.ledger.liveness import Identity
from taskfarmer.trace import farmer_number, named


def farmer_events(identity: Identity | None, farmer: str, slots: int) -> bytes:
    """The events that name a farmer and its slots; a farmer whose identity is lost goes by its ID."""
    name = farmer
    if identity is not None:
        job = identity.job.get("SLURM_JOB_ID")
        name = f"{identity.host} pid {identity.pid}" + (f" job {job}" if job else "")
    return named(farmer_number(farmer), name, slots)
