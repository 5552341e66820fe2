"""A worker: takes lines of tasks from its farmer, runs one at a time, tells what came of each.

States: idle (waits for orders), running (waits for the process and for orders), stopping (the running
task is being ended, everything else was handed back), gone. A worker that is killed leaves its task to
the farmer, which adopts the process and ends it; a worker whose farmer is gone ends its task and
records nothing, since nobody is left to commit it.
"""

from __future__ import annotations

import gc
import os
import resource
import select
import signal
import socket
import struct
import time
from collections import deque
from dataclasses import dataclass
from types import FrameType
from typing import Any

from taskfarmer.model import parse_task
from taskfarmer.pool import wire
from taskfarmer.pool.attempt import NotStarted, Place, Started, Starter
from taskfarmer.pool.plugin import PluginTask
from taskfarmer.pool.processes import adopt_orphans, descendants, die_with, end_descendants, reap, terminate
from taskfarmer.pool.records import Recorder
from taskfarmer.pool.wire import News, Orders
from taskfarmer.runners.base import CommandRunner, Runner
from taskfarmer.trace import farmer_number

SLOT = struct.Struct("<qid")
"""What a slot shows to its farmer while a task runs: ID + 1 (0: nothing), attempt, start."""
FLUSH_AFTER = 0.02
FLUSH_EVERY = 0.1
_NO_PIDFD_PAUSE = 0.01


@dataclass(frozen=True)
class Job:
    """What a farmer hands to a new worker. `clock` is added to the monotonic clock to get the time."""

    place: Place
    runner: Runner
    grace: float
    clock: float
    parent: int
    close: tuple[int, ...]


@dataclass
class Batch:
    number: int
    attempt: int
    lines: list[bytes]
    next: int = 0


