"""A worker for a custom runner: a class with a method `run` that executes a task.

The contract is that of PyTaskFarmer: `run(taskid, command, logfh)` is called in the worker's main thread, with the
task's variables in `os.environ`. `terminate()` is called in a signal handler while `run` waits.
"""

from __future__ import annotations

import math
import os
import resource
import signal
import socket
import time
import traceback
from types import FrameType
from typing import TextIO

from taskfarmer.proctree import STUCK_AFTER, has_children
from taskfarmer.protocol import REPLACE, WorkerReport
from taskfarmer.runners.base import Runner
from taskfarmer.signals import END_NOW, STOPS
from taskfarmer.worker.batch import Task
from taskfarmer.worker.context import NotStarted, SlotContext
from taskfarmer.worker.launch import Environment, command_of
from taskfarmer.worker.leftovers import END, KEEP
from taskfarmer.worker.output.files import ANY_CHILD
from taskfarmer.worker.output.output import Output
from taskfarmer.worker.slot import Slot
from taskfarmer.worker.worker import AWAIT_STOP, FLUSH_EVERY, Worker, WorkerSetup, died_of_stop_signal

READ_EVERY = 0.005
"""Seconds between two reads of commands, at least, while quick tasks run."""
LONGEST_PAUSE = 1.0
"""Seconds between two checks for processes that a task waits for, at most."""
TASKS_PER_WORKER = 50_000
"""Tasks after which a worker asks to be replaced. glibc keeps every value that a variable was ever set to (setenv(3)),
so that a million tasks cost 140 megabytes."""
_HANDLED = (*STOPS, END_NOW, signal.SIGALRM, signal.SIGCHLD)


