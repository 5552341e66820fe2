"""A farmer's side of its workers: starts them, feeds them, hears from them, replaces the dead, ends all.

Owns the processes. A task that a farmer holds is in `queue` (not handed out) or in a batch of one
worker; a batch's tasks are run in their order, so how far it has come is one number. Whatever a worker
does, each task of its batches leaves exactly once: as done, as returned, or back into the queue.
"""

from __future__ import annotations

import mmap
import multiprocessing
import os
import select
import signal
import socket
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress

from taskfarmer import signals
from taskfarmer.model import RETURNED, Interval, joined, parse_task, result_line
from taskfarmer.pool import wire
from taskfarmer.pool.attempt import Place
from taskfarmer.pool.life import work
from taskfarmer.pool.member import Batch, Happened, Member, Seat, Stock, teams
from taskfarmer.pool.processes import STUCK_AFTER, adopt_orphans, descendants, end_descendants, reap, send
from taskfarmer.pool.slot import SHOWN
from taskfarmer.pool.wire import News, Order
from taskfarmer.pool.worker import Job
from taskfarmer.runners.base import Runner
from taskfarmer.trace import farmer_number, time_slice

_STRIDE = 64
_UNRESPONSIVE = 2.0
SIGKILLED = 9


class Pool:
    def __init__(
        self,
        slots: int,
        place: Callable[[int], Place],
        runner: Runner,
        grace: float,
        wakeup: int,
        unfinished: int = -1,
    ) -> None:
        self.slots = slots
        self.place = place
        self.runner = runner
        self.grace = grace
        self.unfinished = unfinished
        self.clock = time.time() - time.monotonic()
        self.queue: deque[Stock] = deque()
        self.queued = 0
        self.batch_size = 1
        self.members: dict[int, Member] = {}
        self.stopping = False
        self.out_of_time = False
        self._wakeup = wakeup
        self._stop_by = 0.0
        self._next_batch = 0
        self._seats: dict[int, Seat] = {}
        self._hungry: set[int] = set()
        self._stuck: set[int] = set()
        self._teams = deque(teams(slots, runner))
        self._context = multiprocessing.get_context("fork")
        self._shared = memoryview(mmap.mmap(-1, _STRIDE * slots))
        self._poll = select.poll()
        self._poll.register(wakeup, select.POLLIN)
        adopt_orphans()

    # --- members -------------------------------------------------------------------------------

    def _staff(self) -> None:
        """Start workers for the tasks that are there; a short list needs few."""
        while self._teams and len(self._seats) < self.busy + self.queued:
            self._start(self._teams.popleft())

    def _view(self, slot: int) -> memoryview:
        return self._shared[slot * _STRIDE : (slot + 1) * _STRIDE]

    def _start(self, slots: Sequence[int]) -> None:
        ours, theirs = socket.socketpair()
        close = (ours.fileno(), self._wakeup, *(member.link.fileno() for member in self.members.values()))
        places = tuple(self.place(slot) for slot in slots)
        job = Job(places, self.runner, self.grace, self.clock, os.getpid(), close, self.unfinished)
        views = [self._view(slot) for slot in slots]
        for view in views:
            SHOWN.pack_into(view, 0, 0, 0, 0.0)
        process = self._context.Process(target=work, args=(job, theirs, views), name=f"slots {slots[0]}-{slots[-1]}")
        signals.hold()  # the child must not run our handlers before it has its own
        try:
            process.start()
        finally:
            signals.release()
        theirs.close()
        ours.setblocking(False)
        member = Member(slots, process, ours)
        self.members[ours.fileno()] = member
        self._seats.update(member.seats)
        self._hungry.update(slots)
        self._poll.register(ours, select.POLLIN)

    @property
    def outstanding(self) -> int:
        """Tasks that are with workers."""
        return sum(seat.outstanding for seat in self._seats.values())

    @property
    def idle(self) -> int:
        """Slots without a task, whether their workers were started yet or not."""
        return self.slots - self.busy

    @property
    def busy(self) -> int:
        return sum(seat.outstanding > 0 for seat in self._seats.values())

    def running(self) -> list[list[int]]:
        """`[slot, task ID, attempt]` of what runs now, as the workers show it."""
        found = []
        for slot in range(self.slots):
            task, attempt, _ = SHOWN.unpack_from(self._shared, slot * _STRIDE)
            if task:
                found.append([slot, task - 1, attempt])
        return found

    # --- tasks ---------------------------------------------------------------------------------

    def add(self, interval: Interval, lines: list[bytes]) -> None:
        self.queue.append(Stock(interval, lines))
        self.queued += interval.count

    def take_back(self, keep: Callable[[bytes], bool] | None = None) -> list[Interval]:
        """What was not handed out, but for tasks to keep by their lines; it is no longer here."""
        queue, self.queue, self.queued = self.queue, deque(), 0
        if keep is None:
            return [stock.interval for stock in queue]
        back: list[Interval] = []
        for stock in queue:
            while stock.interval.count:
                part, lines = stock.cut(1)
                if keep(lines[0]):
                    self.add(part, lines)
                else:
                    back.append(part)
        return list(joined(back))

    def next_interval(self) -> Interval | None:
        return self.queue[0].interval if self.queue else None

    def dispatch(self, limit: int | None = None) -> None:
        """Hand tasks to slots that have room, at most `limit` to each."""
        self._staff()
        size = self.batch_size if limit is None else min(limit, self.batch_size)
        if self.queued < size * len(self._seats):
            size = max(1, self.queued // max(1, len(self._seats)))
        for slot in sorted(self._hungry, key=lambda slot: self._seats[slot].outstanding):
            seat = self._seats[slot]
            if not self.queue:
                break
            if seat.outstanding and (size == 1 or seat.outstanding > size // 2):
                continue
            interval, lines = self._cut(size)
            self._give(seat, interval, lines)
            if seat.outstanding > size // 2:
                self._hungry.discard(slot)

    def _cut(self, size: int) -> tuple[Interval, list[bytes]]:
        interval, lines = self.queue[0].cut(size)
        if not self.queue[0].interval.count:
            self.queue.popleft()
        self.queued -= interval.count
        return interval, lines

    def _give(self, seat: Seat, interval: Interval, lines: list[bytes]) -> None:
        self._next_batch += 1
        seat.batches.append(Batch(self._next_batch, interval, lines))
        if not seat.outstanding:
            seat.moved = time.monotonic()
        seat.outstanding += interval.count
        body = b"".join(lines)
        self._send(seat.member, Order(wire.TASKS, seat.slot, self._next_batch, interval.attempt, 0.0, body))

    def rebalance(self, patience: float = 0.2) -> bool:
        """Ask workers that sit on tasks behind a long one to give them back; whether anybody sits on some."""
        now = time.monotonic()
        sitting = [seat for seat in self._seats.values() if seat.outstanding > 1]
        for seat in sitting:
            if not seat.asked and now - seat.moved > patience:
                for other in seat.member.seats.values():
                    other.asked = True
                self._send(seat.member, Order(wire.GIVE_BACK))
        return bool(sitting)

    def _send(self, member: Member, order: Order) -> None:
        member.out += order.encode()
        self._push(member)

    def _push(self, member: Member) -> None:
        """Send what the pipe takes now. Waiting for a worker that waits for us would be for ever."""
        try:
            while member.out:
                sent = member.link.send(member.out)
                del member.out[:sent]
        except BlockingIOError:
            pass
        except OSError:
            member.out.clear()  # it is dead: its end of file tells the rest
        mask = select.POLLIN | (select.POLLOUT if member.out else 0)
        self._poll.modify(member.link, mask)

    # --- news ----------------------------------------------------------------------------------

    def wait(self, timeout: float) -> Happened:
        """What happened, waiting up to `timeout` seconds for something. A signal ends the wait."""
        happened = Happened()
        for fd, event in self._poll.poll(max(0.0, timeout) * 1000):
            member = self.members.get(fd)
            if member is None:
                continue
            if event & select.POLLOUT:
                self._push(member)
            if event & ~select.POLLOUT:
                self._hear(member, happened)
        if self.stopping and self.members and time.monotonic() > self._stop_by:
            self._force()
        return happened

    def _hear(self, member: Member, happened: Happened) -> None:
        try:
            data = member.link.recv(1 << 20)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self._lose(member, happened)
            return
        for news in member.feed.feed(data):
            self._take(member, news, happened)

    def _take(self, member: Member, news: News, happened: Happened) -> None:
        if news.kind == wire.TROUBLE:
            happened.troubles.append(news.results.decode("utf-8", "replace"))
            return
        if news.kind == wire.SURVIVOR:
            self._stuck_on(map(int, news.results.split()), happened)
            return
        seat = member.seats[news.slot]
        if news.kind == wire.UNSTARTED:
            self._unstarted(seat, news)
            return
        batch = seat.batches[0]
        done = batch.interval.part(batch.done, news.count)
        tidings = happened.tidings
        if news.kind in (wire.INTERRUPTED, wire.UNFINISHED):
            back = tidings.overran if self.out_of_time and news.kind == wire.INTERRUPTED else tidings.returned
            back.append(done.part(news.count - 1, 1))
            done = done.part(0, news.count - 1)
        tidings.done.append(done)
        tidings.lines.append(news.results)
        tidings.finished += news.finished
        tidings.failed += news.failed
        tidings.seconds += news.seconds
        tidings.ended += news.finished + news.failed
        tidings.times.update(news.times)
        tidings.views.append((news.finished_lines, news.failed_lines, news.slices))
        self._progress(seat, batch, news.count)

    def _stuck_on(self, pids: Iterable[int], happened: Happened) -> None:
        """Processes that do not die are told once, and not waited for again."""
        fresh = set(pids) - self._stuck
        happened.survivors += sorted(fresh)
        self._stuck |= fresh

    def _progress(self, seat: Seat, batch: Batch, count: int) -> None:
        batch.done += count
        seat.outstanding -= count
        seat.moved = time.monotonic()
        seat.asked = False
        if not batch.left:
            seat.batches.remove(batch)
        if seat.outstanding <= self.batch_size // 2:
            self._hungry.add(seat.slot)

    def _unstarted(self, seat: Seat, news: News) -> None:
        batch = next(batch for batch in seat.batches if batch.number == news.number)
        keep = batch.interval.count - news.count
        back = batch.interval.part(keep, news.count)
        self.queue.appendleft(Stock(back, batch.lines[keep:]))
        self.queued += back.count
        batch.interval, batch.lines = batch.interval.part(0, keep), batch.lines[:keep]
        seat.outstanding -= news.count
        self._progress(seat, batch, 0)

    # --- ends ----------------------------------------------------------------------------------

    def _lose(self, member: Member, happened: Happened) -> None:
        """A worker is gone: we told it to go, or its tasks are ended and given back, and another takes its place."""
        fd = member.link.fileno()
        self._poll.unregister(member.link)
        del self.members[fd]
        with suppress(OSError):  # the descriptor is gone, whatever the kernel answers
            member.link.close()
        self._hungry.difference_update(member.seats)
        for slot in member.seats:
            del self._seats[slot]
        member.process.join(_UNRESPONSIVE)
        if member.process.exitcode is None:
            send(member.pid, signal.SIGKILL)
            member.process.join()
        others = frozenset(other.pid for other in self.members.values())
        if any(seat.batches for seat in member.seats.values()):
            # nobody has the tasks' processes any more but us
            self._stuck_on(end_descendants(time.monotonic(), others, stuck=self._stuck), happened)
            for seat in member.seats.values():
                self._recover(seat, happened)
        member.process.close()
        if not self.stopping:
            slots = ", ".join(map(str, member.seats))
            happened.deaths.append(f"the worker of slot {slots} was killed; another one takes its place")
            self._start(tuple(member.seats))

    def _recover(self, seat: Seat, happened: Happened) -> None:
        task, attempt, start = SHOWN.unpack_from(self._view(seat.slot))
        for batch in seat.batches:
            rest = batch.interval.part(batch.done, batch.left)
            lines = batch.lines[batch.done :]
            while rest.count:
                task_id, command = parse_task(lines[0])
                if task_id == task - 1 and attempt == rest.attempt:
                    happened.tidings.died.append(rest.part(0, 1))
                    self._record_death(seat.slot, task_id, attempt, command, start, happened)
                    rest, lines = rest.part(1, rest.count - 1), lines[1:]
                    break
                # it ended, but the worker died before it could tell: it is run again
                happened.tidings.returned.append(rest.part(0, 1))
                rest, lines = rest.part(1, rest.count - 1), lines[1:]
                if not task:
                    break
            if rest.count:
                self.queue.appendleft(Stock(rest, lines))
                self.queued += rest.count

    def _record_death(
        self, slot: int, task_id: int, attempt: int, command: bytes, start: float, happened: Happened
    ) -> None:
        end = time.monotonic() + self.clock
        happened.tidings.lines.append(result_line(task_id, attempt, slot, start, end, RETURNED, signal=SIGKILLED))
        number = farmer_number(self.place(slot).farmer)
        event = time_slice(number, slot, task_id, attempt, command, start, end, RETURNED, 0, SIGKILLED, 0.0, 0.0, 0)
        happened.tidings.views.append((b"", b"", event))

    def tell(self, order: Order) -> None:
        """Give the same order to all workers."""
        for member in self.members.values():
            self._send(member, order)

    def stop(self, grace: float, out_of_time: bool = False) -> None:
        """End all tasks: each gets SIGTERM, `grace` seconds, SIGKILL. `wait` until `members` is empty."""
        self.out_of_time = out_of_time
        by = time.monotonic() + grace + STUCK_AFTER + _UNRESPONSIVE
        self._stop_by = min(by, self._stop_by) if self.stopping else by
        self.stopping = True
        for member in list(self.members.values()):
            self._send(member, Order(wire.STOP, seconds=grace))
            send(member.pid, signal.SIGTERM)  # a runner of the user's own hears nothing else

    def quit(self) -> None:
        """Let idle workers go."""
        self.stopping = True
        self._stop_by = time.monotonic() + self.grace + STUCK_AFTER + _UNRESPONSIVE
        for member in list(self.members.values()):
            self._send(member, Order(wire.QUIT))

    def _force(self) -> None:
        """Workers that do not come back: a runner that ignores `terminate`, or a stopped process."""
        for member in self.members.values():
            for pid in (*descendants(member.pid), member.pid):
                send(pid, signal.SIGKILL)
        self._stop_by = time.monotonic() + _UNRESPONSIVE

    def sweep(self) -> list[int]:
        """End what is left below us when all workers are gone; the pids of what would not end."""
        survivors = end_descendants(time.monotonic(), frozenset(self._pids()), stuck=self._stuck)
        self._stuck.update(survivors)
        reap(frozenset(self._pids()))
        return survivors

    def _pids(self) -> Iterable[int]:
        return (member.pid for member in self.members.values())
