"""A farmer's side of its workers: feeds them, hears from them, replaces the dead, ends all.

A task that a farmer holds is in `queue` (not handed out) or in a batch of one
worker; a batch's tasks are run in their order, so how far it has come is one number. Whatever a worker
does, each task of its batches leaves exactly once: as done, as returned, or back into the queue.
"""

from __future__ import annotations

import math
import select
import signal
import time
from collections import deque
from collections.abc import Callable, Iterable
from contextlib import suppress
from itertools import groupby

from taskfarmer.model import RETURNED, Interval, joined, result_line
from taskfarmer.pool import wire
from taskfarmer.pool.attempt import Place
from taskfarmer.pool.leftovers import KEEP
from taskfarmer.pool.member import Batch, Happened, Member, Seat, Stock
from taskfarmer.pool.processes import STUCK_AFTER, Tree, adopt_orphans, reap, send
from taskfarmer.pool.recovery import recover
from taskfarmer.pool.slot import GROUP, SHOWN
from taskfarmer.pool.staff import UNRESPONSIVE, Staff
from taskfarmer.pool.wire import News, Order
from taskfarmer.runners.base import Runner
from taskfarmer.trace import farmer_number, time_slice

SIGKILLED = 9


class Pool(Staff):
    def __init__(
        self,
        slots: int,
        place: Callable[[int], Place],
        runner: Runner,
        grace: float,
        wakeup: int,
        unfinished: int = -1,
        leftovers: str = KEEP,
    ) -> None:
        super().__init__(slots, place, runner, grace, wakeup, unfinished, leftovers)
        self.queue: deque[Stock] = deque()
        self.queued = 0
        self.outstanding = 0  # tasks that are with workers
        self.busy = 0  # slots that have some of them
        self.batch_size = 1
        self.ahead = False  # whether a slot that has a long task gets the next one, too
        self._next_batch = 0
        self._forced = False
        self._stuck: set[int] = set()
        self._tree = Tree(groups=self._groups)
        adopt_orphans()

    @property
    def idle(self) -> int:
        """Slots without a task, whether their workers were started yet or not."""
        return self.slots - self.busy

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
            for kept, group in groupby(map(keep, stock.lines[stock.offset :])):
                part, lines = stock.cut(len(list(group)))
                if kept:
                    self.add(part, lines)
                else:
                    back.append(part)
        return list(joined(back))

    def following(self, most: int) -> list[Interval]:
        """The first `most` tasks of the queue."""
        found: list[Interval] = []
        for stock in self.queue:
            if most <= 0:
                break
            found.append(stock.interval.part(0, min(most, stock.interval.count)))
            most -= found[-1].count
        return found

    def dispatch(self, limit: int | None = None, below: float = math.inf) -> None:
        """Hand tasks to slots that have room, at most `limit` to each, up to the first whose attempt is not `below`."""
        self.employ(self.busy + self.queued)
        size = self.batch_size if limit is None else min(limit, self.batch_size)
        if self.queued < size * len(self._seats):
            size = max(1, self.queued // max(1, len(self._seats)))
        for slot in sorted(self._hungry, key=lambda slot: self._seats[slot].outstanding):
            seat = self._seats[slot]
            if not self.queue or self.queue[0].interval.attempt >= below:
                break
            enough = size // 2 or int(self.ahead and limit is None)
            if seat.outstanding > enough:
                continue
            interval, lines = self._cut(size)
            self._give(seat, interval, lines)
            if seat.outstanding > enough:
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
        self._has(seat, interval.count)
        body = b"".join(lines)
        self._send(seat.member, Order(wire.TASKS, seat.slot, self._next_batch, interval.attempt, 0.0, body))

    def _has(self, seat: Seat, more: int) -> None:
        """A seat has so many tasks more, or fewer."""
        before = seat.outstanding
        seat.outstanding += more
        self.outstanding += more
        self.busy += (seat.outstanding > 0) - (before > 0)

    def rebalance(self, patience: float = 0.2) -> None:
        """Ask workers that sit on tasks behind a long one to give them back."""
        now = time.monotonic()
        for seat in self._seats.values():
            if seat.outstanding > 1 and not seat.asked and now - seat.moved > patience:
                for other in seat.member.seats.values():
                    other.asked = True
                self._send(seat.member, Order(wire.GIVE_BACK))

    # --- news ----------------------------------------------------------------------------------

    def wait(self, timeout: float) -> Happened:
        """What happened, waiting up to `timeout` seconds for something. A signal ends the wait."""
        happened = Happened()
        if self.trouble is not None:
            # those that could be started go on
            (happened.warnings if self.members else happened.troubles).append(self.trouble)
            self.trouble, timeout = None, 0.0
        for fd, event in self._poll.poll(max(0.0, timeout) * 1000):
            member = self.members.get(fd)
            if member is None:
                continue
            if event & select.POLLOUT:
                self._push(member)
            if event & ~select.POLLOUT:
                self._hear(member, happened)
        if self.stopping and self.members and time.monotonic() > self._stop_by:
            self._force(happened)
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
        if news.kind == wire.LEFTOVERS:
            happened.leftovers += [
                (int(task), int(count)) for task, count in map(bytes.split, news.results.split(b"\n"))
            ]
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
        self._tree.stuck |= fresh

    def _progress(self, seat: Seat, batch: Batch, count: int) -> None:
        batch.done += count
        self._has(seat, -count)
        seat.moved = time.monotonic()
        seat.asked = False
        if not batch.left:
            seat.batches.remove(batch)
        if seat.outstanding <= (self.batch_size // 2 or int(self.ahead)):
            self._hungry.add(seat.slot)

    def _unstarted(self, seat: Seat, news: News) -> None:
        batch = next(batch for batch in seat.batches if batch.number == news.number)
        keep = batch.interval.count - news.count
        back = batch.interval.part(keep, news.count)
        self.queue.appendleft(Stock(back, batch.lines[keep:]))
        self.queued += back.count
        batch.interval, batch.lines = batch.interval.part(0, keep), batch.lines[:keep]
        self._has(seat, -news.count)
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
        for slot, seat in member.seats.items():
            self._has(seat, -seat.outstanding)
            del self._seats[slot]
        member.process.join(UNRESPONSIVE)
        if member.process.exitcode is None:
            send(member.pid, signal.SIGKILL)
            member.process.join(STUCK_AFTER)
        held = member.process.exitcode is None  # by the kernel, in an uninterruptible wait
        if held:
            self._stuck_on([member.pid], happened)
        others = frozenset(other.pid for other in self.members.values())
        if any(seat.batches for seat in member.seats.values()):
            # nobody has the tasks' processes any more but us
            self._stuck_on(self._tree.end(time.monotonic(), others), happened)
            for seat in member.seats.values():
                self._recover(seat, happened)
        if not self.stopping:
            slots = ", ".join(map(str, member.seats))
            happened.warnings.append(f"the worker of slot {slots} was killed; another one takes its place")
            self._replace(member)

    def _recover(self, seat: Seat, happened: Happened) -> None:
        shown, attempt, start = SHOWN.unpack_from(self._view(seat.slot))
        found = recover(seat.batches, shown, attempt)
        happened.tidings.returned += found.returned
        if found.died is not None:
            happened.tidings.died.append(found.died)
            self._record_death(seat.slot, shown - 1, attempt, found.command, start, happened)
        for stock in reversed(found.kept):
            self.queue.appendleft(stock)
            self.queued += stock.interval.count

    def _record_death(
        self, slot: int, task_id: int, attempt: int, command: bytes, start: float, happened: Happened
    ) -> None:
        end = time.monotonic() + self.clock
        place = self.place(slot)
        log = place.log_mode.encode()
        line = result_line(task_id, attempt, slot, start, end, RETURNED, signal=SIGKILLED, log=log)
        happened.tidings.lines.append(line)
        number = farmer_number(place.farmer)
        event = time_slice(number, slot, task_id, attempt, command, start, end, RETURNED, 0, SIGKILLED, 0.0, 0.0, 0)
        happened.tidings.views.append((b"", b"", event))

    def _force(self, happened: Happened) -> None:
        """Workers that do not come back: a runner that ignores `terminate`, a stopped process, one that hangs."""
        for member in list(self.members.values()):
            if self._forced:
                self._lose(member, happened)
                continue
            Tree(member.pid).kill()
            send(member.pid, signal.SIGKILL)
        self._forced = True
        self._stop_by = time.monotonic() + STUCK_AFTER

    def sweep(self) -> list[int]:
        """End what is left below us when all workers are gone; the pids of what would not end."""
        survivors = self._tree.end(time.monotonic(), frozenset(self._pids()))
        reap(frozenset(self._pids()))
        return survivors

    def _groups(self) -> list[int]:
        """The process groups of tasks as the workers showed them last; orphans of a killed worker are in them."""
        found = [GROUP.unpack_from(self._view(slot), SHOWN.size)[0] for slot in range(self.slots)]
        return [group for group in found if group > 0]
