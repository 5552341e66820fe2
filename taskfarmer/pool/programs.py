"""A worker whose tasks are programs: it starts them and waits for all of them at once.

One process serves several slots, since a Python process of its own for each would cost three megabytes.
"""

from __future__ import annotations

import math
import os
import resource  # noqa: F401 - what `os.wait4` would look for in each worker
import select
import signal
import socket
import time

from taskfarmer.plain import dataclass
from taskfarmer.pool.attempt import NotStarted, Starter
from taskfarmer.pool.begun import Batch, Task
from taskfarmer.pool.output import Output
from taskfarmer.pool.processes import STUCK_AFTER, ask_to_end, descendants, reap, send
from taskfarmer.pool.records import Usage
from taskfarmer.pool.worker import DOUBT, Job, Worker, died_of, of_stop_signal
from taskfarmer.runners.base import CommandRunner

DOUBT_OF_FAILURES = 5.0
"""Seconds for which a failure in a job of Slurm is doubted."""
BELIEF = 60.0
"""Seconds for which failures are believed after one was doubted without cause: many of them must not cost much."""
_NO_PIDFD_PAUSE = 0.01


@dataclass
class Ended:
    """A task that has ended, `at` on the monotonic clock, with its wait status; told `until` then at the latest."""

    task: Task
    status: int
    usage: Usage
    at: float
    until: float


