"""What a farmer says while it works: where it begins, how far it is, and which tasks failed."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence

from taskfarmer import procfs
from taskfarmer.formats.results import FAILED, LOST
from taskfarmer.ledger.state import State
from taskfarmer.options import Progress, Reporter, Settings
from taskfarmer.pool.pool import Pool
from taskfarmer.storage.layout import Workdir

PROGRESS_EVERY = 10.0
SHOWN_FAILURES = 20
SHOWN_LEFTOVERS = 5


def lasting(seconds: float) -> str:
    """A duration for people: `45 s`, `12 min`, `3 h 20 min`."""
    whole = round(seconds)
    if whole < 120:
        return f"{whole} s"
    if whole < 7200:
        return f"{whole // 60} min"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


def processes(count: int) -> str:
    return f"{count} process{'es' if count != 1 else ''}"


MANY_LOGS = 100_000


def of_inodes(settings: Settings, state: State, workdir: Workdir) -> str | None:
    """What a log file for each task of a long list means, or None where that is not much."""
    if settings.logs != "files" or state.tasks <= MANY_LOGS or not state.has_unprocessed:
        return None
    return (
        f"{state.tasks} tasks make as many log files, an inode each, in {workdir.logs}; --logs packed keeps all in one "
        "file of each farmer, --logs failed those of failed tasks only, --logs none nothing"
    )


def of_unseen_processes() -> str | None:
    """What follows from a /proc that does not show all processes, or None if it does."""
    sight = procfs.sight()
    if sight == "blind":
        return (
            "/proc does not show this farmer: it is not mounted, or belongs to another pid namespace; so processes "
            "that leave their task's process group (setsid, daemons) are not found, and not ended; mount proc on /proc"
        )
    if sight == "partial":
        return (
            "/proc hides processes (mount option hidepid): setuid programs that leave their task's process group are "
            "not found, and not ended"
        )
    return None


def opening(settings: Settings, state: State) -> str:
    return (
        f"{settings.tasklist}: {state.tasks} tasks, {state.unprocessed} unprocessed; {settings.slots} at a time; "
        f"work directory {settings.workdir_path}"
    )


def progress_of(state: State, pool: Pool) -> Progress:
    return Progress(
        state.tasks,
        state.finished,
        state.failed,
        state.unprocessed,
        state.held,
        pool.busy if pool.members else 0,
        len(state.farmers),
    )


class Speech:
    def __init__(self, reporter: Reporter, workdir: Workdir) -> None:
        self.reporter = reporter
        self.workdir = workdir
        self.next_progress = time.monotonic() + PROGRESS_EVERY
        self._failures = 0
        self._leaving: dict[int, int] = {}  # tasks that left processes, and how many

    def progress(self, now: float, state: State, pool: Pool) -> None:
        """Say now and then how far the farm is."""
        if now >= self.next_progress:
            self.next_progress = now + PROGRESS_EVERY
            self.reporter.progress(progress_of(state, pool))

    def survivors(self, pids: Sequence[int]) -> None:
        if pids:
            text = " ".join(map(str, pids))
            self.reporter.warning(f"processes that even SIGKILL does not end were left behind: {text}")

    def leftovers(self, found: Iterable[tuple[int, int]]) -> None:
        """Warn that tasks left processes: a line for each of the first tasks; the others are counted."""
        for task, count in found:
            named = f"task {task}" if task >= 0 else "a task"
            if task not in self._leaving and len(self._leaving) < SHOWN_LEFTOVERS:
                self.reporter.warning(
                    f"{named} left {processes(count)}, which may run until this farmer ends (see --leftovers)"
                )
            elif task not in self._leaving and len(self._leaving) == SHOWN_LEFTOVERS:
                self.reporter.warning("more tasks leave processes; their number follows when this farmer ends")
            self._leaving[task] = self._leaving.get(task, 0) + count

    def end_of_leftovers(self) -> None:
        """Say how many processes were left in all, if not each task was named."""
        if len(self._leaving) > SHOWN_LEFTOVERS:
            total = processes(sum(self._leaving.values()))
            self.reporter.warning(f"{len(self._leaving)} tasks left {total} in all")

    def failures(self, blobs: Iterable[bytes]) -> None:
        """Say which tasks failed and where their logs are; only the first of them, if they are many."""
        if self._failures > SHOWN_FAILURES:
            return
        for line in b"".join(blobs).split(b"\n"):
            words = line.split(b" ")
            if len(words) < 12 or words[5] not in (FAILED, LOST):
                continue
            self._failures += 1
            if self._failures > SHOWN_FAILURES:
                self.reporter.info("more tasks failed; they are in the file `failed`")
                return
            how = f"signal {int(words[7])}" if words[7] != b"0" else f"exit status {int(words[6])}"
            self.reporter.info(f"task {int(words[0])} failed ({how}){self._where(int(words[0]), words[11])}")

    def _where(self, task_id: int, mode: bytes) -> str:
        """Where the output of a task that failed is, in words."""
        if mode == b"packed":
            import shlex

            return f"; see: taskfarmer logs {shlex.quote(self.workdir.path)} {task_id}"
        return "" if mode == b"none" else f": {self.workdir.log(task_id)}"
