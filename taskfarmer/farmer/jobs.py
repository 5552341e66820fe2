"""Asks the scheduler of this job whether the jobs of other farmers have ended.

The scheduler is asked about a farmer only after that farmer has missed two heartbeats: one query at a time, and each
at most once a minute. No farmer waits for an answer. A missing or unconvincing answer is not evidence:

    Slurm        `squeue -j JOB` prints the state of a job and how often it was restarted. `squeue --steps -j JOB`
                 prints the running steps of a job, and counts only if it contains another step of the job.
    Grid Engine  does not report jobs that are gone. `qstat -s rs -u USER` prints the running jobs, and counts only if
                 it contains this job.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import NamedTuple

from taskfarmer.launch.query import Question
from taskfarmer.launch.squeue import ENDED
from taskfarmer.peers import scheduled

ASKED_EVERY = 60.0
_JOB = re.compile(r"\d+(_\d+)?", re.ASCII)
_STATE = re.compile(r"([A-Z_]+)\s+(\d+)", re.ASCII)
_USER = re.compile(r"\w[\w.-]*", re.ASCII)
_CLUSTER = {"SLURM_JOB_ID": ("SLURM_CLUSTER_NAME",), "JOB_ID": ("SGE_ROOT", "SGE_CELL", "SGE_CLUSTER_NAME")}
"""For each scheduler, the variables that are equal in two jobs of one cluster."""

Job = Mapping[str, str]
"""The variables of a farmer's job (`scheduled.job`)."""


class _Answer(NamedTuple):
    asked: float
    text: str | None


class SchedulerReports:
    """Reports of the scheduler of the job `mine`. `now` is in seconds on a steady clock."""

    def __init__(self, mine: Job) -> None:
        self.mine = mine
        self._question: Question | None = None
        self._in_flight: tuple[str, ...] = ()
        self._waiting: list[tuple[str, ...]] = []
        self._answers: dict[tuple[str, ...], _Answer] = {}

    @property
    def restarted(self) -> bool:
        """Whether this job has run before."""
        return scheduled.restarts(self.mine) > 0

    def requeue_reason(self, theirs: Job) -> str | None:
        """Why a farmer of an earlier run of this job has ended, for people; None for any other farmer."""
        if not self._same_cluster(theirs) or not self._is_mine(theirs):
            return None
        if scheduled.restarts(theirs) >= scheduled.restarts(self.mine):
            return None
        return f"its job {scheduled.job_name(theirs)} was requeued, and runs again here"

    def end_reason(self, theirs: Job, since: float, now: float) -> str | None:
        """Why the job of a farmer has ended, for people; None if it has not, or if that is not known (yet).

        An answer counts only if the query was sent at `since` or later, because a restarted job keeps its number.
        """
        if not self._same_cluster(theirs) or not _JOB.fullmatch(scheduled.job_name(theirs) or ""):
            return None
        why = self.requeue_reason(theirs)
        if why is not None:
            return why
        if "SLURM_JOB_ID" in theirs:
            return self._ended_in_slurm(theirs, since, now)
        return self._ended_in_grid_engine(theirs, since, now)

    def _same_cluster(self, theirs: Job) -> bool:
        for job, names in _CLUSTER.items():
            if self.mine.get(job) and theirs.get(job):
                same = all(self.mine.get(name) == theirs.get(name) for name in names)
                return same and bool(self.mine.get(names[0]))
        return False

    def _is_mine(self, theirs: Job) -> bool:
        return scheduled.job_name(theirs) == scheduled.job_name(self.mine)

    # --- Slurm ----------------------------------------------------------------------------------

    def _ended_in_slurm(self, theirs: Job, since: float, now: float) -> str | None:
        job = scheduled.job_name(theirs) or ""
        if not self._is_mine(theirs):
            words = ("squeue", "--noheader", "--states=all", "-j", job, "-O", "State:30,RestartCnt:12")
            found = _STATE.fullmatch(self._ask(words, since, now))
            if found is None:
                return None
            state, restarts = found[1], int(found[2])
            if state in ENDED:
                return f"Slurm reports its job {job} as {state}"
            if state != "COMPLETING" and restarts > scheduled.restarts(theirs):
                return f"Slurm reports its job {job} as requeued"
            if state != "RUNNING":
                return None
        step = scheduled.step_name(theirs)
        if step is None or (self._is_mine(theirs) and step == scheduled.step_name(self.mine)):
            return None
        lines = self._ask(("squeue", "--noheader", "--steps", "-j", job, "-o", "%i"), since, now).split()
        steps = {line.removeprefix(f"{job}.") for line in lines if line.startswith(f"{job}.")}
        return f"Slurm reports its step {job}.{step} as ended" if steps and step not in steps else None

    # --- Grid Engine ----------------------------------------------------------------------------

    def _ended_in_grid_engine(self, theirs: Job, since: float, now: float) -> str | None:
        users = sorted({job.get("LOGNAME", "") for job in (self.mine, theirs)})
        if self._is_mine(theirs) or not all(map(_USER.fullmatch, users)):
            return None
        answer = self._ask(("qstat", "-s", "rs", "-u", ",".join(users)), since, now)
        if not _runs(answer, self.mine) or _runs(answer, theirs):
            return None
        return f"Grid Engine reports its job {scheduled.job_name(theirs)} as ended"

    # --- queries --------------------------------------------------------------------------------

    def _ask(self, words: tuple[str, ...], since: float, now: float) -> str:
        """The answer to a query that was sent at `since` or later; empty until it arrives."""
        self._read_answer()
        known = self._answers.get(words, _Answer(-math.inf, None))
        if now - known.asked >= ASKED_EVERY:
            known = _Answer(-math.inf, None)
            if words not in self._waiting and words != self._in_flight:
                self._waiting.append(words)
        if self._waiting and self._question is None:
            self._in_flight = self._waiting.pop(0)
            self._answers[self._in_flight] = _Answer(now, None)
            self._question = Question(self._in_flight)
        return known.text or "" if known.asked >= since else ""

    def _read_answer(self) -> None:
        text = self._question.answer() if self._question is not None else None
        if text is not None:
            self._answers[self._in_flight] = _Answer(self._answers[self._in_flight].asked, text)
            self._question, self._in_flight = None, ()


def _runs(answer: str, job: Job) -> bool:
    """Whether the output of `qstat` lists a job, or an array element: its number first, its element last."""
    number, element = job.get("JOB_ID", ""), job.get("SGE_TASK_ID", "undefined")
    lines = (line.split() for line in answer.splitlines())
    return any(words[0] == number and element in ("undefined", words[-1]) for words in lines if words)
