"""A worker whose tasks are programs: it starts them and waits for all of them at once.

One process serves several slots, since a Python process of its own for each would cost three megabytes.
"""

from __future__ import annotations

import math
import os
import resource  # noqa: F401 - what `os.wait4` would look for in each worker
import socket
import time
from collections.abc import Collection, Iterable
from dataclasses import dataclass

from taskfarmer.peers import scheduled
from taskfarmer.proctree import send_to_group
from taskfarmer.runners.base import CommandRunner, is_ours
from taskfarmer.worker.batch import Batch, Task
from taskfarmer.worker.context import NotStarted
from taskfarmer.worker.launch import Starter
from taskfarmer.worker.leftovers import END, KEEP
from taskfarmer.worker.output.output import Output
from taskfarmer.worker.report import Usage
from taskfarmer.worker.slot import Slot
from taskfarmer.worker.waking import ByDescriptors, BySignals, Waking, orders_are_signalled
from taskfarmer.worker.worker import DOUBT, Worker, WorkerSetup, died_of, of_stop_signal

DOUBT_OF_FAILURES = 5.0
"""Seconds for which a failure in a job of Slurm is doubted."""
REAP_EVERY = 0.5
"""Seconds after which orphans are reaped, if a runner of the user's own may wait for children of this process."""
LOOK_AT_FIRST, LOOK_LATER = 0.05, 1.0
"""Seconds between looks at processes that a task waits for; orphans of a worker's own signal their end."""
BELIEF = 60.0
"""Seconds for which failures are believed after one was doubted without cause: many of them must not cost much."""


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

    def __init__(self, job: WorkerSetup, link: socket.socket, shown: list[memoryview]) -> None:
        self.running: dict[int, Task] = {}  # by process
        super().__init__(job, link, shown)
        assert isinstance(job.runner, CommandRunner)
        self.runner = job.runner
        self.output = Output(job.places)
        logs = self.output.slots
        self.starters = {number: Starter(slot.place, job.runner, logs[number]) for number, slot in self.slots.items()}
        self._waking = self._waking_by()
        self._doubtful: dict[int, Ended] = {}  # by slot
        self._lingering: Ended | None = None
        """A task whose first process has ended, and that waits for the others (--leftovers wait)."""
        self._keeps = job.leftovers == KEEP
        self._free = dict.fromkeys(self.slots)  # those that run nothing; what ended in them is told
        self._refused = scheduled.in_slurm(os.environ)
        """Whether tasks may fail of the end of our job before anybody tells us: Slurm then refuses their steps."""
        self._believed = -math.inf
        self._warned = 0

    def _waking_by(self) -> Waking:
        if is_ours(self.runner) and orders_are_signalled():
            return BySignals(self.running, (self.link.fileno(), self.wakeup))
        return ByDescriptors(self.running, self.poll)

    def run(self) -> None:
        while not self.stopping:
            if self._free:
                self._begin_tasks()
            if self.running or self._doubtful or self._lingering:
                self._wait()
            elif self.hit_lately():
                self._rest(DOUBT)
            elif self.quitting:
                break
            else:
                self.flush()
                self.reap()
                self._rest(self.until_look())
            if self.leftovers.expected:
                self.look_for_leftovers()
        self._end_running()
        self.end_all()
        self.output.close()

    def running_tasks(self) -> dict[int, int]:
        return {pid: task.task_id for pid, task in self.running.items()}

    def groups(self) -> Iterable[int]:
        """Each task is a process group of its own."""
        return (*self.running, *self.leftovers.groups)

    def _rest(self, seconds: float | None = None) -> None:
        """Wait for an order; no task runs."""
        self._waking.wait(seconds)
        self.hear()

    def flush(self) -> None:
        super().flush()
        self.output.flush()

    def take(self, batch: Batch) -> None:
        self.starters[batch.slot].plan(batch)
        super().take(batch)

    def _begin_tasks(self) -> None:
        """Give each slot that has none its next task."""
        if self.hit > 0 and self.hit_lately():
            return
        for number in list(self._free):
            del self._free[number]
            self._begin(self.slots[number])

    def _begin(self, slot: Slot) -> None:
        """Let a slot that runs nothing begin its next task; it is free where there is none."""
        number = slot.number
        while not self.stopping:
            task = self.next_task(slot)
            if task is None:
                break
            try:
                status = self.starters[number].start(task)
            except NotStarted as error:
                self.not_begun(slot, task, error)
                break
            if status is None:
                self.running[task.pid] = task
                slot.show_group(task.pid)
                self._waking.begun(task.pid)
                return
            if not self._over(task, status << 8, (0.0, 0.0, 0)):
                return
        slot.rest()
        self._free[number] = None

    def _wait(self) -> None:
        """Wait until a task ends or an order comes; tell what was gathered now and then, or when a slot has no more."""
        sure = self._clear_doubts() if self._doubtful else None
        if self.pending and self._free:
            self.flush()
        timeout = max(0.0, self.due - time.monotonic()) if self.pending else self.output.seconds_until_flush()
        if sure is not None and (timeout is None or sure < timeout):
            timeout = sure
        if self._lingering or self.leftovers.expected:
            look = self._until_look()
            timeout = look if timeout is None or (look is not None and look < timeout) else timeout
        if self.own is not None and (timeout is None or timeout > REAP_EVERY):
            timeout = REAP_EVERY
        ended, spoken_to = self._waking.wait(timeout)
        if self.own is not None:
            self.reap()
        if not ended:
            self.flush()
        # all of them are out of `running` before another task begins: it may get the number of a process that has ended
        for task, status, usage in [(self.running.pop(pid, None), status, usage) for pid, status, usage in ended]:
            if task is not None:
                self._ended(task, status, usage[:3])
        if spoken_to:
            self.hear()
        if self._lingering is not None and not self.has_left():
            one, self._lingering = self._lingering, None
            self._take_note(one.task, one.status, one.usage)

    def _ended(self, task: Task, status: int, usage: Usage) -> None:
        """The first process of a task has ended: see to those that it left."""
        now = time.monotonic()
        if self._keeps:
            self.leftovers.ended[task.pid] = task.task_id
        else:
            self.leftovers.ended = {task.pid: task.task_id}
            if self.has_left():
                if self.job.leftovers != END:
                    self._lingering = Ended(task, status, usage, now, math.inf)
                    return
                self.flush()
                self.end_tree(now + self.job.grace)
        self._take_note(task, status, usage, now)

    def _until_look(self) -> float | None:
        """Seconds until processes that tasks left are looked for again; None for never."""
        if self._lingering is None:
            return self.until_look()
        waited = time.monotonic() - self._lingering.at
        return min(LOOK_LATER, max(LOOK_AT_FIRST, waited / 20))

    def _take_note(self, task: Task, status: int, usage: Usage, at: float | None = None) -> None:
        """Take note of a task that is over, and begin the slot's next one."""
        slot = self.slots[task.batch.slot]
        if not self._over(task, status, usage, at):
            slot.rest()
        elif self.hit > 0:
            slot.rest()
            self._free[slot.number] = None
        else:
            self._begin(slot)

    def _over(self, task: Task, status: int, usage: Usage, at: float | None = None) -> bool:
        """Tell what came of a task; where it may have ended because we are to stop, not before that is known: False.

        It ended `at` on the monotonic clock, or now.
        """
        slot = self.slots[task.batch.slot]
        logs = self.output.slots[slot.number]
        if logs.handles_task_end:
            logs.on_task_end(task.task_id, task.batch.attempt, status, task.pid)
        if task.argv is None:
            self.runner.cleanup(task.task_id)
        slot.last = task
        now = time.monotonic() if at is None else at
        if not status:
            self.tell(task, 0, usage, now)
            return True
        doubt = self._doubt(status, now) if not self.stopping else 0.0
        if doubt:
            self._doubtful[slot.number] = Ended(task, status, usage, now, now + doubt)
            return False
        self.tell(task, status, usage, now, self._of_warning(status))
        return True

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
        for pid in (*self.running, *([self._lingering.task.pid] if self._lingering else [])):
            send_to_group(pid, number)

    def set_deadline(self, deadline: float) -> None:
        for starter in self.starters.values():
            starter.environment.set_deadline(deadline)

    def _end_running(self) -> None:
        """End what runs: SIGTERM to everything below us, the grace time, SIGKILL."""
        self._clear_doubts()
        self.hand_back()
        self._waking.close()
        if not self.running and self._lingering is None:
            return
        self.end_tree(self.deadline, look=self._take_statuses)
        if self._lingering is not None:
            one, self._lingering = self._lingering, None
            self.tell_interrupted(one.task, one.status, one.usage)
        if self.running:
            # the kernel will not let go of them: the farmer gives the tasks back, and says so
            self.flush()
            self.push(wait=True)
            os._exit(1)

    def _take_statuses(self) -> Collection[int]:
        """Take note of the tasks that have ended; the processes of those that have not."""
        for pid in list(self.running):
            ended, status, usage = os.wait4(pid, os.WNOHANG)
            if ended:
                self._take_note(self.running.pop(pid), status, usage[:3])
        if not self.running:
            self.flush()
        return self.running