class PluginWorker(Worker):
    """Serves one slot, since `run` does not return before the task has ended.

    After quick tasks a task may take hours. So an alarm in the middle of `run` reports the recorded results. If the
    runner uses SIGALRM for itself, the worker sets no alarm, and each result is reported when its task has ended.
    """

    def __init__(self, setup: WorkerSetup, link: socket.socket, shown: list[memoryview]) -> None:
        self.plugin = PluginTask(setup.contexts[0], setup.runner)
        self.usage = resource.getrusage(resource.RUSAGE_CHILDREN)
        self.commands_read_at = 0.0
        self._alarm_at = 0.0
        self._kill_after = math.inf
        self._tasks = 0
        self._asked_for_replacement = False
        # before any signal can arrive
        signal.signal(END_NOW, self.kill_tree)
        signal.signal(signal.SIGALRM, self.on_alarm)
        Forks().watch()
        super().__init__(setup, link, shown)
        signal.signal(signal.SIGCHLD, self.on_child)

    def on_term(self, number: int, frame: FrameType | None) -> None:
        super().on_term(number, frame)
        self.plugin.stop_requested = True
        self.plugin.terminate()
        # a runner without `terminate` waits for its program, which is killed after the grace time
        self._kill_after = time.monotonic() + self.setup.grace
        self._set_alarm(self.setup.grace)

    def kill_tree(self, number: int, frame: FrameType | None) -> None:
        """The grace time is over, as this worker's timer or its farmer reports."""
        signal.setitimer(signal.ITIMER_REAL, 0.1, 0.1)
        self.tree.kill()

    def on_child(self, number: int, frame: FrameType | None) -> None:
        """A child has ended: an adopted orphan, or a process that `run` waits for."""
        self.reap()

    def on_alarm(self, number: int, frame: FrameType | None) -> None:
        self._alarm_at = 0.0  # also if a task has ended and is not recorded yet
        late = time.monotonic() - self._kill_after
        if late >= STUCK_AFTER:  # `run` does not return, so the worker exits; the farmer notices that
            self.flush()
            os._exit(1)
        if late >= 0:
            self.kill_tree(number, frame)
            return
        if self.plugin.running:
            self.flush()
        if self.has_unsent:  # the farmer is busy, or this handler has interrupted a flush
            self._set_alarm(FLUSH_EVERY if self.plugin.running else READ_EVERY)

    def _set_alarm(self, seconds: float) -> None:
        signal.setitimer(signal.ITIMER_REAL, seconds)
        if self._kill_after < math.inf:  # checked last, since SIGTERM may have arrived in between
            signal.setitimer(signal.ITIMER_REAL, max(self._kill_after - time.monotonic(), 0.001), 0.1)

    def run(self) -> None:
        (slot,) = self.slots.values()
        slot.show_group(os.getpgrp())  # also that of its tasks, unless the runner gives them another one
        while not self.stopping:
            task = self.next_task(slot)
            if task is not None:
                self._run_task(slot, task)
                self._tasks += 1
                if self._tasks >= TASKS_PER_WORKER and not self._asked_for_replacement:
                    self._ask_for_replacement()
            elif self.quitting:
                break
            else:
                self.flush()
                self.reap()
                self.usage = resource.getrusage(resource.RUSAGE_CHILDREN)
                self._wait(self.seconds_to_scan())
            if self.leftovers.expected:
                self.report_leftovers()
        self.shut_down()
        signal.setitimer(signal.ITIMER_REAL, 0)  # Python removes the handlers before it exits
        self.plugin.output.close()

    def _ask_for_replacement(self) -> None:
        """Ask the farmer for another worker in this slot; QUIT is its answer.

        Processes that tasks have left may run as long as the farmer, but not longer than their worker. So a worker
        that has children goes on.
        """
        if not has_children():
            self._asked_for_replacement = True
            self.send(WorkerReport(REPLACE).encode())

    def _wait(self, seconds: float | None) -> None:
        """Wait for a command, or for a process to end."""
        self.poll.poll(None if seconds is None else seconds * 1000)
        self.read_commands()

    def running_tasks(self) -> dict[int, int]:
        """None, since leftovers are searched between two tasks."""
        return {}

    def flush(self) -> None:
        super().flush()
        self.plugin.output.flush()

    def _run_task(self, slot: Slot, task: Task) -> None:
        try:
            status = self.plugin.run(task.task_id, task.batch.attempt, command_of(task))
        except NotStarted as error:
            self.not_started(slot, task, error)
            return
        ended = time.monotonic()
        if self.terminated or ended - self.commands_read_at > READ_EVERY:
            self.commands_read_at = ended
            self.read_commands()
        if status and died_of_stop_signal(status) and not self.stopping:
            self._await_stop()
        waited = self.setup.leftovers != KEEP and self._handle_leftovers()
        if waited:
            ended = time.monotonic()
        before, self.usage = self.usage, resource.getrusage(resource.RUSAGE_CHILDREN)
        after = self.usage
        usage = (after.ru_utime - before.ru_utime, after.ru_stime - before.ru_stime, after.ru_maxrss)
        if self.stopping:
            self.end_tree(self.deadline)
        slot.show_ended(task)
        if self.setup.leftovers == KEEP:
            self.leftovers.ended[-1 - task.task_id] = task.task_id
        if self.stopping and waited:
            self.record_interrupted(task, status, usage)
            return
        self.record(task, status, usage, ended, status != 0 and died_of_stop_signal(status) and self.had_stop_signal())
        if self.has_unsent and ended > self._alarm_at:
            self._report_later(ended)

    def _handle_leftovers(self) -> bool:
        """End the processes that a task has left, or wait for them; returns whether it waited for some."""
        pause = READ_EVERY
        waits = False
        while not self.stopping and self.has_leftovers():
            self.flush()
            if self.setup.leftovers == END:
                self.end_tree(time.monotonic() + self.setup.grace)
                break
            waits = True
            self._wait(pause)
            pause = min(pause * 1.5, LONGEST_PAUSE)
        return waits

    def _report_later(self, now: float) -> None:
        """Report the recorded results soon, even if the next task takes long."""
        if self.terminated or self.stopping or signal.getsignal(signal.SIGALRM) != self.on_alarm:
            self.flush()
            self.push(wait=True)
        else:
            wait = max(self.seconds_to_flush(), READ_EVERY)
            self._alarm_at = now + wait
            self._set_alarm(wait)

    def _await_stop(self) -> None:
        """A task died of a signal that may have been for all processes of a job: wait for a stop."""
        end = time.monotonic() + AWAIT_STOP
        while not self.stopping and not self.had_stop_signal() and (left := end - time.monotonic()) > 0:
            self.poll.poll(left * 1000)
            self.read_commands()

    def set_deadline(self, deadline: float) -> None:
        self.plugin.set_deadline(deadline)


