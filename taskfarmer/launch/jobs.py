"""The jobs of a farm, from three sources: its farmers, the records of submissions, and the schedulers."""

from __future__ import annotations

from collections.abc import Container, Iterable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

from taskfarmer.formats import limits
from taskfarmer.launch.client import Answer, call
from taskfarmer.launch.records import Submission
from taskfarmer.launch.schedulers import GRID_ENGINE, SCHEDULERS, SLURM, Element, Scheduler
from taskfarmer.launch.squeue import recorded_end
from taskfarmer.peers.scheduled import in_slurm, job_name
from taskfarmer.storage.layout import Workdir

UNKNOWN = "?"
GONE = "GONE"
"""The state of a job that its scheduler no longer lists."""
NO_SCHEDULER = ("", "")
_TIME_DIGITS = 12


class FarmerInfo(NamedTuple):
    """A farmer of the farm. `variables` are the scheduler variables that identify its job; empty outside of a job."""

    variables: Mapping[str, str]
    host: str | None
    slots: int
    held: int
    verdict: str


@dataclass(frozen=True)
class Job:
    """A job, an array element, or a group of pending elements. Outside of a scheduler: a single farmer.

    `ends` and `submitted` are epoch seconds.
    """

    job: str | None
    scheduler: str | None
    cluster: str | None
    state: str
    reason: str
    nodes: int | None
    farmers_alive: int
    farmers_gone: int
    farmers_unknown: int
    slots: int
    held: int
    ends: float | None
    submitted: float | None
    script: str | None


def jobs_at_work(
    workdir: Workdir,
    farmers: Iterable[FarmerInfo],
    submitted: Iterable[Submission],
    environ: Mapping[str, str],
    timeout: float,
) -> tuple[list[Job], list[str]]:
    """The jobs that have farmers here, or were submitted and have not ended; and warnings about missing information."""
    submitted = list(submitted)
    named = [one for one in submitted if one.job and one.scheduler in SCHEDULERS]
    by_scheduler = _farmers_by_job(farmers, {one.cluster for one in named})
    jobs: list[Job] = []
    warnings: list[str] = []
    for place in sorted({*by_scheduler, *((one.scheduler, one.cluster) for one in named)} - {NO_SCHEDULER}):
        scheduler, cluster = SCHEDULERS[place[0]], place[1]
        mine = {one.job: one for one in named if (one.scheduler, one.cluster) == place}
        farmers_by_job = by_scheduler.get(place, {})
        numbers = {*mine, *(job.partition("_")[0] for job in farmers_by_job)}
        users = {one.user for one in mine.values()}
        elements = _query(scheduler, cluster, numbers, users, environ, timeout, warnings)
        jobs += _jobs_of_scheduler(workdir, scheduler, farmers_by_job, mine, elements)
    jobs += [_job(None, None, Element("", "-"), [one]) for one in by_scheduler.get(NO_SCHEDULER, {}).get("", [])]
    warnings += [
        f"{workdir.submitted_script(one.name)}: {SCHEDULERS[one.scheduler].submitter} did not return a job number, so "
        f"this script may or may not have been submitted; remove {one.name}.json next to it to hide this warning"
        for one in submitted
        if not one.job and one.scheduler in SCHEDULERS
    ]
    return jobs, warnings


def _farmers_by_job(
    farmers: Iterable[FarmerInfo], clusters: Container[str]
) -> dict[tuple[str, str], dict[str, list[FarmerInfo]]]:
    """(scheduler, cluster) -> job -> farmers. Farmers outside of a job have empty names.

    The cluster is empty unless it is one of `clusters`, to which jobs were submitted by name: an empty cluster
    means the default cluster of this node.
    """
    found: dict[tuple[str, str], dict[str, list[FarmerInfo]]] = {}
    for one in farmers:
        job = job_name(one.variables) or ""
        scheduler = SLURM.name if in_slurm(one.variables) else GRID_ENGINE.name if job else ""
        cluster = one.variables.get("SLURM_CLUSTER_NAME", "")
        place = scheduler, cluster if cluster in clusters else ""
        found.setdefault(place, {}).setdefault(job, []).append(one)
    return found


