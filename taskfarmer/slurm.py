"""What Slurm is asked: little, and never by everybody at once.

When the allocation ends is in SLURM_JOB_END_TIME since Slurm 23.02 (sbatch(1)). Before that one farmer of a
job asks with `squeue` and leaves the answer in the farm for the others of the same job; jobs of an array,
which start together, wait for a random time first. Whether a silent farmer's job is over is asked at most
once a minute, one job after the other. Nobody waits for an answer.
"""

from __future__ import annotations

import math
import os
import random
import re
import signal
import time
from collections.abc import Mapping
from typing import Any

from taskfarmer import durable, members, scheduled
from taskfarmer.errors import StorageError
from taskfarmer.ledger.liveness import Identity
from taskfarmer.model import sealed, unsealed
from taskfarmer.workdir import Workdir

OVER = frozenset(
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
"""States of a job that has ended (squeue(1), JOB STATE CODES)."""
PATIENCE = 30.0
LAST_BREATH = 2.0
_LATEST = 1e11
"""Seconds since the epoch that can still be written as a date."""
STARTS_PER_SECOND = 10.0
ASKED_EVERY = 60.0
_JOB = re.compile(r"\d+(_\d+)?", re.ASCII)


def _number(text: str) -> float | None:
    try:
        found = float(text)
    except ValueError:
        return None
    return found if 0 < found < 1e12 else None


class Question:
    """`squeue` about one job, under way. `form` is its -o.

    It gets none of our descriptors: with the lock on our alive file it would seem to be us when we are gone.
    """

    def __init__(self, number: str, form: str) -> None:
        self.number = number
        self.until = time.monotonic() + PATIENCE
        self._last_breath = math.inf
        self._text = b""
        self._pid = 0
        self._fd = theirs = null = -1
        try:
            self._fd, theirs = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
            null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
            files: list[tuple[int, ...]] = [(os.POSIX_SPAWN_CLOSE, fd) for fd in _inherited()]
            files += [(os.POSIX_SPAWN_DUP2, one, to) for one, to in ((null, 0), (theirs, 1), (null, 2))]
            words = ["squeue", "--noheader", "--states=all", "-j", number, "-o", form]
            variables = {**os.environ, "SLURM_TIME_FORMAT": "%s"}
            self._pid = os.posix_spawnp("squeue", words, variables, file_actions=files, setsigmask=())
        except OSError:
            self._close()
        finally:
            for fd in (theirs, null):
                if fd >= 0:
                    os.close(fd)

    def answer(self) -> str | None:
        """What Slurm said; empty where it said nothing in time or cannot be asked, None while it is not known.

        It is known when `squeue` is gone, so that no zombie of it stays.
        """
        now = time.monotonic()
        self._hear()
        if now >= self.until and self._fd >= 0:
            self._text = b""
            self._close()
        if self._lives() and now >= self.until and self._last_breath == math.inf:
            os.kill(self._pid, signal.SIGKILL)
            self._last_breath = now + LAST_BREATH
        if self._fd >= 0 or (self._pid and now < self._last_breath):
            return None
        return self._text.decode("ascii", "replace").strip()

    def _hear(self) -> None:
        for _ in range(2):  # what was said, and its end
            if self._fd >= 0:
                try:
                    data = os.read(self._fd, 1 << 16)
                except BlockingIOError:
                    return
                self._text += data
                if not data:
                    self._close()

    def _lives(self) -> bool:
        if self._pid:
            try:
                gone, _ = os.waitpid(self._pid, os.WNOHANG)
            except ChildProcessError:  # the pool ends and takes what it did not start, where a worker was lost
                gone = self._pid
            if gone:
                self._pid = 0
        return self._pid != 0

    def _close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


def _inherited() -> list[int]:
    """Our descriptors that a program gets if nothing is done about it."""
    found = []
    try:
        for name in os.listdir("/proc/self/fd"):
            if int(name) > 2 and _is_inherited(int(name)):
                found.append(int(name))
    except OSError:
        pass
    return found


def _is_inherited(fd: int) -> bool:
    try:
        return os.get_inheritable(fd)
    except OSError:  # the one with which they were listed
        return False


def _key(variables: Mapping[str, str]) -> str:
    return f"{variables.get('SLURM_JOB_ID', '')}-{variables.get('SLURM_RESTART_COUNT') or 0}"


def told_end(workdir: Workdir, variables: Mapping[str, str]) -> float | None:
    """When a job's allocation ends as a farmer of it has found out, 0 for no end; None where nobody has.

    Numbers of jobs are given again, by other clusters and after years: what cannot be of this job is not believed.
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
    """When the allocation of this job ends, once that is known: `end` in epoch seconds."""

    def __init__(self, workdir: Workdir, environ: Mapping[str, str], now: float) -> None:
        self.workdir = workdir
        self.job = scheduled.job(environ)
        self.number = self.job.get("SLURM_JOB_ID", "")
        self.end = _number(self.job.get("SLURM_JOB_END_TIME", ""))
        self.settled = self.end is not None or not self.number.isdigit()
        self.due = now
        self._question: Question | None = None
        self._ask_at: float | None = None
        elements = _number(environ.get("SLURM_ARRAY_TASK_COUNT", "")) or 1.0
        self._spread = elements / STARTS_PER_SECOND

    def look(self, now: float) -> bool:
        """Ask, or see whether there is an answer; True when the end has become known. `due` says when to look again."""
        if self.settled or now < self.due:
            return False
        if self._question is not None:
            return self._hear(now)
        known = told_end(self.workdir, self.job)
        if known is not None:
            self.settled, self.end = True, known or None
        elif self._ask_at is None:
            mine = self._claim()
            self._ask_at = now + random.uniform(0, self._spread) + (0.0 if mine else random.uniform(1, 2) * PATIENCE)
        elif now >= self._ask_at:
            self._question = Question(scheduled.job_name(self.job) or self.number, "%e")
        self.due = min(now + 2.0, self._ask_at) if self._ask_at and not self._question else now + 0.1
        return self.end is not None

    def _hear(self, now: float) -> bool:
        assert self._question is not None
        answer = self._question.answer()
        if answer is None:
            self.due = now + 0.2
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
            pass  # then others ask themselves
        return self.end is not None

    def _claim(self) -> bool:
        """Whether it is on us to ask: nobody else of this job has said so."""
        try:
            durable.make_directory(self.workdir.jobs, self.workdir.shared)
            durable.prepare(self.workdir.job_asked(_key(self.job)), b"asked\n", self.workdir.shared)
        except FileExistsError:
            return False
        except (OSError, StorageError):
            pass
        return True


class Jobs:
    """Whether the jobs of other farmers of this cluster are over.

    An answer counts for a minute, for all farmers of the job: one that is requeued keeps its number.
    """

    def __init__(self, environ: Mapping[str, str]) -> None:
        self.cluster = environ.get("SLURM_CLUSTER_NAME", "") if "SLURM_JOB_ID" in environ else ""
        self.mine = environ.get("SLURM_JOB_ID", "")
        self._question: Question | None = None
        self._waiting: list[str] = []
        self._asked: dict[str, float] = {}
        self._said: dict[str, str] = {}

    def over(self, them: Identity, now: float) -> str | None:
        """Why a farmer's job is over, in words; None where it is not, or is not known (it is asked for then)."""
        job = them.job_name or ""
        if not self.cluster or them.job.get("SLURM_CLUSTER_NAME") != self.cluster or not _JOB.fullmatch(job):
            return None
        if them.job.get("SLURM_JOB_ID") == self.mine:
            return None
        self._hear()
        if now - self._asked.get(job, -ASKED_EVERY) >= ASKED_EVERY:
            self._said.pop(job, None)
            if job not in self._waiting and not (self._question and self._question.number == job):
                self._waiting.append(job)
        if self._waiting and self._question is None:
            self._ask(self._waiting.pop(0), now)
        answer = self._said.get(job)
        return f"Slurm says that its job {job} is {answer}" if answer in OVER else None

    def _hear(self) -> None:
        said = self._question.answer() if self._question is not None else None
        if said is not None and self._question is not None:
            self._said[self._question.number] = said
            self._question = None

    def _ask(self, job: str, now: float) -> None:
        self._asked[job] = now
        self._question = Question(job, "%T")
