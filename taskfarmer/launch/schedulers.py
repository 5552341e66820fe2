"""The schedulers that are known: what each can be asked for, how it takes a job, and how it tells of one."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple
from xml.etree import ElementTree

from taskfarmer.errors import UsageError
from taskfarmer.launch.client import Answer
from taskfarmer.launch.request import Request
from taskfarmer.launch.scripts import grid_engine_script, slurm_options, slurm_script
from taskfarmer.launch.squeue import OVER


class Element(NamedTuple):
    """A job, or an element of an array, as its scheduler has it. `job` is its number as people know it.

    `end` is in epoch seconds, None where there is none; `over` says that it will not run any more.
    """

    job: str
    state: str
    reason: str = ""
    nodes: int | None = None
    end: float | None = None
    over: bool = False

    @property
    def number(self) -> str:
        """The number of the whole job."""
        return re.split(r"[_.+]", self.job)[0]


class Scheduler(NamedTuple):
    """`submitter` takes jobs, `asker` tells of them; `script` writes them, and `refuse` what cannot be had."""

    name: str
    title: str
    submitter: str
    asker: str
    refuse: Callable[[Request], None]
    script: Callable[[Request], str]
    submission: Callable[[Request, str], list[str]]
    number: Callable[[str], tuple[str, str] | None]
    question: Callable[[Iterable[str], Iterable[str], str], list[str]]
    elements: Callable[[Answer], list[Element] | None]


# --- Slurm -------------------------------------------------------------------------------------------


def _refuse_nothing(request: Request) -> None:
    return None


def _sbatch(request: Request, script: str) -> list[str]:
    """The options again, although they are in the script: there, variables such as SBATCH_PARTITION precede them."""
    options = [word for line in slurm_options(request) for word in line]
    return ["sbatch", "--parsable", *options, *_joined(request.words), script]


def _joined(words: Sequence[str]) -> list[str]:
    """Each option with its value in one word, so that none is taken for the name of the script."""
    found: list[str] = []
    for word in words:
        if word.startswith("-"):
            found.append(word)
        else:
            found[-1] += f"={word}" if found[-1].startswith("--") else word
    return found


def _slurm_number(said: str) -> tuple[str, str] | None:
    """The number of the job and its cluster, of what `sbatch --parsable` says."""
    match = re.search(r"^(\d+)(?:;(\S+))?$", said, re.MULTILINE)
    return (match[1], match[2] or "") if match else None


def _squeue(numbers: Iterable[str], users: Iterable[str], cluster: str) -> list[str]:
    form = "%i|%T|%D|%e|%r"
    where = ["-M", cluster] if cluster else []
    return ["squeue", *where, "--noheader", "--states=all", "-j", ",".join(sorted(set(numbers), key=int)), "-o", form]


def _slurm_elements(answer: Answer) -> list[Element] | None:
    if answer.status != 0:
        return [] if "Invalid job id" in answer.err else None
    found = []
    for line in answer.out.splitlines():
        fields = line.split("|", 4)
        if len(fields) == 5:
            job, state, nodes, end, reason = fields
            why = reason if state == "PENDING" and reason != "None" else ""
            count = int(nodes) if nodes.isdecimal() else None
            found.append(Element(job, state, why, count, float(end) if end.isdecimal() else None, state in OVER))
    return found


# --- Grid Engine -------------------------------------------------------------------------------------


def _refuse_for_grid_engine(request: Request) -> None:
    if request.nodes > 1:
        raise UsageError("--nodes: Grid Engine starts one script on one node; use --array N for N farmers")
    if request.time_min is not None:
        raise UsageError("--time-min: Grid Engine has one time for a job, --time")
    if request.constraint is not None:
        raise UsageError("--constraint: Grid Engine knows resources; ask for them behind --, as in `-- -l NAME=VALUE`")
    if request.slots is None:
        raise UsageError("--proc auto: Grid Engine gives a job the slots that it asks for; say how many")


def _qsub(request: Request, script: str) -> list[str]:
    return ["qsub", "-terse", script]


def _grid_number(said: str) -> tuple[str, str] | None:
    match = re.search(r"^(\d+)(?:\.\S+)?$", said, re.MULTILINE)
    return (match[1], "") if match else None


def _qstat(numbers: Iterable[str], users: Iterable[str], cluster: str) -> list[str]:
    return ["qstat", "-xml", *(word for user in sorted(set(users)) for word in ("-u", user))]


def _grid_elements(answer: Answer) -> list[Element] | None:
    if answer.status != 0:
        return None
    try:
        # names of jobs and users may have bytes that are no UTF-8
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
    """The word for the letters in which qstat(1) has a job's state."""
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
