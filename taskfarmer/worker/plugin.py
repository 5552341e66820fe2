"""A worker for a runner of the user's own: a class whose `run` does everything by itself.

The contract is PyTaskFarmer's: `run(taskid, command, logfh)` in the worker's main thread, with the
task's variables in `os.environ`, and `terminate()` out of the signal handler while `run` waits.
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

from taskfarmer.proctree import STUCK_AFTER
from taskfarmer.runners.base import Runner
from taskfarmer.signals import END_NOW, STOPS
from taskfarmer.worker.batch import Task
from taskfarmer.worker.context import NotStarted, SlotContext
from taskfarmer.worker.launch import Environment, command_of
from taskfarmer.worker.leftovers import END, KEEP
from taskfarmer.worker.output.files import ANY_CHILD
from taskfarmer.worker.output.output import Output
from taskfarmer.worker.slot import Slot
from taskfarmer.worker.variables import Variable
from taskfarmer.worker.worker import DOUBT, FLUSH_EVERY, Worker, WorkerSetup, of_stop_signal

HEAR_EVERY = 0.005
LONGEST_PAUSE = 1.0
"""Seconds between two looks at processes that a task waits for."""
_OURS = (*STOPS, END_NOW, signal.SIGALRM, signal.SIGCHLD)


class PluginWorker(Worker):
    """Serves one slot, since `run` does not return before the task has ended.

    A task that follows quick ones may take hours, in which nobody listens: so what was gathered is told by a timer,
    in the middle of `run`. It rings once after quick tasks. Where a runner has taken SIGALRM for itself there is none,
    and each task is told when it has ended.
    """

    def __init__(self, job: WorkerSetup, link: socket.socket, shown: list[memoryview]) -> None:
        self.plugin = PluginTask(job.places[0], job.runner)
        self.usage = resource.getrusage(resource.RUSAGE_CHILDREN)
        self.heard = 0.0
        self._rings = 0.0
        self._kill_after = math.inf
        # before any signal can come
        signal.signal(END_NOW, self.kill_tree)
        signal.signal(signal.SIGALRM, self.on_alarm)
        Forks().watch()
        super().__init__(job, link, shown)
        signal.signal(signal.SIGCHLD, self.on_child)

    def on_term(self, number: int, frame: FrameType | None) -> None:
        super().on_term(number, frame)
        self.plugin.told_to_end = True
        self.plugin.terminate()
        # one that does not heed it waits for its program: that one is ended when the grace time is over
        self._kill_after = time.monotonic() + self.job.grace
        self._ring_in(self.job.grace)

    def kill_tree(self, number: int, frame: FrameType | None) -> None:
        """The grace time is over, by our own timer or by the farmer's word."""
        signal.setitimer(signal.ITIMER_REAL, 0.1, 0.1)
        self.tree.kill()

    def on_child(self, number: int, frame: FrameType | None) -> None:
        """A child has ended: an orphan that we adopted, or one for which `run` waits."""
        self.reap()

    def on_alarm(self, number: int, frame: FrameType | None) -> None:
        self._rings = 0.0  # it has rung: also for a task that has ended and is not gathered yet
        late = time.monotonic() - self._kill_after
        if late >= STUCK_AFTER:  # `run` does not return: our end is all that ends it, and the farmer sees that
            self.flush()
            os._exit(1)
        if late >= 0:
            self.kill_tree(number, frame)
            return
        if self.plugin.running:
            self.flush()
        if self.untold:  # our farmer is busy, or what we interrupted works at what is gathered
            self._ring_in(FLUSH_EVERY if self.plugin.running else HEAR_EVERY)

    def _ring_in(self, seconds: float) -> None:
        signal.setitimer(signal.ITIMER_REAL, seconds)
        if self._kill_after < math.inf:  # looked at last: we may have been told to end in between
            signal.setitimer(signal.ITIMER_REAL, max(self._kill_after - time.monotonic(), 0.001), 0.1)

    def run(self) -> None:
        (slot,) = self.slots.values()
        slot.show_group(os.getpgrp())  # that of its tasks, too, unless the runner gives them another one
        while not self.stopping:
            task = self.next_task(slot)
            if task is not None:
                self._task(slot, task)
            elif self.quitting:
                break
            else:
                self.flush()
                self.reap()
                self.usage = resource.getrusage(resource.RUSAGE_CHILDREN)
                self._rest(self.until_look())
            if self.leftovers.expected:
                self.look_for_leftovers()
        self.end_all()
        signal.setitimer(signal.ITIMER_REAL, 0)  # Python takes the handlers away before it ends
        self.plugin.output.close()

    def _rest(self, seconds: float | None) -> None:
        """Wait for an order, or for a process to end."""
        self.poll.poll(None if seconds is None else seconds * 1000)
        self.hear()

    def running_tasks(self) -> dict[int, int]:
        """None: leftovers are looked for between two tasks."""
        return {}

    def flush(self) -> None:
        super().flush()
        self.plugin.output.flush()

    def _task(self, slot: Slot, task: Task) -> None:
        try:
            status = self.plugin.run(task.task_id, task.batch.attempt, command_of(task))
        except NotStarted as error:
            self.not_begun(slot, task, error)
            return
        ended = time.monotonic()
        if self.terminated or ended - self.heard > HEAR_EVERY:
            self.heard = ended
            self.hear()
        if status and of_stop_signal(status) and not self.stopping:
            self._wait_for_stop()
        waited_for = self.job.leftovers != KEEP and self._see_to_leftovers()
        if waited_for:
            ended = time.monotonic()
        before, self.usage = self.usage, resource.getrusage(resource.RUSAGE_CHILDREN)
        after = self.usage
        usage = (after.ru_utime - before.ru_utime, after.ru_stime - before.ru_stime, after.ru_maxrss)
        if self.stopping:
            self.end_tree(self.deadline)
        slot.ended(task)
        if self.job.leftovers == KEEP:
            self.leftovers.ended[-1 - task.task_id] = task.task_id
        if self.stopping and waited_for:
            self.tell_interrupted(task, status, usage)
            return
        self.tell(task, status, usage, ended, status != 0 and of_stop_signal(status) and self.hit_lately())
        if self.untold and ended > self._rings:
            self._ring_later(ended)

    def _see_to_leftovers(self) -> bool:
        """End the processes that a task left, or wait for them; whether we waited for some."""
        pause = HEAR_EVERY
        waits = False
        while not self.stopping and self.has_left():
            self.flush()
            if self.job.leftovers == END:
                self.end_tree(time.monotonic() + self.job.grace)
                break
            waits = True
            self._rest(pause)
            pause = min(pause * 1.5, LONGEST_PAUSE)
        return waits

    def _ring_later(self, now: float) -> None:
        """See to it that what was gathered is told soon, also where the next task takes long."""
        if self.terminated or self.stopping or signal.getsignal(signal.SIGALRM) != self.on_alarm:
            self.flush()
            self.push(wait=True)
        else:
            wait = max(self.until_flush(), HEAR_EVERY)
            self._rings = now + wait
            self._ring_in(wait)

    def _wait_for_stop(self) -> None:
        """A task died of a signal that may have been for all of the job step: see whether we are told to stop."""
        end = time.monotonic() + DOUBT
        while not self.stopping and not self.hit_lately() and (left := end - time.monotonic()) > 0:
            self.poll.poll(left * 1000)
            self.hear()

    def set_deadline(self, deadline: float) -> None:
        self.plugin.set_deadline(deadline)


