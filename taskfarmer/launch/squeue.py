"""Finds out when a Slurm allocation ends, with few queries, spread over time.

Since Slurm 23.02, SLURM_JOB_END_TIME contains the end time (sbatch(1)). With older versions, one farmer of a job
runs `squeue` and stores the answer in the farm for the other farmers of the job; the elements of an array, which start
together, wait for a random time first. No farmer blocks on a query. Queries about the jobs of silent farmers are in
farmer/jobs.py.
"""

from __future__ import annotations

import random
import time
from collections.abc import Mapping
from typing import Any

from taskfarmer.errors import StorageError
from taskfarmer.formats import members
from taskfarmer.formats.sealed import sealed, unsealed
from taskfarmer.launch.query import PATIENCE, Question
from taskfarmer.peers import scheduled
from taskfarmer.storage import durable
from taskfarmer.storage.layout import Workdir

ENDED = frozenset(
    (
        "BOOT_FAIL",
        "CANCELLED",
        "COMPLETED",
        "DEADLINE",
        "FAILED",
        "NODE_FAIL",
        "OUT_OF_MEMORY",
        "PREEMPTED",
        "REVOKED",
        "TIMEOUT",
    )
)
"""The states of a job that has ended (squeue(1), JOB STATE CODES)."""
_LATEST = 1e11
"""The latest time that can be formatted as a date, in epoch seconds."""
QUERIES_PER_SECOND = 10.0
"""How many elements of an array may query the scheduler per second."""


def _number(text: str) -> float | None:
    try:
        found = float(text)
    except ValueError:
        return None
    return found if 0 < found < 1e12 else None


def _key(variables: Mapping[str, str]) -> str:
    return f"{variables.get('SLURM_JOB_ID', '')}-{variables.get('SLURM_RESTART_COUNT') or 0}"


def recorded_end(workdir: Workdir, variables: Mapping[str, str]) -> float | None:
    """When a job's allocation ends, as recorded by one of its farmers; 0 if it has no end, None without a record.

    Other clusters use the same job numbers, and Slurm reuses them: a record with another cluster or an end in the
    past is ignored.
    """
    try:
        document = unsealed(durable.read(workdir.job(_key(variables))))
    except OSError:
        return None
    if document is None or document.get("cluster", "") != variables.get("SLURM_CLUSTER_NAME", ""):
        return None
    end: Any = document.get("end")
    return float(end) if members.is_number(end, most=_LATEST) and not 0 < end < time.time() else None


class Allocation:
    """The end of this job's allocation: `end` in epoch seconds, None if unknown. `settled` is set when it is final."""

    def __init__(self, workdir: Workdir, environ: Mapping[str, str], now: float) -> None:
        self.workdir = workdir
        self.job = scheduled.job(environ)
        self.number = self.job.get("SLURM_JOB_ID", "")
        self.end = _number(self.job.get("SLURM_JOB_END_TIME", ""))
        self.settled = self.end is not None or not self.number.isdigit()
        self.next_check = now
        self._question: Question | None = None
        self._ask_at: float | None = None
        elements = _number(environ.get("SLURM_ARRAY_TASK_COUNT", "")) or 1.0
        self._spread = elements / QUERIES_PER_SECOND

    def update(self, now: float) -> bool:
        """Start a query, or poll for its answer; True if the end has just become known. `next_check` is updated."""
        if self.settled or now < self.next_check:
            return False
        if self._question is not None:
            return self._poll(now)
        known = recorded_end(self.workdir, self.job)
        if known is not None:
            self.settled, self.end = True, known or None
        elif self._ask_at is None:
            mine = self._claim()
            self._ask_at = now + random.uniform(0, self._spread) + (0.0 if mine else random.uniform(1, 2) * PATIENCE)
        elif now >= self._ask_at:
            number = scheduled.job_name(self.job) or self.number
            words = ["squeue", "--noheader", "--states=all", "-j", number, "-o", "%e"]
            self._question = Question(words, SLURM_TIME_FORMAT="%s")
        self.next_check = min(now + 2.0, self._ask_at) if self._ask_at and not self._question else now + 0.1
        return self.end is not None

    def _poll(self, now: float) -> bool:
        assert self._question is not None
        answer = self._question.answer()
        if answer is None:
            self.next_check = now + 0.2
            return False
        self.settled, self._question = True, None
        self.end = _number(answer)
        try:
            found: dict[str, object] = {
                "job": self.number,
                "cluster": self.job.get("SLURM_CLUSTER_NAME", ""),
                "end": self.end or 0,
            }
            durable.replace(self.workdir.job(_key(self.job)), sealed(found), self.workdir.shared)
        except OSError:
            pass  # the other farmers then run squeue themselves
        return self.end is not None

    def _claim(self) -> bool:
        """Whether this farmer is the first of its job to query the scheduler."""
        try:
            durable.make_directory(self.workdir.jobs, self.workdir.shared)
            durable.prepare(self.workdir.job_asked(_key(self.job)), b"asked\n", self.workdir.shared)
        except FileExistsError:
            return False
        except (OSError, StorageError):
            pass
        return True