def _query(
    scheduler: Scheduler,
    cluster: str,
    numbers: Iterable[str],
    users: Iterable[str],
    environ: Mapping[str, str],
    timeout: float,
    warnings: list[str],
) -> list[Element] | None:
    """The scheduler's list of these jobs; None if the query failed: then the reason is added to `warnings`."""
    wanted = {number for number in numbers if number.isascii() and number.isdecimal()}
    if not wanted:
        return []
    words = scheduler.query(wanted, users, cluster)
    try:
        answer = call(words, {**environ, "SLURM_TIME_FORMAT": "%s"}, timeout)
    except OSError as error:
        answer = Answer(1, "", error.strerror or "")
    elements = scheduler.elements(answer)
    if elements is None:
        reason = "timed out" if answer.status is None else answer.line or f"exit status {answer.status}"
        place = f"{scheduler.title} on {cluster}" if cluster else scheduler.title
        warnings.append(f"{scheduler.query_program}: {reason}; the states of the {place} jobs are unknown")
        return None
    return [one for one in elements if one.number in wanted]


def _jobs_of_scheduler(
    workdir: Workdir,
    scheduler: Scheduler,
    farmers_by_job: Mapping[str, list[FarmerInfo]],
    submitted: Mapping[str, Submission],
    elements: list[Element] | None,
) -> list[Job]:
    found = {one.job: one for one in elements or ()}
    blank = Element("", UNKNOWN if elements is None else GONE)
    jobs = []
    for job in sorted({*farmers_by_job, *(job for job, one in found.items() if not one.ended)}, key=_order):
        element = found.get(job, blank)
        submission = submitted.get(job.partition("_")[0])
        jobs.append(_job(job, scheduler, element, farmers_by_job.get(job, ()), submission, workdir))
    if elements is None:
        seen = {job.partition("_")[0] for job in farmers_by_job}
        pending = [one for number, one in submitted.items() if number not in seen]
        jobs += [_job(one.job, scheduler, blank, (), one, workdir) for one in pending]
    return jobs


def _order(job: str) -> tuple[int, ...]:
    """A sort key: the numbers in a job's name."""
    return tuple(int(part[: limits.DIGITS]) for part in "".join(c if c.isdecimal() else " " for c in job).split())


def _job(
    job: str | None,
    scheduler: Scheduler | None,
    element: Element,
    farmers: Iterable[FarmerInfo],
    submission: Submission | None = None,
    workdir: Workdir | None = None,
) -> Job:
    farmers = list(farmers)
    verdicts = [one.verdict for one in farmers]
    hosts = {one.host for one in farmers if one.host}
    clusters = [one.variables.get("SLURM_CLUSTER_NAME", "") for one in farmers]
    return Job(
        job,
        scheduler.name if scheduler else None,
        next((name for name in (*clusters, submission.cluster if submission else "") if name), None),
        element.state,
        element.reason,
        element.nodes or len(hosts) or None,
        verdicts.count("alive"),
        verdicts.count("gone"),
        len(farmers) - verdicts.count("alive") - verdicts.count("gone"),
        sum(one.slots for one in farmers),
        sum(one.held for one in farmers),
        element.end or _end_time(workdir, farmers),
        submission.submitted if submission else None,
        workdir.submitted_script(submission.name) if submission and workdir else None,
    )


def _end_time(workdir: Workdir | None, farmers: Iterable[FarmerInfo]) -> float | None:
    """When the allocation ends according to its farmers, in epoch seconds; None if they do not know."""
    for one in farmers:
        variable = one.variables.get("SLURM_JOB_END_TIME", "")
        end: float | None = None
        if variable.isdecimal() and len(variable) < _TIME_DIGITS:
            end = float(variable)
        elif workdir is not None:
            end = recorded_end(workdir, one.variables)
        if end:
            return end
    return None
