"""What Slurm tells a job through its environment, and what it is asked: little, and never by everybody at once.

When the allocation ends is in SLURM_JOB_END_TIME since Slurm 23.02 (sbatch(1)). Before that one farmer of a
job asks with `squeue` and leaves the answer in the farm for the others of the same job; jobs of an array,
which start together, wait for a random time first. Whether a silent farmer's job is over is asked at most
once a minute. Nobody waits for an answer.
"""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Mapping

from taskfarmer import durable
from taskfarmer.errors import StorageError
from taskfarmer.ledger.liveness import Identity
from taskfarmer.model import sealed, unsealed
from taskfarmer.workdir import Workdir

_TOLD = (
    "SLURM_CLUSTER_NAME",
    "SLURM_JOB_ID",
    "SLURM_JOB_NAME",
    "SLURM_ARRAY_JOB_ID",
    "SLURM_ARRAY_TASK_ID",
    "SLURM_STEP_ID",
    "SLURM_PROCID",
    "SLURMD_NODENAME",
    "SLURM_RESTART_COUNT",
    "SLURM_JOB_END_TIME",
)
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
STARTS_PER_SECOND = 10.0
ASKED_EVERY = 60.0
_OF_A_STEP = (
    "PMI_",
    "PMI2_",
    "PMIX_",
    "PALS_",
    "OMPI_COMM_WORLD_",
    "SLURM_STEP_",
    "SLURM_SRUN_COMM_",
    "SLURM_CPU_BIND",
    "SLURM_MPI_TYPE",
    "SLURM_LAUNCH_NODE_IPADDR",
    "SLURM_DISTRIBUTION",
)
_OF_A_TASK = frozenset(
    (
        "SLURM_PROCID",
        "SLURM_LOCALID",
        "SLURM_NODEID",
        "SLURM_GTIDS",
        "SLURM_TASK_PID",
        "SLURM_STEPID",
        "SLURM_STEP_ID",
        "SLURM_NTASKS",
        "SLURM_NPROCS",
        "SLURM_UMASK",
    )
)


_GRID_ENGINE = ("JOB_ID", "JOB_NAME", "SGE_TASK_ID", "SGE_CELL", "QUEUE")


def job(environ: Mapping[str, str]) -> dict[str, str]:
    """The variables that say which job this is, of Slurm or of Grid Engine; empty outside of both."""
    if "SLURM_JOB_ID" in environ:
        return {name: environ[name] for name in _TOLD if name in environ}
    if "SGE_ROOT" in environ and environ.get("JOB_ID", "").isdecimal():
        return {name: environ[name] for name in _GRID_ENGINE if name in environ}
    return {}


def of_a_step(environ: Mapping[bytes, bytes]) -> frozenset[bytes]:
    """The variables by which a program takes itself for a rank of the step that its farmer is.

    Those that say which job it is stay: a task that calls `srun` needs them.
    """
    prefixes = tuple(prefix.encode() for prefix in _OF_A_STEP)
    names = {name.encode() for name in _OF_A_TASK}
    return frozenset(name for name in environ if name in names or name.startswith(prefixes))


def _number(text: str) -> float | None:
    try:
        found = float(text)
    except ValueError:
        return None
    return found if 0 < found < 1e12 else None


class Question:
    """`squeue` about one job, under way. `form` is its -o."""

    def __init__(self, number: str, form: str) -> None:
        self.until = time.monotonic() + PATIENCE
        self._text = b""
        self._pid = 0
        self._fd, theirs = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        try:
            null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
            try:
                files = [(os.POSIX_SPAWN_DUP2, one, to) for one, to in ((null, 0), (theirs, 1), (null, 2))]
                words = ["squeue", "--noheader", "--states=all", "-j", number, "-o", form]
                variables = {**os.environ, "SLURM_TIME_FORMAT": "%s"}
                self._pid = os.posix_spawnp("squeue", words, variables, file_actions=files, setsigmask=())
            finally:
                os.close(null)
        except OSError:
            self._close()
        finally:
            os.close(theirs)

    def answer(self) -> str | None:
        """What Slurm said; empty where it said nothing in time or cannot be asked, None while it is not known."""
        if self._fd < 0:
            return self._text.decode("ascii", "replace").strip()
        try:
            data = os.read(self._fd, 4096)
        except BlockingIOError:
            if time.monotonic() < self.until:
                return None
            os.kill(self._pid, signal.SIGKILL)
            self._text = data = b""
        self._text += data
        if data:
            return None
        self._close()
        return self.answer()

    def _close(self) -> None:
        os.close(self._fd)
        self._fd = -1
        if self._pid:
            try:
                os.waitpid(self._pid, os.WNOHANG)
            except ChildProcessError:
                pass  # the pool takes what it did not start, too


class Allocation:
    """When the allocation of this job ends, once that is known: `end` in epoch seconds."""

    def __init__(self, workdir: Workdir, environ: Mapping[str, str], now: float) -> None:
        self.workdir = workdir
        self.number = environ.get("SLURM_JOB_ID", "")
        self.end = _number(environ.get("SLURM_JOB_END_TIME", ""))
        self.settled = self.end is not None or not self.number.isdigit()
        self.due = now
        self._key = f"{self.number}-{environ.get('SLURM_RESTART_COUNT') or 0}"
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
        known = self._told_by_others()
        if known is not None:
            self.settled, self.end = True, known or None
        elif self._ask_at is None:
            mine = self._claim()
            self._ask_at = now + random.uniform(0, self._spread) + (0.0 if mine else random.uniform(1, 2) * PATIENCE)
        elif now >= self._ask_at:
            self._question = Question(self.number, "%e")
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
            found = sealed({"job": self.number, "end": self.end or 0})
            durable.replace(self.workdir.job(self._key), found, self.workdir.shared)
        except OSError:
            pass  # then others ask themselves
        return self.end is not None

    def _told_by_others(self) -> float | None:
        """What another farmer of this job found out, 0 for no end; None where nobody did."""
        try:
            document = unsealed(durable.read(self.workdir.job(self._key)))
        except OSError:
            return None
        end = document.get("end") if document else None
        return float(end) if isinstance(end, (int, float)) else None

    def _claim(self) -> bool:
        """Whether it is on us to ask: nobody else of this job has said so."""
        try:
            durable.make_directory(self.workdir.jobs, self.workdir.shared)
            durable.prepare(self.workdir.job_asked(self._key), b"asked\n", self.workdir.shared)
        except FileExistsError:
            return False
        except (OSError, StorageError):
            pass
        return True


class Jobs:
    """Whether the jobs of other farmers of this cluster are over."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        self.cluster = environ.get("SLURM_CLUSTER_NAME", "") if "SLURM_JOB_ID" in environ else ""
        self.mine = environ.get("SLURM_JOB_ID", "")
        self._questions: dict[str, Question] = {}
        self._asked: dict[str, float] = {}

    def over(self, them: Identity, now: float) -> str | None:
        """Why a farmer's job is over, in words; None where it is not, or is not known (it is asked for then)."""
        number = them.job.get("SLURM_JOB_ID", "")
        if not self.cluster or them.job.get("SLURM_CLUSTER_NAME") != self.cluster or not number.isdigit():
            return None
        if number == self.mine:
            return None
        question = self._questions.get(number)
        if question is None:
            if not self._questions and now - self._asked.get(number, -ASKED_EVERY) >= ASKED_EVERY:
                self._asked[number] = now
                self._questions[number] = Question(number, "%T")
            return None
        answer = question.answer()
        if answer is None:
            return None
        del self._questions[number]
        return f"Slurm says that its job {number} is {answer}" if answer in OVER else None