class ProgramWorker(Worker):
    """What is done for each task is in few, long functions here: a short program costs little more than they do.

    See docs/performance.md, "Where the time of a task goes".
    """

    def __init__(self, job: Job, link: socket.socket, shown: list[memoryview]) -> None:
        super().__init__(job, link, shown)
        assert isinstance(job.runner, CommandRunner)
        self.runner = job.runner
        self.output = Output(job.places)
        logs = self.output.slots
        self.starters = {number: Starter(slot, job.runner, logs[number]) for number, slot in self.slots.items()}
        self.running: dict[int, Task] = {}  # by slot
        self._watched: dict[int, Task] = {}  # by the descriptor that tells the end
        self._doubtful: dict[int, Ended] = {}  # by slot
        self._free = dict.fromkeys(self.slots)  # those that run nothing; what ended in them is told
        self._refused = "SLURM_JOB_ID" in os.environ
        """Whether tasks may fail of the end of our job before anybody tells us: Slurm then refuses their steps."""
        self._believed = -math.inf
        self._warned = 0

    def run(self) -> None:
        while not self.stopping:
            self._begin_tasks()
            if self.running or self._doubtful:
                self._wait()
            elif self.hit_lately():
                self.poll.poll(DOUBT * 1000)
                self.hear()
            elif self.quitting:
                break
            else:
                self.flush()
                reap()
                self.poll.poll()
                self.hear()
        self._end_running()
        self.end_all()
        self.output.close()

    def flush(self) -> None:
        super().flush()
        self.output.flush()

    def take(self, batch: Batch) -> None:
        self.starters[batch.slot.place.slot].plan(batch)
        super().take(batch)

    def _begin_tasks(self) -> None:
        """Give each slot that has none its next task."""
        if self.hit > 0 and self.hit_lately():
            return
        for number in list(self._free):
            slot = self.slots[number]
            while number in self._free and not self.stopping:
                task = slot.begin(time.monotonic() + self.clock)
                if task is None:
                    break
                try:
                    status = self.starters[number].start(task)
                except NotStarted as error:
                    self.not_begun(slot, task, error)
                    return
                if status is not None:
                    self._over(number, task, status << 8, (0.0, 0.0, 0))
                    continue
                self.running[number] = task
                del self._free[number]
                fd = task.fd
                if fd >= 0:
                    self._watched[fd] = task
                    self.poll.register(fd, select.POLLIN)

    def _wait(self) -> None:
        """Wait until a task ends or an order comes; tell what was gathered now and then, or when a slot has no more."""
        sure = self._clear_doubts() if self._doubtful else None
        if self.pending and self._free:
            self.flush()
        timeout = max(0.0, self.due - time.monotonic()) if self.pending else self.output.patience()
        if sure is not None and (timeout is None or sure < timeout):
            timeout = sure
        if len(self._watched) < len(self.running):
            timeout = _NO_PIDFD_PAUSE
            for task in list(self.running.values()):
                if task.fd < 0:
                    self._reap(task, os.WNOHANG)
            if not self.running:
                return
        ready = self.poll.poll(timeout if timeout is None else timeout * 1000)
        if not ready:
            self.flush()
        spoken_to = False
        for fd, _ in ready:
            ended = self._watched.get(fd)
            if ended is None:
                spoken_to = True
            else:
                self._reap(ended, 0)
        if spoken_to:
            self.hear()

    def _reap(self, task: Task, options: int) -> None:
        """Take note of a task that has ended; nothing where it runs and `options` say not to wait."""
        pid, status, usage = os.wait4(task.pid, options)
        if not pid:
            return
        fd = task.fd
        if fd >= 0:
            task.fd = -1
            if self._watched.pop(fd, None):
                self.poll.unregister(fd)
            os.close(fd)
        number = task.batch.slot.place.slot
        del self.running[number]
        self._free[number] = None
        self._over(number, task, status, usage[:3])

    def _over(self, number: int, task: Task, status: int, usage: Usage) -> None:
        """Tell what came of a task; where it may have ended because we are to stop, not before that is known."""
        logs = self.output.slots[number]
        if logs.heeds:
            logs.ended(task.task_id, task.batch.attempt, status, task.pid)
        if task.argv is None:
            self.runner.cleanup(task.task_id)
        task.batch.slot.ended(task)
        now = time.monotonic()
        doubt = self._doubt(status, now) if status and not self.stopping else 0.0
        if doubt:
            self._doubtful[number] = Ended(task, status, usage, now, now + doubt)
            del self._free[number]
        else:
            self.tell(task, status, usage, now, status != 0 and self._of_warning(status))

    def _doubt(self, status: int, now: float) -> float:
        """Seconds for which a task that ended so is not yet called failed, and its slot begins nothing."""
        if of_stop_signal(status):
            return DOUBT
        if self.is_unfinished(status) or not self._refused or now - self._believed < BELIEF:
            return 0.0
        return DOUBT_OF_FAILURES

    def _clear_doubts(self) -> float:
        """Tell of those that may have ended because we are to stop, when that is known; seconds until it is known."""
        now = time.monotonic()
        for number, ended in list(self._doubtful.items()):
            hit = self.stopping or self.hit_lately() or self._of_warning(ended.status)
            if hit or now >= ended.until:
                del self._doubtful[number]
                self._free[number] = None
                self.tell(ended.task, ended.status, ended.usage, ended.at, hit)
                if not hit:
                    self._believed = now
        return min((ended.until - now for ended in self._doubtful.values()), default=0.0)

    def _of_warning(self, status: int) -> bool:
        return self._warned > 0 and died_of(status) == self._warned

    def warn(self, number: int) -> None:
        self._warned = number
        for task in self.running.values():
            try:
                os.killpg(task.pid, number)
            except (ProcessLookupError, PermissionError):
                pass

    def set_deadline(self, deadline: float) -> None:
        for starter in self.starters.values():
            starter.environment.set_deadline(deadline)

    def _end_running(self) -> None:
        """End what runs: SIGTERM to everything below us, the grace time, SIGKILL."""
        self._clear_doubts()
        self.hand_back()
        for fd in self._watched:
            self.poll.unregister(fd)
        self._watched.clear()
        asked: set[int] = set()
        pause = 0.002
        while True:
            for task in list(self.running.values()):
                self._reap(task, os.WNOHANG)
            if not self.running:
                return
            tree = descendants(os.getpid())
            if time.monotonic() < self.deadline:
                ask_to_end(tree, asked)
                self.nap(pause)
            elif time.monotonic() < self.deadline + STUCK_AFTER:
                for pid in tree:
                    send(pid, signal.SIGKILL)
                time.sleep(pause)
            else:
                # the kernel will not let go of them: the farmer gives the tasks back, and says so
                self.flush()
                self.tell_survivors([task.pid for task in self.running.values()])
                os._exit(1)
            pause = min(pause * 2, 0.05)