class Worker:
    def __init__(self, job: Job, link: socket.socket, slots: memoryview) -> None:
        self.job = job
        self.link = link
        self.orders = Orders()
        self.queue: deque[Batch] = deque()
        self.recorder = Recorder(farmer_number(job.place.farmer), job.place.slot)
        self.slots = slots
        self.stopping = False
        self.quitting = False
        self.deadline = 0.0
        self.terminated = False
        self.flushed = 0.0
        self.plugin: PluginTask | None = None
        if isinstance(job.runner, CommandRunner) and type(job.runner).run is CommandRunner.run:
            self.starter: Starter | None = Starter(job.place, job.runner)
        else:
            self.starter = None
            self.plugin = PluginTask(job.place, job.runner)
        self._prepare()

    def _prepare(self) -> None:
        self.wakeup, written = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        signal.set_wakeup_fd(written, warn_on_full_buffer=False)
        for number in (signal.SIGINT, signal.SIGUSR1, signal.SIGHUP):
            signal.signal(number, _ignore)
        signal.signal(signal.SIGTERM, self._on_term)
        signal.pthread_sigmask(signal.SIG_SETMASK, ())
        self.poll = select.poll()
        self.poll.register(self.link, select.POLLIN)
        self.poll.register(self.wakeup, select.POLLIN)

    def _on_term(self, number: int, frame: FrameType | None) -> None:
        self.terminated = True
        if self.plugin is not None:
            self.plugin.terminate()

    # --- orders --------------------------------------------------------------------------------

    def send(self, frame: bytes) -> None:
        try:
            self.link.sendall(frame)
        except OSError:
            self._stop(self.job.grace)  # the farmer is gone

    def _stop(self, grace: float) -> None:
        deadline = time.monotonic() + grace
        if not self.stopping or deadline < self.deadline:
            self.deadline = deadline
        self.stopping = True

    def hear(self) -> None:
        """Take the orders that are there. Called when the pipe or a signal says so."""
        if self.terminated:
            self.terminated = False
            self._stop(self.job.grace)
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
            self._stop(self.job.grace)
            try:
                self.poll.unregister(self.link)
            except KeyError:
                pass  # its end was heard before; a signal woke us this time
            return
        for order in self.orders.feed(data):
            if order.kind == wire.TASKS:
                lines = order.body.split(b"\n")
                lines.pop()
                self.queue.append(Batch(order.number, order.attempt, lines))
            elif order.kind == wire.GIVE_BACK:
                self._hand_back()
            elif order.kind == wire.STOP:
                self._stop(order.seconds)
            elif order.kind == wire.QUIT:
                self.quitting = True

    def _hand_back(self) -> None:
        """Tell the farmer which tasks were not begun, and forget them."""
        self.flush()
        for batch in self.queue:
            rest = len(batch.lines) - batch.next
            if rest:
                self.send(News(wire.UNSTARTED, batch.number, rest).encode())
                del batch.lines[batch.next :]
        self.queue.clear()

    # --- tasks ---------------------------------------------------------------------------------

    def run(self) -> None:
        """Work until there is nothing more to do, or no one to do it for."""
        while not self.stopping:
            if not self.queue:
                if self.quitting:
                    break
                self.flush()
                reap()
                self.poll.poll()
                self.hear()
                continue
            batch = self.queue[0]
            if batch.next >= len(batch.lines):
                self.queue.popleft()
                continue
            if batch.number != self.recorder.number:
                self.flush()
                self.recorder.start_batch(batch.number)
            line = batch.lines[batch.next]
            batch.next += 1
            try:
                self._task(batch, line)
            except NotStarted as error:
                batch.next -= 1
                self.flush()
                self.send(News(wire.TROUBLE, results=str(error).encode("utf-8", "replace")).encode())
                self._hand_back()
        self._end()

    def _end(self) -> None:
        self.flush()
        self._hand_back()
        deadline = self.deadline if self.stopping else time.monotonic() + self.job.grace
        survivors = end_descendants(deadline, nap=self._nap)
        if survivors:
            text = " ".join(map(str, survivors))
            self.send(News(wire.SURVIVOR, results=text.encode()).encode())

    def _task(self, batch: Batch, line: bytes) -> None:
        task_id, command = parse_task(line)
        begin = time.monotonic()
        start = begin + self.job.clock
        SLOT.pack_into(self.slots, 0, task_id + 1, batch.attempt, start)
        try:
            status, usage = self._execute(task_id, batch.attempt, command)
        finally:
            SLOT.pack_into(self.slots, 0, 0, 0, 0.0)
        now = time.monotonic()
        interrupted = self.stopping
        back = self.recorder.add(
            line + b"\n", task_id, batch.attempt, command, start, now + self.job.clock, status, usage, interrupted
        )
        if back:
            self.send(self.recorder.news(wire.INTERRUPTED, batch.number))
        elif now - self.flushed > FLUSH_EVERY:
            self.flush()

    def _execute(self, task_id: int, attempt: int, command: bytes) -> tuple[int, tuple[float, float, int]]:
        """Wait status and (user seconds, system seconds, peak kilobytes) of a task."""
        text = os.fsdecode(command)
        if self.plugin is not None:
            before = resource.getrusage(resource.RUSAGE_CHILDREN)
            status = self.plugin.run(task_id, attempt, text)
            self.hear()
            after = resource.getrusage(resource.RUSAGE_CHILDREN)
            if self.stopping:
                end_descendants(self.deadline, nap=self._nap)
            return status, (after.ru_utime - before.ru_utime, after.ru_stime - before.ru_stime, after.ru_maxrss)
        assert self.starter is not None
        started = self.starter.start(task_id, attempt, text)
        try:
            if isinstance(started, int):
                return started << 8, (0.0, 0.0, 0)
            status, usage = self._wait(started)
            return status, (usage.ru_utime, usage.ru_stime, usage.ru_maxrss)
        finally:
            self.starter.runner.cleanup(task_id)

    def _wait(self, started: Started) -> tuple[int, Any]:
        """Wait for a task, with an ear for orders; end its tree when told to stop."""
        fd = started.fd
        poll = self.poll
        if fd >= 0:
            poll.register(fd, select.POLLIN)
        try:
            timeout = FLUSH_AFTER * 1000 if self.recorder.count else None
            while not self.stopping:
                ready = poll.poll(timeout if fd >= 0 else _NO_PIDFD_PAUSE * 1000)
                if fd < 0 or any(number == fd for number, _ in ready):
                    ended = started.ended(wait=fd >= 0)
                    if ended is not None:
                        return ended
                if not ready:
                    self.flush()
                    timeout = None
                elif len(ready) > 1 or ready[0][0] != fd:
                    self.hear()
        finally:
            if fd >= 0:
                poll.unregister(fd)
        return self._interrupt(started)

    def _interrupt(self, started: Started) -> tuple[int, Any]:
        """End a running task: SIGTERM to its tree, the grace time, SIGKILL; and no survivor."""
        self._hand_back()
        ended = None
        asked: set[int] = set()
        pause = 0.002
        while ended is None and time.monotonic() < self.deadline:
            tree = [pid for pid in descendants(os.getpid()) if pid not in asked]
            terminate(tree)
            asked.update(tree)
            ended = started.ended(wait=False)
            if ended is None:
                self._nap(pause)
                pause = min(pause * 2, 0.05)
        while ended is None:
            for pid in descendants(os.getpid()):
                try:
                    os.kill(pid, signal.SIGKILL)
                except ProcessLookupError:
                    pass
            ended = started.ended(wait=False)
            if ended is None:
                time.sleep(0.005)
                if time.monotonic() > self.deadline + 5.0:
                    self.send(News(wire.SURVIVOR, results=str(started.pid).encode()).encode())
                    os._exit(1)  # the kernel will not let go of it: the farmer gives the task back, and says so
        end_descendants(self.deadline, nap=self._nap)
        return ended

    def _nap(self, seconds: float) -> float | None:
        """Sleep, but hear a second, shorter STOP: when the grace time is over, or None where no end was set."""
        if self.poll.poll(seconds * 1000):
            self.hear()
        return self.deadline if self.stopping else None

    def flush(self) -> None:
        self.flushed = time.monotonic()
        if self.recorder.count:
            self.send(self.recorder.news(wire.RESULTS, self.recorder.number))


def _ignore(number: int, frame: FrameType | None) -> None:
    """Not SIG_IGN, which the programs that a runner of the user's own starts would inherit."""


def work(job: Job, link: socket.socket, slots: memoryview) -> None:
    """The life of a worker process, from the fork on."""
    gc.freeze()
    for fd in job.close:
        try:
            os.close(fd)
        except OSError:
            pass
    os.setsid()
    adopt_orphans()
    worker = Worker(job, link, slots)
    die_with(job.parent)
    worker.run()
    link.close()
