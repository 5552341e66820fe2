"""A worker: takes lines of tasks from its farmer, runs one at a time in each of its slots, tells what came of each.

States: idle (waits for orders), running (waits for processes and for orders), stopping (the running tasks
are being ended, everything else was handed back), gone. A worker that is killed leaves its tasks to the
farmer, which adopts their processes and ends them; a worker whose farmer is gone ends its tasks and
records nothing, since nobody is left to commit it.
"""

from __future__ import annotations

import os
import select
import signal
import socket
import time
from dataclasses import dataclass
from types import FrameType

from taskfarmer import durable
from taskfarmer.pool import wire
from taskfarmer.pool.attempt import NotStarted, Place
from taskfarmer.pool.processes import end_descendants
from taskfarmer.pool.slot import Batch, Slot, Task
from taskfarmer.pool.wire import News, Orders
from taskfarmer.runners.base import Runner

FLUSH_EVERY = 0.1


@dataclass(frozen=True)
class Job:
    """What a farmer hands to a new worker. `clock` is added to the monotonic clock to get the time."""

    places: tuple[Place, ...]
    runner: Runner
    grace: float
    clock: float
    parent: int
    close: tuple[int, ...]


class Worker:
    """What all workers do: hear orders, gather results, hand back, end. How a task runs is for subclasses."""

    def __init__(self, job: Job, link: socket.socket, shown: list[memoryview]) -> None:
        self.job = job
        self.link = link
        self.orders = Orders()
        self.slots = {place.slot: Slot(place, view) for place, view in zip(job.places, shown, strict=True)}
        self.stopping = False
        self.quitting = False
        self.deadline = 0.0
        self.terminated = False
        self.flushed = 0.0
        self.pending = 0
        self._prepare()

    def _prepare(self) -> None:
        self.wakeup, written = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        signal.set_wakeup_fd(written, warn_on_full_buffer=False)
        for number in (signal.SIGINT, signal.SIGUSR1, signal.SIGHUP):
            signal.signal(number, _ignore)
        signal.signal(signal.SIGTERM, self.on_term)
        signal.pthread_sigmask(signal.SIG_SETMASK, ())
        self.poll = select.poll()
        self.poll.register(self.link, select.POLLIN)
        self.poll.register(self.wakeup, select.POLLIN)

    def on_term(self, number: int, frame: FrameType | None) -> None:
        self.terminated = True

    def run(self) -> None:
        """Work until there is nothing more to do, or no one to do it for."""
        raise NotImplementedError

    # --- orders --------------------------------------------------------------------------------

    def send(self, frame: bytes) -> None:
        try:
            self.link.sendall(frame)
        except OSError:
            self.stop(self.job.grace)  # the farmer is gone

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
        try:
            os.read(self.wakeup, 512)
        except BlockingIOError:
            pass
        try:
            data = self.link.recv(1 << 20, socket.MSG_DONTWAIT)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self.stop(self.job.grace)
            try:
                self.poll.unregister(self.link)
            except KeyError:
                pass  # its end was heard before; a signal woke us this time
            return
        for order in self.orders.feed(data):
            if order.kind == wire.TASKS:
                lines = order.body.split(b"\n")
                lines.pop()
                self.slots[order.slot].queue.append(Batch(order.number, order.attempt, lines))
            elif order.kind == wire.GIVE_BACK:
                self.hand_back()
            elif order.kind == wire.STOP:
                self.stop(order.seconds)
            elif order.kind == wire.QUIT:
                self.quitting = True

    def hand_back(self) -> None:
        """Tell the farmer which tasks were not begun, and forget them."""
        self.flush()
        for number, slot in self.slots.items():
            for batch, count in slot.unstarted():
                self.send(News(wire.UNSTARTED, number, batch, count).encode())

    # --- tasks ---------------------------------------------------------------------------------

    def begin(self, slot: Slot) -> Task | None:
        """The next task of a slot, shown as running; what was gathered for another batch is told first."""
        batch = slot.following()
        if batch is None:
            return None
        if batch.number != slot.recorder.number:
            if slot.recorder.count:
                self.send(slot.recorder.news(wire.RESULTS, 0))
            slot.recorder.start_batch(batch.number)
        return slot.begin(batch, time.monotonic() + self.job.clock)

    def not_begun(self, slot: Slot, task: Task, error: NotStarted) -> None:
        """A task could not be begun for no reason of its own: tell, and hand back everything."""
        slot.undo(task)
        self.flush()
        self.send(News(wire.TROUBLE, results=str(error).encode("utf-8", "replace")).encode())
        self.hand_back()

    def end(self, slot: Slot, task: Task, status: int, usage: tuple[float, float, int]) -> None:
        """Gather what came of a task, and tell it if it was a while ago that we told anything."""
        now = time.monotonic()
        self.pending += 1
        if slot.end(task, now + self.job.clock, status, usage, self.stopping):
            self.send(slot.recorder.news(wire.INTERRUPTED, slot.recorder.number))
        elif status and not durable.has_room(slot.place.logs_fd):
            self._no_room(slot)
        elif now - self.flushed > FLUSH_EVERY:
            self.flush()

    def _no_room(self, slot: Slot) -> None:
        """A task failed, and the disk is full: the next ones would fail of that, so they wait."""
        self.flush()
        text = f"{slot.place.logs}: no space left on the disk of the logs"
        self.send(News(wire.TROUBLE, results=text.encode("utf-8", "replace")).encode())
        self.hand_back()

    def flush(self) -> None:
        self.flushed = time.monotonic()
        if self.pending:
            self.pending = 0
            for slot in self.slots.values():
                if slot.recorder.count:
                    self.send(slot.recorder.news(wire.RESULTS, slot.recorder.number))

    def end_all(self) -> None:
        """Tell the last news, and end what is left below us."""
        self.flush()
        self.hand_back()
        deadline = self.deadline if self.stopping else time.monotonic() + self.job.grace
        survivors = end_descendants(deadline, nap=self.nap)
        if survivors:
            self.tell_survivors(survivors)

    def tell_survivors(self, pids: list[int]) -> None:
        self.send(News(wire.SURVIVOR, results=" ".join(map(str, pids)).encode()).encode())

    def nap(self, seconds: float) -> float | None:
        """Sleep, but hear a second, shorter STOP: when the grace time is over, or None where no end was set."""
        if self.poll.poll(seconds * 1000):
            self.hear()
        return self.deadline if self.stopping else None


def _ignore(number: int, frame: FrameType | None) -> None:
    """Not SIG_IGN, which the programs that a runner of the user's own starts would inherit."""
