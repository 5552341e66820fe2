"""The processes of a farmer's workers: start them when there are tasks for them, send them commands, stop them."""

from __future__ import annotations

import mmap
import os
import select
import signal
import socket
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress

from taskfarmer import protocol, signals
from taskfarmer.pool.deaths import START_PAUSE, Deaths
from taskfarmer.pool.handles import SlotHandle, WorkerHandle, slots_per_worker
from taskfarmer.proctree import STUCK_AFTER, send
from taskfarmer.protocol import Command
from taskfarmer.runners.base import Runner, is_ours, runs_programs
from taskfarmer.worker.context import SlotContext
from taskfarmer.worker.leftovers import KEEP
from taskfarmer.worker.main import WorkerProcess, run_worker, worker_class
from taskfarmer.worker.slot import GROUP, SHOWN, STRIDE
from taskfarmer.worker.worker import WorkerSetup

UNRESPONSIVE = 2.0
"""Seconds after which a worker is killed that has closed its socket and does not exit."""
_RETRY_AFTER = 60.0
_FREE_DESCRIPTORS = 10
"""Descriptors that must be free before a worker is started. Its socket and pipes take three of them; the farmer needs
the others for the lock, the ledger and the views."""


class WorkerProcesses:
    """`start_after` is when the next worker may be started; `trouble` is why the last start failed.

    `workers` has the descriptors of their sockets as keys. `attentive` is whether workers read commands while a task
    runs: those of custom runners do not.
    """

    def __init__(
        self,
        slots: int,
        slot_context: Callable[[int], SlotContext],
        runner: Runner,
        grace: float,
        wakeup: int,
        unfinished: int = -1,
        leftovers: str = KEEP,
    ) -> None:
        self.slots = slots
        self.slot_context = slot_context
        self.runner = runner
        self.grace = grace
        self.unfinished = unfinished
        self.leftovers = leftovers
        self.clock = time.time() - time.monotonic()
        self.workers: dict[int, WorkerHandle] = {}
        self.stopping = False
        self.out_of_time = False
        self.start_after = 0.0
        self.trouble: str | None = None
        self.warned = False  # the tasks have got the signal of --warn-signal, and may end because of it
        self.deaths = Deaths()
        self._worker_class = worker_class(runner)
        self.attentive = runs_programs(runner)
        self._wakeup = wakeup
        self._kill_after = 0.0
        self._old_groups: set[int] = set()  # process groups of tasks of earlier workers
        self._slots: dict[int, SlotHandle] = {}  # those that have a worker
        self._ready: set[int] = set()
        # a worker that serves one slot knows that all orphans belong to the task of this slot
        self._to_start = deque(slots_per_worker(slots, is_ours(runner) and leftovers == KEEP))
        self._shared = memoryview(mmap.mmap(-1, STRIDE * slots))
        self._poll = select.poll()
        self._poll.register(wakeup, select.POLLIN)

    def ensure_workers(self, wanted: int) -> None:
        """Start workers, as long as fewer than `wanted` slots have one: a short list needs few."""
        while self._to_start and len(self._slots) < wanted and time.monotonic() >= self.start_after:
            try:
                self._start(self._to_start[0])
            except OSError as error:
                self.start_after = time.monotonic() + (_RETRY_AFTER if self.workers else START_PAUSE)
                self.trouble = f"cannot start a worker: {error.strerror}; use a smaller -n, or raise `ulimit`"
                return
            self._to_start.popleft()

    def _view(self, slot: int) -> memoryview:
        return self._shared[slot * STRIDE : (slot + 1) * STRIDE]

    def _start(self, slots: Sequence[int]) -> None:
        free = _free_descriptors(self._wakeup)
        ours, theirs = socket.socketpair()
        others = (fd for worker in self.workers.values() for fd in (worker.link.fileno(), worker.process.sentinel))
        setup = WorkerSetup(
            contexts=tuple(self.slot_context(slot) for slot in slots),
            runner=self.runner,
            grace=self.grace,
            clock=self.clock,
            parent=os.getpid(),
            close=(ours.fileno(), self._wakeup, *others),
            unfinished=self.unfinished,
            leftovers=self.leftovers,
        )
        views = [self._view(slot) for slot in slots]
        for view in views:
            SHOWN.pack_into(view, 0, 0, 0, 0.0)
            self._old_groups.update(GROUP.unpack_from(view, SHOWN.size))
            GROUP.pack_into(view, SHOWN.size, 0)
        signals.hold()  # the child must not run the farmer's handlers
        try:
            process = WorkerProcess(target=run_worker, args=(self._worker_class, setup, theirs, views))
            process.start()
        except OSError:
            ours.close()
            _close_pipes(free, theirs.fileno())
            raise
        finally:
            signals.release()
            theirs.close()
        ours.setblocking(False)
        worker = WorkerHandle(slots, process, ours)
        self.workers[ours.fileno()] = worker
        self._slots.update(worker.slots)
        self._ready.update(slots)
        self._watch(worker)

    def _replace(self, worker: WorkerHandle, died: bool) -> None:
        """Let another worker serve its slots; after a pause if it `died` soon after its start or if all workers die."""
        self._to_start.appendleft(range(min(worker.slots), max(worker.slots) + 1))
        if died:
            start = time.monotonic() if self.deaths.alike else worker.started
            self.start_after = max(self.start_after, start + self.deaths.pause)

    def running(self) -> list[list[int]]:
        """`[slot, task ID, attempt]` of each task that runs now, as the workers show it."""
        found = []
        for slot in range(self.slots):
            task, attempt, _ = SHOWN.unpack_from(self._shared, slot * STRIDE)
            if task > 0:
                found.append([slot, task - 1, attempt])
        return found

    def _groups(self) -> list[int]:
        """The last process group of each slot, in which orphans of a killed worker are."""
        found = [GROUP.unpack_from(self._view(slot), SHOWN.size)[0] for slot in range(self.slots)]
        return [group for group in (*found, *self._old_groups) if group > 0]

    def _send(self, worker: WorkerHandle, command: Command) -> None:
        worker.unsent += command.encode()
        self._push(worker)

    def _push(self, worker: WorkerHandle) -> None:
        """Send as much as the socket takes now. If the worker waits for the farmer, a blocking call would deadlock."""
        try:
            while worker.unsent:
                sent = worker.link.send(worker.unsent)
                del worker.unsent[:sent]
        except BlockingIOError:
            pass
        except OSError:
            worker.unsent.clear()  # the worker is dead, which `wait` finds out from the end of file
        if worker.suspect is None:
            self._watch(worker)

    def _watch(self, worker: WorkerHandle) -> None:
        """Let `wait` read reports of a worker, and send it more when its socket takes more."""
        self._poll.register(worker.link, select.POLLIN | (select.POLLOUT if worker.unsent else 0))

    def broadcast(self, command: Command) -> None:
        """Send a command to all workers."""
        if command.kind == protocol.WARN:
            self.warned = True
        for worker in self.workers.values():
            self._send(worker, command)

    def stop(self, grace: float, out_of_time: bool = False) -> None:
        """Stop all tasks: SIGTERM, `grace` seconds, SIGKILL. Call `wait` until `workers` is empty."""
        self.out_of_time = out_of_time
        kill_after = time.monotonic() + grace + STUCK_AFTER + UNRESPONSIVE
        self._kill_after = min(kill_after, self._kill_after) if self.stopping else kill_after
        self.stopping = True
        for worker in list(self.workers.values()):
            self._send(worker, Command(protocol.STOP, seconds=grace))
            send(worker.pid, signal.SIGTERM)  # a custom runner reads no commands during its task
            send(worker.pid, signal.SIGCONT)
            if not grace and not self.attentive:
                send(worker.pid, signals.END_NOW)

    def quit(self) -> None:
        """Let idle workers exit."""
        self.stopping = True
        self._kill_after = time.monotonic() + self.grace + STUCK_AFTER + UNRESPONSIVE
        for worker in list(self.workers.values()):
            self._send(worker, Command(protocol.QUIT))
            send(worker.pid, signal.SIGCONT)

    def _pids(self) -> Iterable[int]:
        return (worker.pid for worker in self.workers.values())


def _free_descriptors(fd: int) -> list[int]:
    """The next free descriptors, found with copies of `fd`; OSError if too few are free."""
    free: list[int] = []
    try:
        free += (os.dup(fd) for _ in range(_FREE_DESCRIPTORS))
    finally:
        for one in free:
            os.close(one)
    return free


def _close_pipes(free: Sequence[int], link: int) -> None:
    """Close the pipes that `multiprocessing` leaves open if `fork` fails: they are among those that were `free`."""
    for fd in free:
        if fd != link:
            with suppress(OSError):
                os.close(fd)
