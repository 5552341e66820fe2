"""What a farmer logs while it works: its start, its progress, failed tasks, and leftover processes."""

from __future__ import annotations

import shlex
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
MANY_LOGS = 100_000


def human_duration(seconds: float) -> str:
    """A duration for people: `45 s`, `12 min`, `3 h 20 min`."""
    whole = round(seconds)
    if whole < 120:
        return f"{whole} s"
    if whole < 7200:
        return f"{whole // 60} min"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


def process_count(count: int) -> str:
    return f"{count} process{'es' if count != 1 else ''}"


def inode_notice(settings: Settings, state: State, workdir: Workdir) -> str | None:
    """A notice if a long list will create a log file for each task; else None."""
    if settings.logs != "files" or state.tasks <= MANY_LOGS or not state.has_unprocessed:
        return None
    return (
        f"{state.tasks} tasks create as many log files, one inode each, in {workdir.logs}; --logs packed uses one file "
        "per farmer, --logs failed keeps the logs of failed tasks only, --logs none keeps nothing"
    )


def procfs_warning() -> str | None:
    """A warning if /proc does not show all processes; else None."""
    sight = procfs.sight()
    if sight == "blind":
        return (
            "/proc does not show this farmer: it is not mounted, or belongs to another pid namespace; so processes "
            "that leave their task's process group (setsid, daemons) are not found and not stopped; mount proc on /proc"
        )
    if sight == "partial":
        return (
            "/proc hides processes (mount option hidepid): setuid programs that leave their task's process group are "
            "not found and not stopped"
        )
    return None


def start_message(settings: Settings, state: State) -> str:
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
        pool.busy if pool.workers else 0,
        len(state.farmers),
    )


class EventLog:
    """Logs events of a farmer, and limits how many lines each kind of event produces."""

    def __init__(self, reporter: Reporter, workdir: Workdir) -> None:
        self.reporter = reporter
        self.workdir = workdir
        self.next_progress = time.monotonic() + PROGRESS_EVERY
        self._failures = 0
        self._leftovers: dict[int, int] = {}  # number of processes left by each task

    def progress(self, now: float, state: State, pool: Pool) -> None:
        """Report the progress of the farm every 10 s."""
        if now >= self.next_progress:
            self.next_progress = now + PROGRESS_EVERY
            self.reporter.progress(progress_of(state, pool))

    def warn_of_survivors(self, pids: Sequence[int]) -> None:
        if pids:
            self.reporter.warning(f"could not kill processes (uninterruptible I/O?): {' '.join(map(str, pids))}")

    def leftovers(self, found: Iterable[tuple[int, int]]) -> None:
        """Warn of each of the first tasks that left processes, and count the others."""
        for task, count in found:
            named = f"task {task}" if task >= 0 else "a task"
            if task not in self._leftovers and len(self._leftovers) < SHOWN_LEFTOVERS:
                self.reporter.warning(
                    f"{named} left {process_count(count)}, which may run until this farmer ends (see --leftovers)"
                )
            elif task not in self._leftovers and len(self._leftovers) == SHOWN_LEFTOVERS:
                self.reporter.warning("more tasks leave processes; their number follows when this farmer ends")
            self._leftovers[task] = self._leftovers.get(task, 0) + count

    def leftovers_summary(self) -> None:
        """Log the total number of leftover processes, if not every task was named before."""
        if len(self._leftovers) > SHOWN_LEFTOVERS:
            total = process_count(sum(self._leftovers.values()))
            self.reporter.warning(f"{len(self._leftovers)} tasks left {total} in all")

    def failures(self, blobs: Iterable[bytes]) -> None:
        """Log the first failed tasks, and where their output is. `blobs` are result lines."""
        if self._failures > SHOWN_FAILURES:
            return
        for line in b"".join(blobs).split(b"\n"):
            words = line.split(b" ")
            if len(words) < 12 or words[5] not in (FAILED, LOST):
                continue
            self._failures += 1
            if self._failures > SHOWN_FAILURES:
                self.reporter.info("more tasks failed; they are listed in the file `failed`")
                return
            how = f"signal {int(words[7])}" if words[7] != b"0" else f"exit status {int(words[6])}"
            self.reporter.info(f"task {int(words[0])} failed ({how}){self._output_location(int(words[0]), words[11])}")

    def _output_location(self, task_id: int, mode: bytes) -> str:
        """Where to find the output of a failed task, as the end of a message."""
        if mode == b"packed":
            return f"; see: taskfarmer logs {shlex.quote(self.workdir.path)} {task_id}"
        return "" if mode == b"none" else f": {self.workdir.log(task_id)}"
