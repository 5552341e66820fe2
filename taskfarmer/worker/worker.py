"""A worker: takes lines of tasks from its farmer, runs one at a time in each of its slots, tells what came of each.

States: idle (waits for orders), running (waits for processes and for orders), stopping (the running tasks
are being ended, everything else was handed back), gone. A worker that is killed leaves its tasks to the
farmer, which adopts their processes and ends them; a worker whose farmer is gone ends its tasks and
records nothing, since nobody is left to commit it.
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
from typing import TYPE_CHECKING, NamedTuple

from taskfarmer import protocol
from taskfarmer.formats.results import FINISHED
from taskfarmer.proctree import Tree, reap
from taskfarmer.protocol import Commands, WorkerReport
from taskfarmer.runners.base import Runner, is_ours
from taskfarmer.signals import STOPS
from taskfarmer.worker.batch import Batch, Task
from taskfarmer.worker.context import NotStarted, SlotContext
from taskfarmer.worker.leftovers import KEEP, MOMENT, Leftovers
from taskfarmer.worker.output.limit import has_room
from taskfarmer.worker.report import Usage
from taskfarmer.worker.slot import Slot

if TYPE_CHECKING:
    from taskfarmer.worker.ownchildren import OwnChildren

FLUSH_EVERY = 0.1
"""Seconds between two times that a worker tells what it gathered, as long as its slots have something to do."""
TOLD_WITHIN = 1.0
"""Seconds after which it tells less than half of a batch, which its farmer does not need yet for the next one."""
DOUBT = 1.0
"""Seconds for which a task that died of a stop signal is not yet called failed: it may have hit all of us."""
PROBE_EVERY = 1.0
MOST_UNSENT = 8 << 20
"""Bytes that a worker keeps while its farmer is busy; with more it waits for it."""
_AT_ONCE = 1 << 20


class WorkerSetup(NamedTuple):
    """What a farmer hands to a new worker. `clock` is added to the monotonic clock to get the time."""

    places: tuple[SlotContext, ...]
    runner: Runner
    grace: float
    clock: float
    parent: int
    close: tuple[int, ...]
    unfinished: int = -1
    """The exit status of a task that is to be run again; none where it is negative."""
    leftovers: str = KEEP
    """What becomes of processes that a task leaves: a word of `--leftovers`."""


_STOPS = frozenset(int(number) for number in STOPS)


class Worker:
    """What all workers do: hear orders, gather results, hand back, end. How a task runs is for subclasses."""

    def __init__(self, job: WorkerSetup, link: socket.socket, shown: list[memoryview]) -> None:
        self.job = job
        self.clock = job.clock
        self.link = link
        self.orders = Commands()
        self.slots = {place.slot: Slot(place, view) for place, view in zip(job.places, shown, strict=True)}
        self.stopping = False
        self.quitting = False
        self.deadline = 0.0
        self.terminated = False
        self.hit = -math.inf
        self.flushed = 0.0
        self.due = 0.0  # when what was gathered is told, on the monotonic clock
        self.probed = 0.0
        self.pending = 0
        self.own = self._watch_children()
        self.tree = Tree(groups=self.groups, known=lambda: tuple(self.own or ()))
        self.leftovers = Leftovers(job.places[0].farmer, self.running_tasks, lambda: tuple(self.own or ()))
        self._unsent = bytearray()
        self._linked = True
        self._prepare()

    def _prepare(self) -> None:
        self.wakeup, written = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        signal.set_wakeup_fd(written, warn_on_full_buffer=False)
        for number in STOPS:
            signal.signal(number, self.on_hit)
        signal.signal(signal.SIGTERM, self.on_term)
        signal.pthread_sigmask(signal.SIG_SETMASK, ())
        self.poll = select.poll()
        self.poll.register(self.link, select.POLLIN)
        self.poll.register(self.wakeup, select.POLLIN)

    def on_term(self, number: int, frame: FrameType | None) -> None:
        self.terminated = True

    def on_hit(self, number: int, frame: FrameType | None) -> None:
        """A signal for our farmer, which decides; our tasks were hit, too. (Programs would inherit a SIG_IGN.)"""
        self.hit = time.monotonic()

    def hit_lately(self) -> bool:
        """Whether a stop signal for a whole job step came to us, too: what dies of it is not to blame."""
        return self.hit > 0 and time.monotonic() - self.hit < 2 * DOUBT

    def _watch_children(self) -> OwnChildren | None:
        """Note which children are made here by code of the user's, which may wait for them by itself."""
        if is_ours(self.job.runner):
            return None
        from taskfarmer.worker.ownchildren import OwnChildren  # imported already by the farmer

        own = OwnChildren()
        own.watch()
        return own

    def reap(self) -> None:
        """Take the exit status of orphans, not of children for which a runner of the user's own may wait by itself."""
        if self.own is not None:
            self.own.reap_others()
        else:
            reap()

    def run(self) -> None:
        """Work until there is nothing more to do, or no one to do it for."""
        raise NotImplementedError

    def running_tasks(self) -> dict[int, int]:
        """The IDs of the tasks that run, by the process that was started for each."""
        raise NotImplementedError

    def groups(self) -> Iterable[int]:
        """The process groups in which tasks, or what they left, may still run; none if tasks share ours."""
        return ()

    @property
    def untold(self) -> bool:
        """Whether the farmer has not got all that there is to tell."""
        return self.pending > 0 or bool(self._unsent)

    # --- orders --------------------------------------------------------------------------------

    def send(self, frame: bytes) -> None:
        """Tell the farmer, or keep for later what it does not take now: it may be writing to a slow disk."""
        self._unsent += frame
        self.push()

    def push(self, wait: bool = False) -> None:
        """Send what was kept, as much as the farmer takes now; all of it where we `wait`."""
        try:
            while self._unsent:
                patient = wait or len(self._unsent) > MOST_UNSENT
                with memoryview(self._unsent) as unsent:
                    sent = self.link.send(unsent[: 1 << 20], 0 if patient else socket.MSG_DONTWAIT)
                del self._unsent[:sent]
        except BlockingIOError:
            pass
        except OSError:
            self._unsent.clear()
            self.stop(self.job.grace)  # the farmer is gone
        if self._linked:
            self.poll.modify(self.link, select.POLLIN | (select.POLLOUT if self._unsent else 0))

    def stop(self, grace: float) -> None:
        deadline = time.monotonic() + grace
        if not self.stopping or deadline < self.deadline:
            self.deadline = deadline
        self.stopping = True

    def hear(self) -> None:
        """Take the orders that are there. Called when the pipe or a signal says so."""
        if self.terminated:
            self.terminated = False
            self.stop(self.job.grace)
        if self._unsent:
            self.push()
        try:
            os.read(self.wakeup, 512)
        except BlockingIOError:
            pass
        while self._hear_some() == _AT_ONCE:
            pass

    def _hear_some(self) -> int:
        """Take as many orders as are read at once; how many bytes that were."""
        try:
            data = self.link.recv(_AT_ONCE, socket.MSG_DONTWAIT)
        except BlockingIOError:
            return 0
        except OSError:
            data = b""
        if not data:
            self.stop(self.job.grace)
            if self._linked:  # else its end was heard before; a signal woke us this time
                self._linked = False
                self.poll.unregister(self.link)
            return 0
        for order in self.orders.feed(data):
            if order.kind == protocol.TASKS:
                lines = order.body.split(b"\n")
                lines.pop()
                slot = self.slots[order.slot]
                self.take(Batch(order.slot, order.number, order.attempt, lines, slot.place.lease))
            elif order.kind == protocol.GIVE_BACK:
                self.hand_back()
            elif order.kind == protocol.STOP:
                self.stop(order.seconds)
            elif order.kind == protocol.QUIT:
                self.quitting = True
            elif order.kind == protocol.WARN:
                self.warn(order.number)
            elif order.kind == protocol.DEADLINE:
                self.set_deadline(order.seconds)
        return len(data)

    def take(self, batch: Batch) -> None:
        """A batch for one of our slots has come."""
        self.slots[batch.slot].queue.append(batch)

    def warn(self, number: int) -> None:
        """Send a signal to the tasks that run; nothing where a runner of the user's own keeps them."""

    def set_deadline(self, deadline: float) -> None:
        """Tell the tasks to come when the farmer ends."""
        raise NotImplementedError

    def hand_back(self) -> None:
        """Tell the farmer which tasks were not begun, and forget them."""
        self.flush()
        for number, slot in self.slots.items():
            for batch, count in slot.unstarted():
                self.send(WorkerReport(protocol.UNSTARTED, number, batch, count).encode())

    # --- tasks ---------------------------------------------------------------------------------

    def next_task(self, slot: Slot) -> Task | None:
        """The next task of a slot; None if there is none.

        After a sleep others may have the tasks of our batches. They go back to the farmer, which asks the ledger.
        """
        task = slot.begin(time.monotonic() + self.clock)
        if task is None and slot.queue:
            self.hand_back()
        return task

    def not_begun(self, slot: Slot, task: Task, error: NotStarted) -> None:
        """A task could not be begun for no reason of its own: tell, and hand back everything."""
        slot.undo(task)
        self.flush()
        self.send(WorkerReport(protocol.TROUBLE, results=str(error).encode("utf-8", "replace")).encode())
        self.hand_back()

    def tell(self, task: Task, status: int, usage: Usage, at: float, interrupted: bool = False) -> None:
        """Gather what came of a task that ended `at` on the monotonic clock; tell it if it is time to.

        The tasks of a slot are told in their order; what was gathered of another batch is told first.
        """
        batch = task.batch
        slot = self.slots[batch.slot]
        recorder = slot.recorder
        if batch.number != recorder.number:
            if recorder.attempts:
                self._unsent += recorder.news(protocol.RESULTS)
            recorder.start_batch(batch.number)
        self.pending += 1
        end = at + self.clock
        if not status:  # also where the task was asked to end
            recorder.attempts.append((task, end, 0, usage, FINISHED))
        else:
            self._tell_of_failure(slot, task, status, usage, end, interrupted)
        if 2 * len(recorder.attempts) >= len(batch.tasks):
            self.due = self.flushed + FLUSH_EVERY
        if at > self.due:
            self.flush()

    def tell_interrupted(self, task: Task, status: int, usage: Usage) -> None:
        """Tell that a task is to be run again: its first process has ended, and we ended others that it waited for."""
        slot = self.slots[task.batch.slot]
        recorder = slot.recorder
        self.flush()
        if task.batch.number != recorder.number:
            recorder.start_batch(task.batch.number)
        self._tell_of_failure(slot, task, status or signal.SIGTERM, usage, time.monotonic() + self.clock, True)

    def _tell_of_failure(
        self, slot: Slot, task: Task, status: int, usage: Usage, end: float, interrupted: bool
    ) -> None:
        unfinished = self.is_unfinished(status)
        back = interrupted or unfinished or self.stopping
        slot.recorder.add_unsuccessful(task, end, status, usage, back)
        if back:
            self.send(slot.recorder.news(protocol.UNFINISHED if unfinished else protocol.INTERRUPTED))
        elif not self._has_room(slot, time.monotonic()):
            self._no_room(slot)

    def is_unfinished(self, status: int) -> bool:
        """Whether a task says by its exit status that it is to be run again."""
        return status == self.job.unfinished << 8

    def _has_room(self, slot: Slot, now: float) -> bool:
        """Whether the disk of the logs takes more; now and then by a write, so that tasks that fail cost little."""
        by_writing = now - self.probed > PROBE_EVERY
        if by_writing:
            self.probed = now
        return has_room(slot.place.logs_fd, by_writing)

    def _no_room(self, slot: Slot) -> None:
        """A task failed, and the disk is full: the next ones would fail of that, so they wait."""
        self.flush()
        text = f"{slot.place.logs}: no space left on the disk of the logs"
        self.send(WorkerReport(protocol.TROUBLE, results=text.encode("utf-8", "replace")).encode())
        self.hand_back()

    def until_flush(self) -> float:
        """Seconds until what was gathered is to be told."""
        return max(0.0, self.due - time.monotonic())

    def flush(self) -> None:
        """Tell what was gathered."""
        self.flushed = time.monotonic()
        self.due = self.flushed + TOLD_WITHIN
        if self.pending:
            self.pending = 0
            for slot in self.slots.values():
                if slot.recorder.attempts:
                    self._unsent += slot.recorder.news(protocol.RESULTS)
        if self._unsent:
            self.push()

    # --- processes of ended tasks --------------------------------------------------------------

    def look_for_leftovers(self, last: bool = False) -> None:
        """Tell the farmer which tasks left processes, if it is time to look for some."""
        now = time.monotonic()
        if self.job.leftovers == KEEP and (last or now >= self.leftovers.next_look):
            found = self.leftovers.look(now, last)
            if found:
                text = "\n".join(f"{task} {count}" for task, count in found.items())
                self.send(WorkerReport(protocol.LEFTOVERS, results=text.encode()).encode())

    def has_left(self) -> bool:
        """Whether processes run below us that a task has left, in a worker that serves one slot."""
        self.reap()
        return bool(set(self.tree.living()) - self.tree.stuck) or self.tree.has_hidden()

    def until_look(self) -> float | None:
        """Seconds until it is time to look for leftovers; None if there is nothing to look for."""
        return self.leftovers.patience(time.monotonic()) if self.job.leftovers == KEEP else None

    def end_all(self) -> None:
        """Tell the last news, and end what is left below us."""
        self.flush()
        self.hand_back()
        if not self.stopping:
            end = time.monotonic() + MOMENT
            while not self.stopping and self.tree.living() and time.monotonic() < end:
                self.nap(0.01)
            self.look_for_leftovers(last=True)
        self.end_tree(self.deadline if self.stopping else time.monotonic() + self.job.grace)
        self.push(wait=True)

    def end_tree(self, grace_until: float, look: Callable[[], Collection[int]] = frozenset) -> None:
        """End all processes below us, and tell which would not end; see `Tree.end`."""
        stuck = self.tree.end(grace_until, nap=self.nap, look=look)
        if stuck:
            self.send(WorkerReport(protocol.SURVIVOR, results=" ".join(map(str, stuck)).encode()).encode())

    def nap(self, seconds: float) -> float | None:
        """Sleep, but hear a second, shorter STOP: when the grace time is over, or None where no end was set."""
        if self.poll.poll(seconds * 1000):
            self.hear()
        return self.deadline if self.stopping else None


def died_of(status: int) -> int:
    """The signal that a task, or the last command of its shell, died of by a wait status; 0 or less for none."""
    return os.WTERMSIG(status) if os.WIFSIGNALED(status) else (status >> 8) - 128


def of_stop_signal(status: int) -> bool:
    """Whether a task died of a signal that stops farmers."""
    return died_of(status) in _STOPS