class Forks:
    """Resets the signal handlers in processes that `run` forks, as `multiprocessing` does, so that signals stop them.

    Signals are blocked around the fork. If one arrived before the first instruction of the child, Python would lose it.
    """

    def __init__(self) -> None:
        self._masks: list[set[int]] = []

    def watch(self) -> None:
        os.register_at_fork(before=self.before, after_in_parent=self.after, after_in_child=self.in_child)

    def before(self) -> None:
        self._masks.append(signal.pthread_sigmask(signal.SIG_BLOCK, _HANDLED))

    def after(self) -> None:
        signal.pthread_sigmask(signal.SIG_SETMASK, self._masks.pop())

    def in_child(self) -> None:
        signal.set_wakeup_fd(-1)
        for number in _HANDLED:
            signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)
        self.after()


class PluginTask:
    """Calls the custom runner for one task after the other."""

    def __init__(self, context: SlotContext, runner: Runner) -> None:
        self.runner = runner
        self.output = Output([context])
        self.logs = self.output.slots[context.slot]
        self.environment = Environment(context)
        for name in context.hidden:
            os.environb.pop(name, None)
        self.stop_requested = False
        self.running = False
        self._pid = os.getpid()
        self._log: TextIO | None = None
        os.environb.update(self.environment.variables)

    def run(self, task_id: int, attempt: int, command: str) -> int:
        """Run a task; returns the wait status of a process that exits with the code that the runner returned."""
        status = self._run(task_id, attempt, command)
        if os.getpid() != self._pid:  # a child that `run` forked; the worker reports the task
            os._exit(os.waitstatus_to_exitcode(status) & 0xFF)
        if self.logs.handles_task_end:
            self.logs.on_task_end(task_id, attempt, status, ANY_CHILD)
        return status

    def _run(self, task_id: int, attempt: int, command: str) -> int:
        fd, path = self.logs.open(task_id, attempt)
        log = self.logs.open_text(fd)
        number = b"%d" % task_id
        variables = {b"PROC_NUMBER": number, b"TASKFARMER_TASK_ID": number, b"TASKFARMER_LOG": path}
        os.environb.update(variables | {b"TASKFARMER_ATTEMPT": b"%d" % attempt})
        self._log = log
        self.running = True
        try:
            if self.stop_requested:
                return signal.SIGTERM  # it arrived while the log was opened
            return _wait_status(self.runner.run(task_id, command, log), log)
        except BaseException:  # a custom runner may raise anything, such as SystemExit: the task has failed
            _write_traceback(log)
            return 1 << 8
        finally:
            self.running = False
            self.logs.release_text(log)

    def set_deadline(self, deadline: float) -> None:
        """Set the end of the farmer for tasks that start later, in epoch seconds; 0 if it has none."""
        self.environment.set_deadline(deadline)
        os.environb.pop(b"TASKFARMER_DEADLINE", None)
        os.environb.update(self.environment.deadline)

    def terminate(self) -> None:
        """Call the runner's `terminate`, in a signal handler."""
        if self.running:
            try:
                self.runner.terminate()
            except Exception:
                self._write(traceback.format_exc())

    def _write(self, text: str) -> None:
        """Write to the log without its buffer, which `run` may be filling."""
        try:
            if self._log is not None:
                os.write(self._log.fileno(), text.encode("utf-8", "backslashreplace"))
        except (OSError, ValueError):  # the runner may have closed it
            pass


def _wait_status(code: object, log: TextIO) -> int:
    """The wait status for a code that `run` returned. None, as from a `run` without `return`, is a failure."""
    if not isinstance(code, int):
        log.write(f"taskfarmer: the runner returned {code!r}, not an exit status; the task counts as failed\n")
        return 1 << 8
    if code < 0:
        return -code if -code < signal.NSIG else 1 << 8
    return (code & 0xFF) << 8 if code & 0xFF or not code else 1 << 8


def _write_traceback(log: TextIO) -> None:
    try:
        log.write("taskfarmer: the runner raised an exception\n")
        traceback.print_exc(file=log)
    except (OSError, ValueError):
        pass
