"""A farmer's side of its workers: feeds them, hears from them, replaces the dead, ends all.

A task that a farmer holds is in `queue` (not handed out) or in a batch of one
worker; a batch's tasks are run in their order, so how far it has come is one number. Whatever a worker
does, each task of its batches leaves exactly once: as done, as returned, as died, or back into the queue.

A worker that ends although nothing is to stop counts a death for each task that ran in it, however it ended: by
SIGKILL, by a crash, or by a SIGTERM that its farmer did not send. A SIGTERM may also have been for all processes of a
job, the farmer too, which may get it a moment later. So what such a worker reports is not read before DOUBT has passed.
"""

from __future__ import annotations

import math
import os
import select
import signal
import time
from collections import deque
from collections.abc import Callable, Iterable
from contextlib import suppress
from itertools import groupby

from taskfarmer import protocol
from taskfarmer.formats.intervals import Interval, merge_adjacent
from taskfarmer.ledger.ledger import FarmerReport
from taskfarmer.pool.handles import AssignedBatch, PoolReport, SlotHandle, TaskQueue, WorkerHandle
from taskfarmer.pool.processes import UNRESPONSIVE, WorkerProcesses
from taskfarmer.pool.recovery import died_at, recover
from taskfarmer.proctree import STUCK_AFTER, Tree, adopt_orphans, reap, send
from taskfarmer.protocol import Command, WorkerReport
from taskfarmer.runners.base import Runner
from taskfarmer.worker.context import SlotContext
from taskfarmer.worker.leftovers import KEEP
from taskfarmer.worker.slot import SHOWN
from taskfarmer.worker.worker import DOUBT

LOOK_EVERY = 5.0
"""Seconds between two looks whether workers were stopped (SIGSTOP), or are gone although their pipe is open."""
MOST_CONTINUED = 3
"""How often a worker that is found stopped, look by look, is continued before it is killed."""


