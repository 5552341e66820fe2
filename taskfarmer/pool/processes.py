"""A farmer's workers as processes: started where there is work for them, spoken to, told to end."""

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
_NEXT_TRY = 60.0
_SPARE = 10
"""Descriptors that a farmer keeps for the lock, the ledger and the views, however many workers it could have."""


class WorkerProcesses:
    """`start_after` is when the next worker may be started; `trouble` why the last one could not be.

    `attentive` says whether workers hear orders while a task runs: not where a runner of the user's own has them.
    """

    def __init__(
        self,
        slots: int,
        place: Callable[[int], SlotContext],
        runner: Runner,
        grace: float,
        wakeup: int,
        unfinished: int = -1,
        leftovers: str = KEEP,
    ) -> None:
        self.slots = slots
        self.place = place
        self.runner = runner
        self.grace = grace
        self.unfinished = unfinished
        self.leftovers = leftovers
        self.clock = time.time() - time.monotonic()
        self.members: dict[int, WorkerHandle] = {}
        self.stopping = False
        self.out_of_time = False
        self.start_after = 0.0
        self.trouble: str | None = None
        self.warned = False  # tasks were sent a signal that is to end them
        self.deaths = Deaths()
        self._kind = worker_class(runner)
        self.attentive = runs_programs(runner)
        self._wakeup = wakeup
        self._stop_by = 0.0
        self._old_groups: set[int] = set()  # of workers before those that there are
        self._seats: dict[int, SlotHandle] = {}
        self._ready: set[int] = set()
        # orphans of a worker that serves one slot are that slot's
        self._teams = deque(slots_per_worker(slots, is_ours(runner) and leftovers == KEEP))
        self._shared = memoryview(mmap.mmap(-1, STRIDE * slots))
        self._poll = select.poll()
        self._poll.register(wakeup, select.POLLIN)

    def ensure_workers(self, wanted: int) -> None:
        """Start workers, as long as fewer than `wanted` slots have one; a short list needs few."""
        while self._teams and len(self._seats) < wanted and time.monotonic() >= self.start_after:
            try:
                self._start(self._teams[0])
            except OSError as error:
                self.start_after = time.monotonic() + (_NEXT_TRY if self.members else START_PAUSE)
                self.trouble = f"no worker could be started: {error.strerror}; give fewer with -n, or raise `ulimit`"
                return
            self._teams.popleft()

    def _view(self, slot: int) -> memoryview:
        return self._shared[slot * STRIDE : (slot + 1) * STRIDE]

    def _start(self, slots: Sequence[int]) -> None:
        free = _free_descriptors(self._wakeup)
        ours, theirs = socket.socketpair()
        others = (fd for member in self.members.values() for fd in (member.link.fileno(), member.process.sentinel))
        close = (ours.fileno(), self._wakeup, *others)
        places = tuple(self.place(slot) for slot in slots)
        job = WorkerSetup(
            places, self.runner, self.grace, self.clock, os.getpid(), close, self.unfinished, self.leftovers
        )
        views = [self._view(slot) for slot in slots]
        for view in views:
            SHOWN.pack_into(view, 0, 0, 0, 0.0)
            self._old_groups.update(GROUP.unpack_from(view, SHOWN.size))
            GROUP.pack_into(view, SHOWN.size, 0)
        signals.hold()  # the child must not run our handlers before it has its own
        try:
            process = WorkerProcess(target=run_worker, args=(self._kind, job, theirs, views))
            process.start()
        except OSError:
            ours.close()
            _close_pipes(free, theirs.fileno())
            raise
        finally:
            signals.release()
            theirs.close()
        ours.setblocking(False)
        member = WorkerHandle(slots, process, ours)
        self.members[ours.fileno()] = member
        self._seats.update(member.seats)
        self._ready.update(slots)
        self._watch(member)

    def _replace(self, member: WorkerHandle) -> None:
        """Its slots get another worker, after a pause if this one ended soon, or if all of them end."""
        self._teams.appendleft(range(min(member.seats), max(member.seats) + 1))
        begin = time.monotonic() if self.deaths.alike else member.started
        self.start_after = max(self.start_after, begin + self.deaths.pause)

    def running(self) -> list[list[int]]:
        """`[slot, task ID, attempt]` of what runs now, as the workers show it."""
        found = []
        for slot in range(self.slots):
            task, attempt, _ = SHOWN.unpack_from(self._shared, slot * STRIDE)
            if task > 0:
                found.append([slot, task - 1, attempt])
        return found

    def _groups(self) -> list[int]:
        """The process groups of tasks as the workers showed them last; orphans of a killed worker are in them."""
        found = [GROUP.unpack_from(self._view(slot), SHOWN.size)[0] for slot in range(self.slots)]
        return [group for group in (*found, *self._old_groups) if group > 0]

    def _send(self, member: WorkerHandle, order: Command) -> None:
        member.out += order.encode()
        self._push(member)

    def _push(self, member: WorkerHandle) -> None:
        """Send what the pipe takes now. Waiting for a worker that waits for us would be for ever."""
        try:
            while member.out:
                sent = member.link.send(member.out)
                del member.out[:sent]
        except BlockingIOError:
            pass
        except OSError:
            member.out.clear()  # it is dead: its end of file tells the rest
        if member.doubted is None:
            self._watch(member)

    def _watch(self, member: WorkerHandle) -> None:
        """Let `wait` see what comes from a worker, and when it takes what waits for it."""
        self._poll.register(member.link, select.POLLIN | (select.POLLOUT if member.out else 0))

    def tell(self, order: Command) -> None:
        """Give the same order to all workers."""
        if order.kind == protocol.WARN:
            self.warned = True
        for member in self.members.values():
            self._send(member, order)

    def stop(self, grace: float, out_of_time: bool = False) -> None:
        """End all tasks: each gets SIGTERM, `grace` seconds, SIGKILL. `wait` until `members` is empty."""
        self.out_of_time = out_of_time
        by = time.monotonic() + grace + STUCK_AFTER + UNRESPONSIVE
        self._stop_by = min(by, self._stop_by) if self.stopping else by
        self.stopping = True
        for member in list(self.members.values()):
            self._send(member, Command(protocol.STOP, seconds=grace))
            send(member.pid, signal.SIGTERM)  # a runner of the user's own hears nothing else
            send(member.pid, signal.SIGCONT)
            if not grace and not self.attentive:
                send(member.pid, signals.END_NOW)

    def quit(self) -> None:
        """Let idle workers go."""
        self.stopping = True
        self._stop_by = time.monotonic() + self.grace + STUCK_AFTER + UNRESPONSIVE
        for member in list(self.members.values()):
            self._send(member, Command(protocol.QUIT))
            send(member.pid, signal.SIGCONT)

    def _pids(self) -> Iterable[int]:
        return (member.pid for member in self.members.values())


def _free_descriptors(fd: int) -> list[int]:
    """The next free descriptors, by copies of `fd`; OSError if too few are free to start another worker."""
    free: list[int] = []
    try:
        free += (os.dup(fd) for _ in range(_SPARE))
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
