"""A worker whose tasks are programs: it starts them, and waits for all of them at once.

One process serves several slots, since a Python process for each slot would cost three megabytes.
"""

from __future__ import annotations

import math
import os
import resource  # noqa: F401 - `os.wait4` would import it in each worker
import socket
import time
from collections.abc import Collection, Iterable
from dataclasses import dataclass

from taskfarmer.peers import scheduled
from taskfarmer.proctree import has_children, reap, send_to_group
from taskfarmer.runners.base import CommandRunner
from taskfarmer.worker.batch import Batch, Task
from taskfarmer.worker.context import NotStarted
from taskfarmer.worker.launch import Starter
from taskfarmer.worker.leftovers import END, KEEP
from taskfarmer.worker.output.output import Output
from taskfarmer.worker.report import Usage
from taskfarmer.worker.slot import Slot
from taskfarmer.worker.waking import ExitWatcher
from taskfarmer.worker.worker import AWAIT_STOP, Worker, WorkerSetup, died_of_stop_signal, signal_of

AWAIT_STOP_OF_JOB = 5.0
"""Seconds to wait for a stop after a task failed in a Slurm job: Slurm refuses job steps before it stops the job."""
REAP_SOON, LONGEST_REAP_PAUSE = 0.25, 10.0
"""Seconds between checks for orphans to reap. The pause doubles while no orphan is found and no task ends."""
FIRST_CHECK, LATER_CHECKS = 0.05, 1.0
"""Seconds between checks for processes that a task waits for (--leftovers wait)."""
TRUST_FOR = 60.0
"""Seconds for which no failure is held back, after one was and no stop came: many failures must cost little."""


@dataclass
class Ended:
    """A task that ended `at` on the monotonic clock. Its result is held back, `until` then at the latest."""

    task: Task
    status: int
    usage: Usage
    at: float
    until: float


