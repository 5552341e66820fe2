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
from typing import Any

from taskfarmer.plain import dataclass
from taskfarmer.pool.attempt import NotStarted, Running, Starter
from taskfarmer.pool.begun import Task
from taskfarmer.pool.output import Output
from taskfarmer.pool.processes import STUCK_AFTER, ask_to_end, descendants, reap, send
from taskfarmer.pool.records import Usage
from taskfarmer.pool.slot import Slot
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

    slot: Slot
    task: Task
    status: int
    usage: Usage
    at: float
    until: float


class ProgramWorker(Worker):
    def __init__(self, job: Job, link: socket.socket, shown: list[memoryview]) -> None:
        super().__init__(job, link, shown)
        assert isinstance(job.runner, CommandRunner)
        self.runner = job.runner
        self.output = Output(job.places)
        logs = self.output.slots
        self.starters = {number: Starter(slot, job.runner, logs[number]) for number, slot in self.slots.items()}
        self.running: dict[int, Running] = {}  # by slot
        self._watched: dict[int, Running] = {}  # by the descriptor that tells the end
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

    def _begin_tasks(self) -> None:
        """Give each slot that has none its next task."""
        if self.hit_lately():
            return
        for number in list(self._free):
            slot = self.slots[number]
            while number in self._free and not self.stopping:
                task = slot.begin(time.monotonic() + self.clock)
                if task is None:
                    break
                try:
                    self._start(number, slot, task)
                except NotStarted as error:
                    self.not_begun(slot, task, error)
                    return

    def _start(self, number: int, slot: Slot, task: Task) -> None:
        running = self.starters[number].start(task)
        if isinstance(running, int):
            self._over(slot, task, running << 8, (0.0, 0.0, 0), 0)
            return
        self.running[number] = running
        del self._free[number]
        if running.fd >= 0:
            self._watched[running.fd] = running
            self.poll.register(running.fd, select.POLLIN)

    def _wait(self) -> None:
        """Wait until a task ends or an order comes; tell what was gathered now and then, or when a slot has no more."""
        sure = self._clear_doubts() if self._doubtful else None
        if self.pending and self._free:
            self.flush()
        patience = self.until_flush() if self.pending else self.output.patience()
        timeout = sure if patience is None or (sure is not None and sure <= patience) else patience
        if len(self._watched) < len(self.running):
            timeout = _NO_PIDFD_PAUSE
            for running in list(self.running.values()):
                if running.fd < 0:
                    self._ended(running, running.ended(wait=False))
            if not self.running:
                return
        ready = self.poll.poll(timeout if timeout is None else timeout * 1000)
        if not ready:
            self.flush()
        spoken_to = False
        for fd, _ in ready:
            if fd not in self._watched:
                spoken_to = True
                continue
            running = self._watched.pop(fd)
            self.poll.unregister(fd)
            self._ended(running, running.ended(wait=True))
        if spoken_to:
            self.hear()

    def _ended(self, running: Running, how: tuple[int, Any] | None) -> None:
        if how is None:
            return
        status, usage = how
        number = running.slot.place.slot
        del self.running[number]
        self._free[number] = None
        spent = usage.ru_utime, usage.ru_stime, usage.ru_maxrss
        self._over(running.slot, running.task, status, spent, running.pid)

    def _over(self, slot: Slot, task: Task, status: int, usage: Usage, group: int) -> None:
        """Tell what came of a task; where it may have ended because we are to stop, not before that is known."""
        self.output.slots[slot.place.slot].ended(task.task_id, task.batch.attempt, status, group)
        self.runner.cleanup(task.task_id)
        slot.ended(task)
        now = time.monotonic()
        doubt = self._doubt(status, now) if status and not self.stopping else 0.0
        if doubt:
            number = slot.place.slot
            self._doubtful[number] = Ended(slot, task, status, usage, now, now + doubt)
            del self._free[number]
        else:
            self.tell(slot, task, status, usage, now, status != 0 and self._of_warning(status))

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
                self.tell(ended.slot, ended.task, ended.status, ended.usage, ended.at, hit)
                if not hit:
                    self._believed = now
        return min((ended.until - now for ended in self._doubtful.values()), default=0.0)

    def _of_warning(self, status: int) -> bool:
        return self._warned > 0 and died_of(status) == self._warned

    def warn(self, number: int) -> None:
        self._warned = number
        for running in self.running.values():
            try:
                os.killpg(running.pid, number)
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
            for running in list(self.running.values()):
                self._ended(running, running.ended(wait=False))
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
                self.tell_survivors([running.pid for running in self.running.values()])
                os._exit(1)
            pause = min(pause * 2, 0.05)
