"""Jobs of a farm, and a job that was submitted, for people and for programs."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from typing import Any

from taskfarmer.launch import Job, Request, Submission
from taskfarmer.ui.printable import moment, shell_word, unicode
from taskfarmer.ui.table import table

SCHEMA = 1
_HEADER = ["JOB", "SCHEDULER", "STATE", "NODES", "FARMERS", "SLOTS", "HELD", "ENDS"]


def as_json(workdir: str, jobs: Iterable[Job], warnings: Sequence[str]) -> str:
    """One JSON document. `schema_version` rises when a member changes its meaning; members may be added."""
    document: dict[str, Any] = {
        "schema_version": SCHEMA,
        "workdir": workdir,
        "jobs": [asdict(job) for job in jobs],
        "warnings": warnings,
    }
    return json.dumps(unicode(document), indent=2) + "\n"


def as_text(jobs: Sequence[Job], width: int | None = None) -> str:
    """A table; `width` is that of the terminal, None for anything else."""
    if not jobs:
        return "no job works on this farm, and none waits\n"
    return table(_HEADER, [_row(job) for job in jobs], width)


def _row(job: Job) -> list[str]:
    farmers = {"alive": job.farmers_alive, "gone": job.farmers_gone, "unknown": job.farmers_unknown}
    there = any(farmers.values())
    return [
        job.job or "-",
        job.scheduler or "-",
        f"{job.state} ({job.reason})" if job.reason else job.state,
        str(job.nodes or "-"),
        ", ".join(f"{count} {name}" for name, count in farmers.items() if count) or "-",
        str(job.slots) if there else "-",
        str(job.held) if there else "-",
        moment(job.ends) if job.ends else "-",
    ]


def submitted(submission: Submission, request: Request, scheduler: str, workdir: str) -> str:
    """What is said of a job that was submitted: its number, its script, and what to do next."""
    size = [f"{request.array} elements"] if request.array is not None else []
    size += [f"{request.nodes} nodes" + (" each" if size else "")] if request.nodes > 1 else []
    about = f" of {', '.join(size)}" if size else ""
    near = os.path.relpath(workdir)
    place = near if len(near) < len(workdir) else workdir
    script = os.path.relpath(submission.command[-1]) if near == place else submission.command[-1]
    cancel = "scancel" if submission.scheduler == "slurm" else "qdel"
    where = f" -M {submission.cluster}" if submission.cluster else ""
    return f"""\
{scheduler} has job {submission.job}{about}
script        {shell_word(script)}
look at it    taskfarmer jobs {shell_word(place)}
end it        {cancel}{where} {submission.job}
"""
