"""The jobs that work on a farm: what its farmers say of themselves, what was submitted, and what schedulers know."""

from __future__ import annotations

from collections.abc import Container, Iterable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

from taskfarmer.formats import limits
from taskfarmer.launch.client import Answer, call
from taskfarmer.launch.records import Submission
from taskfarmer.launch.schedulers import GRID_ENGINE, SCHEDULERS, SLURM, Element, Scheduler
from taskfarmer.launch.squeue import told_end
from taskfarmer.peers.scheduled import in_slurm, job_name
from taskfarmer.storage.layout import Workdir

UNKNOWN = "?"
GONE = "GONE"
"""The state of a job that its scheduler does not have any more."""
NO_SCHEDULER = ("", "")
_DIGITS_OF_TIMES = 12


class FarmerInfo(NamedTuple):
    """A farmer of the farm, and the variables by which it knows its job; none outside of a scheduler."""

    variables: Mapping[str, str]
    host: str | None
    slots: int
    held: int
    verdict: str


@dataclass(frozen=True)
class Job:
    """A job, an element of an array, or elements that still wait together. Outside of a scheduler, a lone farmer.

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
    workers: Iterable[FarmerInfo],
    submitted: Iterable[Submission],
    environ: Mapping[str, str],
    patience: float,
) -> tuple[list[Job], list[str]]:
    """The jobs that have farmers here or were submitted and are not over; and what could not be found out."""
    submitted = list(submitted)
    named = [one for one in submitted if one.job and one.scheduler in SCHEDULERS]
    farmers_by_job = _gangs(workers, {one.cluster for one in named})
    jobs: list[Job] = []
    warnings: list[str] = []
    for place in sorted({*farmers_by_job, *((one.scheduler, one.cluster) for one in named)} - {NO_SCHEDULER}):
        scheduler, cluster = SCHEDULERS[place[0]], place[1]
        mine = {one.job: one for one in named if (one.scheduler, one.cluster) == place}
        gang = farmers_by_job.get(place, {})
        numbers = {*mine, *(job.partition("_")[0] for job in gang)}
        users = {one.user for one in mine.values()}
        elements = _ask(scheduler, cluster, numbers, users, environ, patience, warnings)
        jobs += _of_scheduler(workdir, scheduler, gang, mine, elements)
    jobs += [_job(None, None, Element("", "-"), [one]) for one in farmers_by_job.get(NO_SCHEDULER, {}).get("", [])]
    warnings += [
        f"{workdir.submitted_script(one.name)}: {SCHEDULERS[one.scheduler].submitter} was asked to take it and gave no "
        f"number, so whether there is a job is not known; remove {one.name}.json beside it to forget it"
        for one in submitted
        if not one.job and one.scheduler in SCHEDULERS
    ]
    return jobs, warnings


def _gangs(
    workers: Iterable[FarmerInfo], clusters: Container[str]
) -> dict[tuple[str, str], dict[str, list[FarmerInfo]]]:
    """The farmers of each job, by scheduler and cluster; those of no job have empty names.

    The cluster is named only where it is one of `clusters`, to which somebody has submitted by name: any other
    is where we are.
    """
    found: dict[tuple[str, str], dict[str, list[FarmerInfo]]] = {}
    for one in workers:
        job = job_name(one.variables) or ""
        scheduler = SLURM.name if in_slurm(one.variables) else GRID_ENGINE.name if job else ""
        cluster = one.variables.get("SLURM_CLUSTER_NAME", "")
        place = scheduler, cluster if cluster in clusters else ""
        found.setdefault(place, {}).setdefault(job, []).append(one)
    return found


def _ask(
    scheduler: Scheduler,
    cluster: str,
    numbers: Iterable[str],
    users: Iterable[str],
    environ: Mapping[str, str],
    patience: float,
    warnings: list[str],
) -> list[Element] | None:
    """What a scheduler has of these jobs, None where it cannot be asked; `warnings` then say why."""
    wanted = {number for number in numbers if number.isascii() and number.isdecimal()}
    if not wanted:
        return []
    words = scheduler.question(wanted, users, cluster)
    try:
        answer = call(words, {**environ, "SLURM_TIME_FORMAT": "%s"}, patience)
    except OSError as error:
        answer = Answer(1, "", error.strerror or "")
    elements = scheduler.elements(answer)
    if elements is None:
        why = "no answer in time" if answer.status is None else answer.words or f"exit status {answer.status}"
        where = f"{scheduler.title} on {cluster}" if cluster else scheduler.title
        warnings.append(f"{scheduler.asker}: {why}; the states of the jobs of {where} are not known")
        return None
    return [one for one in elements if one.number in wanted]


def _of_scheduler(
    workdir: Workdir,
    scheduler: Scheduler,
    farmers_by_job: Mapping[str, list[FarmerInfo]],
    submitted: Mapping[str, Submission],
    elements: list[Element] | None,
) -> list[Job]:
    found = {one.job: one for one in elements or ()}
    blank = Element("", UNKNOWN if elements is None else GONE)
    jobs = []
    for job in sorted({*farmers_by_job, *(job for job, one in found.items() if not one.over)}, key=_order):
        element = found.get(job, blank)
        submission = submitted.get(job.partition("_")[0])
        jobs.append(_job(job, scheduler, element, farmers_by_job.get(job, ()), submission, workdir))
    if elements is None:
        seen = {job.partition("_")[0] for job in farmers_by_job}
        waiting = [one for number, one in submitted.items() if number not in seen]
        jobs += [_job(one.job, scheduler, blank, (), one, workdir) for one in waiting]
    return jobs


def _order(job: str) -> tuple[int, ...]:
    return tuple(int(part[: limits.DIGITS]) for part in "".join(c if c.isdecimal() else " " for c in job).split())


def _job(
    job: str | None,
    scheduler: Scheduler | None,
    element: Element,
    gang: Iterable[FarmerInfo],
    submission: Submission | None = None,
    workdir: Workdir | None = None,
) -> Job:
    gang = list(gang)
    verdicts = [one.verdict for one in gang]
    hosts = {one.host for one in gang if one.host}
    clusters = [one.variables.get("SLURM_CLUSTER_NAME", "") for one in gang]
    return Job(
        job,
        scheduler.name if scheduler else None,
        next((name for name in (*clusters, submission.cluster if submission else "") if name), None),
        element.state,
        element.reason,
        element.nodes or len(hosts) or None,
        verdicts.count("alive"),
        verdicts.count("gone"),
        len(gang) - verdicts.count("alive") - verdicts.count("gone"),
        sum(one.slots for one in gang),
        sum(one.held for one in gang),
        element.end or _end(workdir, gang),
        submission.submitted if submission else None,
        workdir.submitted_script(submission.name) if submission and workdir else None,
    )


def _end(workdir: Workdir | None, gang: Iterable[FarmerInfo]) -> float | None:
    """When the allocation ends, as its farmers have learned it."""
    for one in gang:
        told = one.variables.get("SLURM_JOB_END_TIME", "")
        end: float | None = None
        if told.isdecimal() and len(told) < _DIGITS_OF_TIMES:
            end = float(told)
        elif workdir is not None:
            end = told_end(workdir, one.variables)
        if end:
            return end
    return None
