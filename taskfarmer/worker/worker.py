"""A worker: reads commands and tasks of its farmer, runs one task at a time in each of its slots, reports the results.

States: idle (waits for commands), running (waits for processes and for commands), stopping (it stops the running tasks,
and has given back the others), gone. If a worker is killed, its farmer adopts and ends the processes of its tasks. If
the farmer is gone, the worker stops its tasks and records nothing, since nothing can be committed.
"""

from __future__ import annotations

import math
import os
import select
import signal
import socket
import time
from collections.abc import Callable, Collection, Iterable
from types import FrameType
from typing import NamedTuple

from taskfarmer import protocol
from taskfarmer.formats.results import FINISHED
from taskfarmer.proctree import Tree, reap
from taskfarmer.protocol import Command, Commands, WorkerReport
from taskfarmer.runners.base import Runner, is_ours
from taskfarmer.signals import STOPS
from taskfarmer.worker.batch import Batch, Task
from taskfarmer.worker.context import NotStarted, SlotContext
from taskfarmer.worker.leftovers import KEEP, MOMENT, Leftovers
from taskfarmer.worker.output.limit import has_room
from taskfarmer.worker.ownchildren import OwnChildren
from taskfarmer.worker.report import Usage
from taskfarmer.worker.slot import Slot

FLUSH_EVERY = 0.1
"""Seconds between two reports of results, as long as the slots have something to do."""
REPORT_WITHIN = 1.0
"""Seconds after which a worker reports less than half of a batch. With more, its farmer may send the next batch."""
AWAIT_STOP = 1.0
"""Seconds to wait for a stop after a task died of a stop signal, which may have been for all processes of a job."""
PROBE_EVERY = 1.0
MOST_UNSENT = 8 << 20
"""Bytes of reports that a worker keeps while its farmer is busy. With more, it waits for the farmer."""
_READ_SIZE = 1 << 20


class WorkerSetup(NamedTuple):
    """The settings of a new worker. `clock` plus the monotonic clock is the time of day."""

    contexts: tuple[SlotContext, ...]
    runner: Runner
    grace: float
    clock: float
    parent: int
    close: tuple[int, ...]
    unfinished: int = -1
    """The exit status of tasks that are to be run again; negative if not set."""
    leftovers: str = KEEP
    """The value of `--leftovers`."""


_STOPS = frozenset(int(number) for number in STOPS)