class ProgramWorker(Worker):
    """The code that runs for each task is in few, long functions: a short program costs little more than they do.

    See docs/performance.md, "Where the time of a task goes".
    """

    def __init__(self, setup: WorkerSetup, link: socket.socket, shown: list[memoryview]) -> None:
        self.running: dict[int, Task] = {}  # by process
        super().__init__(setup, link, shown)
        assert isinstance(setup.runner, CommandRunner)
        self.runner = setup.runner
        self.output = Output(setup.contexts)
        logs = self.output.slots
        self.starters = {one.slot: Starter(one, self.runner, logs[one.slot]) for one in setup.contexts}
        self._exits = ExitWatcher(self.running, self.poll)
        self._next_reap = 0.0
        self._reap_pause = REAP_SOON
        self._held_back: dict[int, Ended] = {}  # by slot
        self._lingering: Ended | None = None
        """A task whose first process has ended, and that waits for the others (--leftovers wait)."""
        self._keeps_leftovers = setup.leftovers == KEEP
        self._free = dict.fromkeys(self.slots)  # slots without a task, whose last result is recorded
        self._in_slurm = scheduled.in_slurm(os.environ)
        self._trusted_at = -math.inf  # when a held back failure turned out to be one
        self._warned = 0

    def run(self) -> None:
        while not self.stopping:
            if self._free:
                self.start_tasks()
            if self.running or self._held_back or self._lingering:
                self.wait()
            elif self.had_stop_signal():
                self.wait_idle(AWAIT_STOP)
            elif self.quitting:
                break
            else:
                self.flush()
                self._reap_orphans()
                self.wait_idle(self._idle_time())
            if self.leftovers.expected:
                self.report_leftovers()
        self._stop_tasks()
        self.shut_down()
        self.output.close()

    def running_tasks(self) -> dict[int, int]:
        return {pid: task.task_id for pid, task in self.running.items()}

    def groups(self) -> Iterable[int]:
        """Each task is a process group."""
        return (*self.running, *self.leftovers.groups)

    def wait_idle(self, seconds: float | None = None) -> None:
        """Wait for commands while no task runs."""
        self._exits.wait(seconds)
        self.read_commands()

    def _idle_time(self) -> float | None:
        """Seconds for which a worker without tasks may sleep; None if it has to wake for commands only."""
        seconds = self.seconds_to_scan()
        if has_children():
            seconds = self._reap_pause if seconds is None else min(seconds, self._reap_pause)
        return seconds

    def _reap_orphans(self) -> None:
        """Reap orphans that this worker has adopted, but no tasks."""
        found = self.own_children.reap_others() if self.own_children is not None else reap(self.running)
        self._reap_pause = REAP_SOON if found else min(2 * self._reap_pause, LONGEST_REAP_PAUSE)
        self._next_reap = time.monotonic() + self._reap_pause

    def flush(self) -> None:
        super().flush()
        self.output.flush()

    def add_batch(self, batch: Batch) -> None:
        self.starters[batch.slot].plan(batch)
        super().add_batch(batch)

    def start_tasks(self) -> None:
        """Start the next task in each free slot."""
        if self.stop_signal_at > 0 and self.had_stop_signal():
            return
        for number in list(self._free):
            del self._free[number]
            self._start_next(self.slots[number])

    def _start_next(self, slot: Slot) -> None:
        """Start the next task of a slot, or note that the slot is free."""
        number = slot.number
        while not self.stopping:
            task = self.next_task(slot)
            if task is None:
                break
            try:
                status = self.starters[number].start(task)
            except NotStarted as error:
                self.not_started(slot, task, error)
                break
            if status is None:
                self.running[task.pid] = task
                slot.show_group(task.pid)
                self._exits.add(task.pid)
                return
            if not self._finish(task, status << 8, (0.0, 0.0, 0)):
                return
        slot.show_idle()
        self._free[number] = None

    def wait(self) -> None:
        """Wait until a task ends or a command arrives. Report results now and then, and when a slot is free."""
        until_sure = self._release_held_back() if self._held_back else None
        if self.pending and self._free:
            self.flush()
        timeout = max(0.0, self.flush_due - time.monotonic()) if self.pending else self.output.seconds_until_flush()
        if until_sure is not None and (timeout is None or until_sure < timeout):
            timeout = until_sure
        if self._lingering or self.leftovers.expected:
            check = self._seconds_to_check()
            timeout = check if timeout is None or (check is not None and check < timeout) else timeout
        if timeout is None or timeout > self._reap_pause:
            timeout = self._reap_pause
        ended, has_commands = self._exits.wait(timeout)
        if time.monotonic() >= self._next_reap:
            self._reap_orphans()
        if not ended:
            self.flush()
        # remove all from `running` before another task starts, which may get the process ID of one that has ended
        for task, status, usage in [(self.running.pop(pid, None), status, usage) for pid, status, usage in ended]:
            if task is not None:
                self._on_exit(task, status, usage[:3])
        if has_commands:
            self.read_commands()
        if self._lingering is not None and not self.has_leftovers():
            lingering, self._lingering = self._lingering, None
            self._finish_and_start_next(lingering.task, lingering.status, lingering.usage)

    def _on_exit(self, task: Task, status: int, usage: Usage) -> None:
        """The first process of a task has ended: handle the processes that it has left."""
        now = time.monotonic()
        self._reap_pause = REAP_SOON
        self._next_reap = min(self._next_reap, now + REAP_SOON)
        if self._keeps_leftovers:
            self.leftovers.ended[task.pid] = task.task_id
        else:
            self.leftovers.ended = {task.pid: task.task_id}
            if self.has_leftovers():
                if self.setup.leftovers != END:
                    self._lingering = Ended(task, status, usage, now, math.inf)
                    return
                self.flush()
                self.end_tree(now + self.setup.grace)
        self._finish_and_start_next(task, status, usage, now)

    def _seconds_to_check(self) -> float | None:
        """Seconds until the next check for processes that tasks have left; None if no check is needed."""
        if self._lingering is None:
            return self.seconds_to_scan()
        waited = time.monotonic() - self._lingering.at
        return min(LATER_CHECKS, max(FIRST_CHECK, waited / 20))

    def _finish_and_start_next(self, task: Task, status: int, usage: Usage, at: float | None = None) -> None:
        slot = self.slots[task.batch.slot]
        if not self._finish(task, status, usage, at):
            slot.show_idle()
        elif self.stop_signal_at > 0:
            slot.show_idle()
            self._free[slot.number] = None
        else:
            self._start_next(slot)

    def _finish(self, task: Task, status: int, usage: Usage, at: float | None = None) -> bool:
        """Record a task that ended `at` on the monotonic clock, or now.

        False if its result is held back, since it may have ended because the farmer is about to stop.
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
            self.record(task, 0, usage, now)
            return True
        seconds = self._hold_back_for(status, now) if not self.stopping else 0.0
        if seconds:
            self._held_back[slot.number] = Ended(task, status, usage, now, now + seconds)
            return False
        self.record(task, status, usage, now, self._died_of_warning(status))
        return True

    def _hold_back_for(self, status: int, now: float) -> float:
        """Seconds for which a result with this wait status is held back, and its slot starts no task."""
        if died_of_stop_signal(status):
            return AWAIT_STOP
        if self.is_unfinished(status) or not self._in_slurm or now - self._trusted_at < TRUST_FOR:
            return 0.0
        return AWAIT_STOP_OF_JOB

    def _release_held_back(self) -> float:
        """Record the held back results whose cause is known by now; returns the seconds until the next one is due."""
        now = time.monotonic()
        for number, ended in list(self._held_back.items()):
            interrupted = self.stopping or self.had_stop_signal() or self._died_of_warning(ended.status)
            if interrupted or now >= ended.until:
                del self._held_back[number]
                self._free[number] = None
                self.record(ended.task, ended.status, ended.usage, ended.at, interrupted)
                if not interrupted:
                    self._trusted_at = now
        return min((ended.until - now for ended in self._held_back.values()), default=0.0)

    def _died_of_warning(self, status: int) -> bool:
        return self._warned > 0 and signal_of(status) == self._warned

    def warn(self, number: int) -> None:
        self._warned = number
        for pid in (*self.running, *([self._lingering.task.pid] if self._lingering else [])):
            send_to_group(pid, number)

    def set_deadline(self, deadline: float) -> None:
        for starter in self.starters.values():
            starter.environment.set_deadline(deadline)

    def _stop_tasks(self) -> None:
        """Stop the running tasks: SIGTERM to all processes below this worker, the grace time, SIGKILL."""
        self._release_held_back()
        self.give_back()
        self._exits.close()
        if not self.running and self._lingering is None:
            return
        self.end_tree(self.deadline, reap_tasks=self._reap_tasks)
        if self._lingering is not None:
            lingering, self._lingering = self._lingering, None
            self.record_interrupted(lingering.task, lingering.status, lingering.usage)
        if self.running:
            # the kernel holds them in an uninterruptible wait: the farmer releases the tasks, and warns the user
            self.flush()
            self.push(wait=True)
            os._exit(1)

    def _reap_tasks(self) -> Collection[int]:
        """Record the tasks that have ended; returns the processes of the others."""
        for pid in list(self.running):
            ended, status, usage = os.wait4(pid, os.WNOHANG)
            if ended:
                self._finish_and_start_next(self.running.pop(pid), status, usage[:3])
        if not self.running:
            self.flush()
        return self.running