class Forks:
    """What `run` forks, as `multiprocessing` does, has none of our handlers: it ends when it is told to.

    Signals wait meanwhile, since Python forgets in a child what came before its first instruction.
    """

    def __init__(self) -> None:
        self._masks: list[set[int]] = []

    def watch(self) -> None:
        os.register_at_fork(before=self.begin, after_in_parent=self.end, after_in_child=self.be_born)

    def begin(self) -> None:
        self._masks.append(signal.pthread_sigmask(signal.SIG_BLOCK, _OURS))

    def end(self) -> None:
        signal.pthread_sigmask(signal.SIG_SETMASK, self._masks.pop())

    def be_born(self) -> None:
        signal.set_wakeup_fd(-1)
        for number in _OURS:
            signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)
        self.end()


class PluginTask:
    def __init__(self, place: SlotContext, runner: Runner) -> None:
        self.place = place
        self.runner = runner
        self.output = Output([place])
        self.logs = self.output.slots[place.slot]
        self.environment = Environment(place)
        for name in place.hidden:
            os.environb.pop(name, None)
        self.told_to_end = False
        self.running = False
        self._pid = os.getpid()
        self._log: TextIO | None = None
        os.environb.update(self.environment.variables)
        self._number, self._task_id, self._attempt, self._path = (
            Variable(name) for name in (b"PROC_NUMBER", b"TASKFARMER_TASK_ID", b"TASKFARMER_ATTEMPT", b"TASKFARMER_LOG")
        )
        self._last_attempt, self._last_path = 0, b""

    def run(self, task_id: int, attempt: int, command: str) -> int:
        """The wait status that a process with the returned code would have."""
        status = self._run(task_id, attempt, command)
        if os.getpid() != self._pid:  # a child that `run` forked: the worker tells of the task, and runs the next one
            os._exit(os.waitstatus_to_exitcode(status) & 0xFF)
        if self.logs.handles_task_end:
            self.logs.on_task_end(task_id, attempt, status, ANY_CHILD)
        return status

    def _run(self, task_id: int, attempt: int, command: str) -> int:
        fd, path = self.logs.open(task_id, attempt)
        log = self.logs.open_text(fd)
        self._show(task_id, attempt, path)
        self._log = log
        self.running = True
        try:
            if self.told_to_end:
                return signal.SIGTERM  # it came while the log was opened
            return _wait_status(self.runner.run(task_id, command, log), log)
        except BaseException:  # whatever a user's code raises, SystemExit too, is a failed task
            _explain(log)
            return 1 << 8
        finally:
            self.running = False
            self.logs.release_text(log)

    def _show(self, task_id: int, attempt: int, path: bytes) -> None:
        """Set those variables of this process that are other ones than for the task before."""
        number = b"%d" % task_id
        self._number.set(number)
        self._task_id.set(number)
        if attempt != self._last_attempt:
            self._last_attempt = attempt
            self._attempt.set(b"%d" % attempt)
        if path != self._last_path:
            self._last_path = path
            self._path.set(path)

    def set_deadline(self, deadline: float) -> None:
        """Tell the tasks to come when the farmer ends, in epoch seconds; 0 for never."""
        self.environment.set_deadline(deadline)
        os.environb.pop(b"TASKFARMER_DEADLINE", None)
        os.environb.update(self.environment.deadline)

    def terminate(self) -> None:
        """Called from the signal handler: what the user's `terminate` does is theirs."""
        if self.running:
            try:
                self.runner.terminate()
            except Exception:
                self._say(traceback.format_exc())

    def _say(self, text: str) -> None:
        """Write into the log past its buffer, which `run` may be about to fill."""
        try:
            if self._log is not None:
                os.write(self._log.fileno(), text.encode("utf-8", "backslashreplace"))
        except (OSError, ValueError):  # the runner may have closed it
            pass


def _wait_status(code: object, log: TextIO) -> int:
    """Turn what `run` returned into a wait status; None, as from a `run` without `return`, is no success."""
    if not isinstance(code, int):
        log.write(f"taskfarmer: the runner returned {code!r}, not an exit status; the task counts as failed\n")
        return 1 << 8
    if code < 0:
        return -code if -code < signal.NSIG else 1 << 8
    return (code & 0xFF) << 8 if code & 0xFF or not code else 1 << 8


def _explain(log: TextIO) -> None:
    try:
        log.write("taskfarmer: the runner raised an exception\n")
        traceback.print_exc(file=log)
    except (OSError, ValueError):
        pass