class Pool(WorkerProcesses):
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
        super().__init__(slots, place, runner, grace, wakeup, unfinished, leftovers)
        self.queue: deque[TaskQueue] = deque()
        self.queued = 0
        self.outstanding = 0  # tasks that are with workers
        self.busy = 0  # slots that have some of them
        self.batch_size = 1
        self.ahead = False  # whether a slot that has a long task gets the next one, too
        self._next_batch = 0
        self._forced = False
        self._stuck: set[int] = set()
        self._tree = Tree(groups=self._groups)
        self._doubted: list[WorkerHandle] = []
        self._next_look = time.monotonic() + LOOK_EVERY
        adopt_orphans()

    @property
    def idle(self) -> int:
        """Slots without a task, whether their workers were started yet or not."""
        return self.slots - self.busy

    # --- tasks ---------------------------------------------------------------------------------

    def add(self, interval: Interval, lines: list[bytes]) -> None:
        """Put tasks into the queue, at its end, but before those that a worker or a farmer died of."""
        place = len(self.queue)
        while place and self.queue[place - 1].interval.deaths and not interval.deaths:
            place -= 1
        self.queue.insert(place, TaskQueue(interval, lines))
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
        return list(merge_adjacent(back))

    def following(self, most: int) -> list[Interval]:
        """The first `most` tasks of the queue."""
        found: list[Interval] = []
        for stock in self.queue:
            if most <= 0:
                break
            found.append(stock.interval.slice(0, min(most, stock.interval.count)))
            most -= found[-1].count
        return found

    def dispatch(self, limit: int | None = None, below: float = math.inf) -> None:
        """Hand tasks to slots that have room, at most `limit` to each, up to the first whose attempt is not `below`."""
        self.ensure_workers(self.busy + self.queued)
        size = self.batch_size if limit is None else min(limit, self.batch_size)
        if self.queued < size * len(self._seats):
            size = max(1, self.queued // max(1, len(self._seats)))
        for slot in sorted(self._ready, key=lambda slot: self._seats[slot].outstanding):
            seat = self._seats[slot]
            if not self.queue or self.queue[0].interval.attempt >= below:
                break
            enough = size // 2 or int(self.ahead and limit is None)
            if seat.outstanding > enough:
                continue
            interval, lines = self._cut(size)
            self._give(seat, interval, lines)
            if seat.outstanding > enough:
                self._ready.discard(slot)

    def _cut(self, size: int) -> tuple[Interval, list[bytes]]:
        interval, lines = self.queue[0].cut(size)
        if not self.queue[0].interval.count:
            self.queue.popleft()
        self.queued -= interval.count
        return interval, lines

    def _give(self, seat: SlotHandle, interval: Interval, lines: list[bytes]) -> None:
        self._next_batch += 1
        seat.batches.append(AssignedBatch(self._next_batch, interval, lines))
        if not seat.outstanding:
            seat.moved = time.monotonic()
        self._has(seat, interval.count)
        body = b"".join(lines)
        self._send(seat.member, Command(protocol.TASKS, seat.slot, self._next_batch, interval.attempt, 0.0, body))

    def _has(self, seat: SlotHandle, more: int) -> None:
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
                self._send(seat.member, Command(protocol.GIVE_BACK))

    # --- news ----------------------------------------------------------------------------------

    def wait(self, timeout: float) -> PoolReport:
        """What happened, waiting up to `timeout` seconds for something. A signal ends the wait."""
        happened = PoolReport()
        if self.trouble is not None:
            # those that could be started go on
            (happened.warnings if self.members else happened.troubles).append(self.trouble)
            self.trouble, timeout = None, 0.0
        if self._doubted:
            timeout = min(timeout, self._resolve(happened))
        if self.members:
            timeout = min(timeout, self._next_look - time.monotonic())
        for fd, event in self._poll.poll(max(0.0, timeout) * 1000):
            member = self.members.get(fd)
            if member is None:
                continue
            if event & select.POLLOUT:
                self._push(member)
            if event & ~select.POLLOUT:
                self._hear(member, happened)
        now = time.monotonic()
        if self.stopping and self.members and now > self._stop_by:
            self._force(happened)
        elif now >= self._next_look:
            self._next_look = now + LOOK_EVERY
            self._look(happened)
        return happened

    def _hear(self, member: WorkerHandle, happened: PoolReport) -> None:
        try:
            data = member.link.recv(1 << 20)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self._lose(member, happened)
            return
        self._take_all(member, data, happened)

    def _take_all(self, member: WorkerHandle, data: bytes, happened: PoolReport) -> None:
        """Take news as they come, up to the first that cannot be judged yet."""
        for news in member.feed.feed(data):
            unasked = news.kind == protocol.INTERRUPTED and not self.stopping and not self.warned
            now = time.monotonic() if unasked else 0.0
            if unasked and now >= member.doubted_until + DOUBT:
                member.doubted, member.doubted_until = news, now + 2 * DOUBT
                self._doubted.append(member)
                self._poll.unregister(member.link)
                return
            self._take(member, news, happened)

    def _resolve(self, happened: PoolReport) -> float:
        """Go on with workers whose news waited long enough, or with all if we are to stop; seconds until the next."""
        now = time.monotonic()
        wait = math.inf
        doubted, self._doubted = self._doubted, []
        for member in doubted:
            if not self.stopping and now < member.doubted_until:
                wait = min(wait, member.doubted_until - now)
                self._doubted.append(member)
                continue
            wait = 0.0  # what they told is to be heard at once
            news, member.doubted = member.doubted, None
            assert news is not None
            self._watch(member)
            self._take(member, news, happened)
            self._take_all(member, b"", happened)
        return wait

    def _take(self, member: WorkerHandle, news: WorkerReport, happened: PoolReport) -> None:
        if news.kind == protocol.TROUBLE:
            happened.troubles.append(news.results.decode("utf-8", "replace"))
            return
        if news.kind == protocol.SURVIVOR:
            self._stuck_on(map(int, news.results.split()), happened)
            return
        if news.kind == protocol.LEFTOVERS:
            happened.leftovers += [
                (int(task), int(count)) for task, count in map(bytes.split, news.results.split(b"\n"))
            ]
            return
        seat = member.seats[news.slot]
        if news.kind == protocol.UNSTARTED:
            self._unstarted(seat, news)
            return
        batch = seat.batches[0]
        done = batch.interval.slice(batch.done, news.count)
        tidings = happened.tidings
        if news.kind in (protocol.INTERRUPTED, protocol.UNFINISHED):
            last, done = done.slice(news.count - 1, 1), done.slice(0, news.count - 1)
            if news.kind == protocol.UNFINISHED or (self.warned and not self.stopping):
                tidings.returned.append(last)
            else:
                self._interrupted(member, last, tidings)
        if news.finished or news.failed:
            self.deaths.progress()
        tidings.done.append(done)
        tidings.lines.append(news.results)
        tidings.finished += news.finished
        tidings.failed += news.failed
        tidings.seconds += news.seconds
        tidings.ended += news.finished + news.failed
        tidings.times.update(news.times)
        tidings.views.append((news.finished_lines, news.failed_lines, news.slices))
        self._progress(seat, batch, news.count)

    def _interrupted(self, member: WorkerHandle, task: Interval, tidings: FarmerReport) -> None:
        """A task ran when its worker ended: since we stop, or else that counts as a death."""
        if self.stopping:
            (tidings.overran if self.out_of_time else tidings.returned).append(task)
        else:
            tidings.died.append(task)
            member.died.append(task)

    def _stuck_on(self, pids: Iterable[int], happened: PoolReport) -> None:
        """Processes that do not die are told once, and not waited for again."""
        fresh = set(pids) - self._stuck
        happened.survivors += sorted(fresh)
        self._stuck |= fresh
        self._tree.stuck |= fresh

    def _progress(self, seat: SlotHandle, batch: AssignedBatch, count: int) -> None:
        batch.done += count
        self._has(seat, -count)
        seat.moved = time.monotonic()
        seat.asked = False
        if not batch.left:
            seat.batches.remove(batch)
        if seat.outstanding <= (self.batch_size // 2 or int(self.ahead)):
            self._ready.add(seat.slot)

    def _unstarted(self, seat: SlotHandle, news: WorkerReport) -> None:
        batch = next(batch for batch in seat.batches if batch.number == news.number)
        keep = batch.interval.count - news.count
        back = batch.interval.slice(keep, news.count)
        self.queue.appendleft(TaskQueue(back, batch.lines[keep:]))
        self.queued += back.count
        batch.interval, batch.lines = batch.interval.slice(0, keep), batch.lines[:keep]
        self._has(seat, -news.count)
        self._progress(seat, batch, 0)

    # --- ends ----------------------------------------------------------------------------------

    def _lose(self, member: WorkerHandle, happened: PoolReport) -> None:
        """A worker is gone: we told it to go, or its tasks are ended and given back, and another takes its place."""
        fd = member.link.fileno()
        self._poll.unregister(member.link)
        del self.members[fd]
        with suppress(OSError):  # the descriptor is gone, whatever the kernel answers
            member.link.close()
        self._ready.difference_update(member.seats)
        for slot, seat in member.seats.items():
            self._has(seat, -seat.outstanding)
            del self._seats[slot]
        if not self._forced:  # else it was killed, and waited for, with all others
            member.process.join(UNRESPONSIVE)
            if member.process.exitcode is None:
                send(member.pid, signal.SIGKILL)
        member.process.join(STUCK_AFTER if not self._forced else 0.1)
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
            self._count_death(member, happened)
            self._replace(member)

    def _count_death(self, member: WorkerHandle, happened: PoolReport) -> None:
        """Warn of a worker that died, of a round of them if all of them die, and give up in the end."""
        ran = [(one.segment, one.start) for one in member.died]
        first = self.deaths.add(time.monotonic(), member.started, ran)
        gives_up = self.deaths.hopeless and not self.busy
        logs = self.place(min(member.seats)).logs if gives_up else None
        text = self.deaths.describe(member.seats, member.process.exitcode, bool(ran), logs)
        if gives_up:
            happened.hopeless = text
        elif first or not self.deaths.alike:
            happened.warnings.append(text)

    def _recover(self, seat: SlotHandle, happened: PoolReport) -> None:
        shown, attempt, start = SHOWN.unpack_from(self._view(seat.slot))
        found = recover(seat.batches, shown, attempt)
        happened.tidings.returned += found.returned
        if found.died is not None:
            self._interrupted(seat.member, found.died, happened.tidings)
            if shown > 0:
                place = self.place(seat.slot)
                line, event = died_at(time.monotonic() + self.clock, place, (shown - 1, attempt, found.command, start))
                happened.tidings.lines.append(line)
                happened.tidings.views.append((b"", b"", event))
        for stock in reversed(found.kept):
            self.queue.appendleft(stock)
            self.queued += stock.interval.count

    def _look(self, happened: PoolReport) -> None:
        """Continue workers that were stopped, which would keep their tasks for ever, and find those that are gone.

        The second look in a row acts: all of us may be about to be stopped, or to go on, as a job that is suspended is.
        The pipe of a worker that is gone stays open if a process has it that a runner of the user's own forked.
        """
        for member in list(self.members.values()):
            state = 0 if member.doubted is not None else member.process.look()
            member.looks = member.looks + 1 if state else 0
            if member.looks < 2:
                continue
            slots = ", ".join(map(str, member.seats))
            if state != os.CLD_STOPPED:
                self._lose(member, happened)
            elif member.looks <= MOST_CONTINUED + 1:
                if member.looks == 2:
                    happened.warnings.append(f"worker for slot {slots} was stopped (SIGSTOP); continuing it")
                send(member.pid, signal.SIGCONT)
            else:
                happened.warnings.append(f"worker for slot {slots} was stopped again and again; killing it")
                send(member.pid, signal.SIGKILL)

    def _force(self, happened: PoolReport) -> None:
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
