"""The supported schedulers: how to validate a request, submit a job, and query jobs."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple
from xml.etree import ElementTree

from taskfarmer.errors import UsageError
from taskfarmer.launch.client import Answer
from taskfarmer.launch.request import Request
from taskfarmer.launch.scripts import grid_engine_script, slurm_options, slurm_script
from taskfarmer.launch.squeue import ENDED


class Element(NamedTuple):
    """A job or an array element as listed by its scheduler. `job` is the number that users see, such as 12_3.

    `end` is in epoch seconds, None if unknown. If `ended` is set, it will not run again.
    """

    job: str
    state: str
    reason: str = ""
    nodes: int | None = None
    end: float | None = None
    ended: bool = False

    @property
    def number(self) -> str:
        """The job number without the array element."""
        return re.split(r"[_.+]", self.job)[0]


class Scheduler(NamedTuple):
    """A scheduler: the names of its programs, and functions that build their command lines and parse their output.

    `refuse` raises UsageError for a request that this scheduler cannot fulfill. `script` returns the text of the job
    script, `command` the command line that submits it, `number` the job number and cluster in the output, `query` the
    command line that lists jobs, `elements` the jobs in its output, None if the query failed.
    """

    name: str
    title: str
    submitter: str
    query_program: str
    refuse: Callable[[Request], None]
    script: Callable[[Request], str]
    command: Callable[[Request, str], list[str]]
    number: Callable[[str], tuple[str, str] | None]
    query: Callable[[Iterable[str], Iterable[str], str], list[str]]
    elements: Callable[[Answer], list[Element] | None]


# --- Slurm -------------------------------------------------------------------------------------------


def _refuse_nothing(request: Request) -> None:
    return None


def _sbatch(request: Request, script: str) -> list[str]:
    """Repeats the script's options, because variables such as SBATCH_PARTITION override those in the script."""
    options = [word for line in slurm_options(request) for word in line]
    return ["sbatch", "--parsable", *options, *_join_values(request.words), script]


def _join_values(words: Sequence[str]) -> list[str]:
    """Join each option and its value into one word; otherwise sbatch could mistake a value for the script."""
    found: list[str] = []
    for word in words:
        if word.startswith("-"):
            found.append(word)
        else:
            found[-1] += f"={word}" if found[-1].startswith("--") else word
    return found


def _slurm_number(output: str) -> tuple[str, str] | None:
    """Job number and cluster in the output of `sbatch --parsable`."""
    match = re.search(r"^(\d+)(?:;(\S+))?$", output, re.MULTILINE)
    return (match[1], match[2] or "") if match else None


def _squeue(numbers: Iterable[str], users: Iterable[str], cluster: str) -> list[str]:
    clusters = ["-M", cluster] if cluster else []
    jobs = ",".join(sorted(set(numbers), key=int))
    return ["squeue", *clusters, "--noheader", "--states=all", "-j", jobs, "-o", "%i|%T|%D|%e|%r"]


def _slurm_elements(answer: Answer) -> list[Element] | None:
    if answer.status != 0:
        return [] if "Invalid job id" in answer.err else None
    found = []
    for line in answer.out.splitlines():
        fields = line.split("|", 4)
        if len(fields) == 5:
            job, state, nodes, end, reason = fields
            shown = reason if state == "PENDING" and reason != "None" else ""
            count = int(nodes) if nodes.isdecimal() else None
            found.append(Element(job, state, shown, count, float(end) if end.isdecimal() else None, state in ENDED))
    return found


# --- Grid Engine -------------------------------------------------------------------------------------


def _refuse_for_grid_engine(request: Request) -> None:
    if request.nodes > 1:
        raise UsageError("--nodes: not supported by Grid Engine; use --array N for N farmers")
    if request.time_min is not None:
        raise UsageError("--time-min: not supported by Grid Engine; use --time")
    if request.constraint is not None:
        raise UsageError("--constraint: not supported by Grid Engine; use a resource instead: `-- -l NAME=VALUE`")
    if request.slots is None:
        raise UsageError("--proc auto: Grid Engine needs a number of slots; set it with --proc N")


def _qsub(request: Request, script: str) -> list[str]:
    return ["qsub", "-terse", script]


def _grid_number(output: str) -> tuple[str, str] | None:
    match = re.search(r"^(\d+)(?:\.\S+)?$", output, re.MULTILINE)
    return (match[1], "") if match else None


def _qstat(numbers: Iterable[str], users: Iterable[str], cluster: str) -> list[str]:
    return ["qstat", "-xml", *(word for user in sorted(set(users)) for word in ("-u", user))]


def _grid_elements(answer: Answer) -> list[Element] | None:
    if answer.status != 0:
        return None
    try:
        # names of jobs and users may contain bytes that are not UTF-8
        document = ElementTree.fromstring(answer.out.encode("utf-8", "replace"))
    except ElementTree.ParseError:
        return None
    found = []
    for one in document.iter("job_list"):
        number, code, tasks = (one.findtext(name) or "" for name in ("JB_job_number", "state", "tasks"))
        job = f"{number}_{tasks}" if tasks.isdecimal() else f"{number}_[{tasks}]" if tasks else number
        found.append(Element(job, _state(code), "", None if "q" in code else 1))
    return found


def _state(code: str) -> str:
    """The state as a word, from the letters of qstat(1)."""
    for letter, word in (("E", "ERROR"), ("d", "ENDING"), ("q", "PENDING"), ("s", "SUSPENDED"), ("S", "SUSPENDED")):
        if letter in code:
            return word
    return "RUNNING" if {"r", "t"} & set(code) else code.upper()


SLURM = Scheduler(
    "slurm",
    "Slurm",
    "sbatch",
    "squeue",
    _refuse_nothing,
    slurm_script,
    _sbatch,
    _slurm_number,
    _squeue,
    _slurm_elements,
)
GRID_ENGINE = Scheduler(
    "gridengine",
    "Grid Engine",
    "qsub",
    "qstat",
    _refuse_for_grid_engine,
    grid_engine_script,
    _qsub,
    _grid_number,
    _qstat,
    _grid_elements,
)
SCHEDULERS: Mapping[str, Scheduler] = {one.name: one for one in (SLURM, GRID_ENGINE)}
