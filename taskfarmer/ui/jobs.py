"""The jobs of a farm and a new job's description, as text and as JSON."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from typing import Any

from taskfarmer.launch.jobs import Job
from taskfarmer.launch.records import Submission
from taskfarmer.launch.request import Request
from taskfarmer.ui.printable import json_safe, local_time, shell_word
from taskfarmer.ui.table import table

SCHEMA = 1
_HEADER = ["JOB", "SCHEDULER", "STATE", "NODES", "FARMERS", "SLOTS", "HELD", "ENDS"]


def as_json(workdir: str, jobs: Iterable[Job], warnings: Sequence[str]) -> str:
    """Return one JSON document. `schema_version` increases if a member's meaning changes, not if members are added."""
    document: dict[str, Any] = {
        "schema_version": SCHEMA,
        "workdir": workdir,
        "jobs": [asdict(job) for job in jobs],
        "warnings": warnings,
    }
    return json.dumps(json_safe(document), indent=2) + "\n"


def as_text(jobs: Sequence[Job], width: int | None = None) -> str:
    """Return a table for a terminal of `width` columns; None if stdout is not a terminal."""
    if not jobs:
        return "no running or pending jobs for this farm\n"
    return table(_HEADER, [_row(job) for job in jobs], width)


def _row(job: Job) -> list[str]:
    farmers = {"alive": job.farmers_alive, "gone": job.farmers_gone, "unknown": job.farmers_unknown}
    started = any(farmers.values())
    return [
        job.job or "-",
        job.scheduler or "-",
        f"{job.state} ({job.reason})" if job.reason else job.state,
        str(job.nodes or "-"),
        ", ".join(f"{count} {name}" for name, count in farmers.items() if count) or "-",
        str(job.slots) if started else "-",
        str(job.held) if started else "-",
        local_time(job.ends) if job.ends else "-",
    ]


def submitted(submission: Submission, request: Request, scheduler: str, workdir: str) -> str:
    """Describe a submitted job: its number, its script, and the commands to watch and to cancel it."""
    size = [f"{request.array} elements"] if request.array is not None else []
    size += [f"{request.nodes} nodes" + (" each" if size else "")] if request.nodes > 1 else []
    dimensions = f" of {', '.join(size)}" if size else ""
    relative = os.path.relpath(workdir)
    folder = min(workdir, relative, key=len)
    script = os.path.relpath(submission.command[-1]) if folder == relative else submission.command[-1]
    cancel = "scancel" if submission.scheduler == "slurm" else "qdel"
    cluster = f" -M {submission.cluster}" if submission.cluster else ""
    return f"""\
submitted to {scheduler}: job {submission.job}{dimensions}
script        {shell_word(script)}
to watch      taskfarmer jobs {shell_word(folder)}
to cancel     {cancel}{cluster} {submission.job}
"""