class Worker:
    """The code that all workers share: read commands, report results, give back tasks, stop. Subclasses run tasks."""

    def __init__(self, setup: WorkerSetup, link: socket.socket, shown: list[memoryview]) -> None:
        self.setup = setup
        self.clock = setup.clock
        self.link = link
        self.commands = Commands()
        self.slots = {one.slot: Slot(one, view) for one, view in zip(setup.contexts, shown, strict=True)}
        self.stopping = False
        self.quitting = False
        self.deadline = 0.0
        self.terminated = False
        self.stop_signal_at = -math.inf
        self.flushed = 0.0
        self.flush_due = 0.0  # when results must be reported, on the monotonic clock
        self.probed = 0.0
        self.pending = 0  # results that are not reported yet
        self.own_children = self._watch_children()
        self.tree = Tree(groups=self.groups, known=lambda: tuple(self.own_children or ()))
        farmer = setup.contexts[0].farmer
        self.leftovers = Leftovers(farmer, self.running_tasks, lambda: tuple(self.own_children or ()))
        self._unsent = bytearray()
        self._linked = True
        self._prepare()

    def _prepare(self) -> None:
        self.wakeup, written = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        signal.set_wakeup_fd(written, warn_on_full_buffer=False)
        for number in STOPS:
            signal.signal(number, self.on_stop_signal)
        signal.signal(signal.SIGTERM, self.on_term)
        signal.pthread_sigmask(signal.SIG_SETMASK, ())
        self.poll = select.poll()
        self.poll.register(self.link, select.POLLIN)
        self.poll.register(self.wakeup, select.POLLIN)

    def on_term(self, number: int, frame: FrameType | None) -> None:
        self.terminated = True

    def on_stop_signal(self, number: int, frame: FrameType | None) -> None:
        """The farmer decides about a signal that stops it; the tasks may have got it, too.

        It is not ignored, since programs would inherit that.
        """
        self.stop_signal_at = time.monotonic()

    def had_stop_signal(self) -> bool:
        """Whether this worker got a stop signal a moment ago. Then tasks that die of one have not failed."""
        return self.stop_signal_at > 0 and time.monotonic() - self.stop_signal_at < 2 * AWAIT_STOP

    def _watch_children(self) -> OwnChildren | None:
        """Record the children that a custom runner starts, since it may wait for them."""
        if is_ours(self.setup.runner):
            return None
        own_children = OwnChildren()
        own_children.watch()
        return own_children

    def reap(self) -> None:
        """Reap orphans, but no children that a custom runner may wait for."""
        if self.own_children is not None:
            self.own_children.reap_others()
        else:
            reap()

    def run(self) -> None:
        """Work until the farmer stops this worker, or is gone."""
        raise NotImplementedError

    def running_tasks(self) -> dict[int, int]:
        """The IDs of the running tasks, by their first processes."""
        raise NotImplementedError

    def groups(self) -> Iterable[int]:
        """The process groups of tasks and of processes that they left; none if tasks share that of the worker."""
        return ()

    @property
    def has_unsent(self) -> bool:
        """Whether the farmer has not received all reports."""
        return self.pending > 0 or bool(self._unsent)

    # --- commands ------------------------------------------------------------------------------

    def send(self, data: bytes) -> None:
        """Send a report, and keep the rest for later if the farmer does not read: it may be writing to a slow disk."""
        self._unsent += data
        self.push()

    def push(self, wait: bool = False) -> None:
        """Send as many of the kept reports as the farmer reads now, or `wait` until it has read all."""
        try:
            while self._unsent:
                block = wait or len(self._unsent) > MOST_UNSENT
                with memoryview(self._unsent) as unsent:
                    sent = self.link.send(unsent[: 1 << 20], 0 if block else socket.MSG_DONTWAIT)
                del self._unsent[:sent]
        except BlockingIOError:
            pass
        except OSError:
            self._unsent.clear()
            self.stop(self.setup.grace)  # the farmer is gone
        if self._linked:
            self.poll.modify(self.link, select.POLLIN | (select.POLLOUT if self._unsent else 0))

    def stop(self, grace: float) -> None:
        deadline = time.monotonic() + grace
        if not self.stopping or deadline < self.deadline:
            self.deadline = deadline
        self.stopping = True

    def read_commands(self) -> None:
        """Execute the commands that have arrived. Called when the socket or the pipe of signals is ready."""
        if self.terminated:
            self.terminated = False
            self.stop(self.setup.grace)
        if self._unsent:
            self.push()
        try:
            os.read(self.wakeup, 512)
        except BlockingIOError:
            pass
        while self._read_some() == _READ_SIZE:
            pass

    def _read_some(self) -> int:
        """Execute the commands that one call reads; returns the number of bytes."""
        try:
            data = self.link.recv(_READ_SIZE, socket.MSG_DONTWAIT)
        except BlockingIOError:
            return 0
        except OSError:
            data = b""
        if not data:
            self.stop(self.setup.grace)
            if self._linked:  # else the end of file was read before, and this call is for a signal
                self._linked = False
                self.poll.unregister(self.link)
            return 0
        for command in self.commands.feed(data):
            self._execute(command)
        return len(data)

    def _execute(self, command: Command) -> None:
        if command.kind == protocol.TASKS:
            lines = command.body.split(b"\n")
            lines.pop()
            lease = self.slots[command.slot].context.lease
            self.add_batch(Batch(command.slot, command.number, command.attempt, lines, lease))
        elif command.kind == protocol.GIVE_BACK:
            self.give_back()
        elif command.kind == protocol.STOP:
            self.stop(command.seconds)
        elif command.kind == protocol.QUIT:
            self.quitting = True
        elif command.kind == protocol.WARN:
            self.warn(command.number)
        elif command.kind == protocol.DEADLINE:
            self.set_deadline(command.seconds)

    def add_batch(self, batch: Batch) -> None:
        """Put a batch into the queue of its slot."""
        self.slots[batch.slot].queue.append(batch)

    def warn(self, number: int) -> None:
        """Send a signal to the running tasks. Those of custom runners do not get it."""

    def set_deadline(self, deadline: float) -> None:
        """Set the end of the farmer for tasks that start later."""
        raise NotImplementedError

    def give_back(self) -> None:
        """Return the tasks that were not started to the farmer."""
        self.flush()
        for number, slot in self.slots.items():
            for batch, count in slot.remove_unstarted():
                self.send(WorkerReport(protocol.UNSTARTED, number, batch, count).encode())

    # --- tasks ---------------------------------------------------------------------------------

    def next_task(self, slot: Slot) -> Task | None:
        """The next task of a slot; None if the slot has no more.

        If the node was suspended, other farmers may have claimed the tasks of a batch. They go back to the farmer,
        which reads the ledger.
        """
        task = slot.start_next(time.monotonic() + self.clock)
        if task is None and slot.queue:
            self.give_back()
        return task

    def not_started(self, slot: Slot, task: Task, error: NotStarted) -> None:
        """The node could not start a task: report the trouble, and give back all tasks."""
        slot.undo_start(task)
        self._report_trouble(str(error))

    def _report_trouble(self, text: str) -> None:
        self.flush()
        self.send(WorkerReport(protocol.TROUBLE, results=text.encode("utf-8", "replace")).encode())
        self.give_back()

    def record(self, task: Task, status: int, usage: Usage, at: float, interrupted: bool = False) -> None:
        """Record a task that ended `at` on the monotonic clock, and report all results if that is due.

        The tasks of a slot are reported in order, so results of another batch are sent before.
        """
        batch = task.batch
        slot = self.slots[batch.slot]
        recorder = slot.recorder
        if batch.number != recorder.number:
            if recorder.attempts:
                self._unsent += recorder.encode(protocol.RESULTS)
            recorder.start_batch(batch.number)
        self.pending += 1
        end = at + self.clock
        if not status:  # also if the task was asked to stop
            recorder.attempts.append((task, end, 0, usage, FINISHED))
        else:
            self._record_failure(slot, task, status, usage, end, interrupted)
        if 2 * len(recorder.attempts) >= len(batch.tasks):
            self.flush_due = self.flushed + FLUSH_EVERY
        if at > self.flush_due:
            self.flush()

    def record_interrupted(self, task: Task, status: int, usage: Usage) -> None:
        """Record a task that must run again: it waited for other processes, which the worker has stopped."""
        slot = self.slots[task.batch.slot]
        recorder = slot.recorder
        self.flush()
        if task.batch.number != recorder.number:
            recorder.start_batch(task.batch.number)
        self._record_failure(slot, task, status or signal.SIGTERM, usage, time.monotonic() + self.clock, True)

    def _record_failure(self, slot: Slot, task: Task, status: int, usage: Usage, end: float, interrupted: bool) -> None:
        unfinished = self.is_unfinished(status)
        released = interrupted or unfinished or self.stopping
        slot.recorder.add_unsuccessful(task, end, status, usage, released)
        if released:
            self.send(slot.recorder.encode(protocol.UNFINISHED if unfinished else protocol.INTERRUPTED))
        elif not self._has_room(slot, time.monotonic()):
            # the next tasks would fail because of the full disk, so they wait
            self._report_trouble(f"{slot.context.logs}: no space left on the disk of the logs")

    def is_unfinished(self, status: int) -> bool:
        """Whether the exit status of a task means that it is to be run again."""
        return status == self.setup.unfinished << 8

    def _has_room(self, slot: Slot, now: float) -> bool:
        """Whether the disk of the logs has room. It is written to once a second at most, since many tasks may fail."""
        by_writing = now - self.probed > PROBE_EVERY
        if by_writing:
            self.probed = now
        return has_room(slot.context.logs_fd, by_writing)

    def seconds_to_flush(self) -> float:
        return max(0.0, self.flush_due - time.monotonic())

    def flush(self) -> None:
        """Report the recorded results."""
        self.flushed = time.monotonic()
        self.flush_due = self.flushed + REPORT_WITHIN
        if self.pending:
            self.pending = 0
            for slot in self.slots.values():
                if slot.recorder.attempts:
                    self._unsent += slot.recorder.encode(protocol.RESULTS)
        if self._unsent:
            self.push()

    # --- processes of ended tasks --------------------------------------------------------------

    def report_leftovers(self, last: bool = False) -> None:
        """Report which tasks have left processes, if a scan is due."""
        now = time.monotonic()
        if self.setup.leftovers == KEEP and (last or now >= self.leftovers.next_scan):
            found = self.leftovers.scan(now, last)
            if found:
                text = "\n".join(f"{task} {count}" for task, count in found.items())
                self.send(WorkerReport(protocol.LEFTOVERS, results=text.encode()).encode())

    def has_leftovers(self) -> bool:
        """Whether processes of the last task still run, in a worker that serves one slot."""
        self.reap()
        return bool(set(self.tree.living()) - self.tree.stuck) or self.tree.has_hidden()

    def seconds_to_scan(self) -> float | None:
        """Seconds until the next scan for leftovers; None if no scan is needed."""
        return self.leftovers.seconds_to_scan(time.monotonic()) if self.setup.leftovers == KEEP else None

    def shut_down(self) -> None:
        """Send the last reports, and end all processes below this worker."""
        self.flush()
        self.give_back()
        if not self.stopping:
            end = time.monotonic() + MOMENT
            while not self.stopping and self.tree.living() and time.monotonic() < end:
                self.sleep(0.01)
            self.report_leftovers(last=True)
        self.end_tree(self.deadline if self.stopping else time.monotonic() + self.setup.grace)
        self.push(wait=True)

    def end_tree(self, grace_until: float, reap_tasks: Callable[[], Collection[int]] = frozenset) -> None:
        """End all processes below this worker, and report those that do not die; see `Tree.end`."""
        stuck = self.tree.end(grace_until, sleep=self.sleep, reap_own=reap_tasks)
        if stuck:
            self.send(WorkerReport(protocol.SURVIVOR, results=" ".join(map(str, stuck)).encode()).encode())

    def sleep(self, seconds: float) -> float | None:
        """Sleep, but read commands: returns the end of the grace time, None if the worker does not stop."""
        if self.poll.poll(seconds * 1000):
            self.read_commands()
        return self.deadline if self.stopping else None


def signal_of(status: int) -> int:
    """The signal that a task, or the last command of its shell, died of, by its wait status; otherwise 0 or less."""
    return os.WTERMSIG(status) if os.WIFSIGNALED(status) else (status >> 8) - 128


def died_of_stop_signal(status: int) -> bool:
    """Whether a task died of a signal that stops farmers."""
    return signal_of(status) in _STOPS
