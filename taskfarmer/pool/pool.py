"""A farmer's pool of workers: send them tasks, read their reports, replace those that die, stop them all.

A task that a farmer holds is in `queue` or in a batch of one worker. A worker runs the tasks of a batch in order, so
one number records its progress. However a worker ends, each task of its batches leaves the pool exactly once, as done,
returned or died, or goes back into the queue.

If a worker ends although the farmer does not stop, each task that ran in it has one death more, however the worker
ended: by SIGKILL, by a crash, or by a SIGTERM that its farmer did not send. But a SIGTERM may have been for all
processes of a job, and the farmer may get it a moment later. So the pool reads the reports of such a worker only after
AWAIT_STOP.
"""

from __future__ import annotations

import math
import os
import select
import signal
import time
from collections.abc import Callable, Iterable
from contextlib import suppress

from taskfarmer import protocol
from taskfarmer.formats.intervals import Interval
from taskfarmer.ledger.ledger import FarmerReport
from taskfarmer.pool.handles import AssignedBatch, PoolReport, SlotHandle, WorkerHandle
from taskfarmer.pool.processes import UNRESPONSIVE, WorkerProcesses
from taskfarmer.pool.queue import QueuedTasks, TaskQueue
from taskfarmer.pool.recovery import died_at, recover
from taskfarmer.proctree import STUCK_AFTER, Tree, adopt_orphans, kill_with_tree, reap, send
from taskfarmer.protocol import Command, WorkerReport
from taskfarmer.runners.base import Runner
from taskfarmer.worker.context import SlotContext
from taskfarmer.worker.leftovers import KEEP
from taskfarmer.worker.slot import SHOWN
from taskfarmer.worker.worker import AWAIT_STOP

CHECK_EVERY = 5.0
"""Seconds between two checks for workers that were stopped (SIGSTOP), or are gone although their socket is open."""
MOST_CONTINUED = 3
"""How often a worker that is found stopped is continued before it is killed."""


class Pool(WorkerProcesses):
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
        super().__init__(slots, slot_context, runner, grace, wakeup, unfinished, leftovers)
        self.queue = TaskQueue()
        self.outstanding = 0  # tasks that are with workers
        self.busy = 0  # slots that have some of them
        self.batch_size = 1
        self.ahead = False  # whether a slot that has a long task gets the next one, too
        self._next_batch = 0
        self._forced = False
        self._stuck: set[int] = set()
        self._tree = Tree(groups=self._groups)
        self._suspects: list[WorkerHandle] = []
        self._next_check = time.monotonic() + CHECK_EVERY
        adopt_orphans()

    @property
    def idle(self) -> int:
        """The number of slots without a task, with or without a worker."""
        return self.slots - self.busy

    # --- tasks ---------------------------------------------------------------------------------

    @property
    def queued(self) -> int:
        """The number of tasks in the queue."""
        return self.queue.count

    def add(self, interval: Interval, lines: list[bytes]) -> None:
        self.queue.add(interval, lines)

    def release_queued(self, keep: Callable[[bytes], bool] | None = None) -> list[Interval]:
        """Remove the queued tasks and return them, except those whose lines are to `keep`."""
        return self.queue.release(keep)

    def following(self, most: int) -> list[Interval]:
        """The first `most` tasks of the queue."""
        return self.queue.first(most)

    def dispatch(self, limit: int | None = None, below: float = math.inf) -> None:
        """Send tasks to ready slots, at most `limit` to each, up to the first whose attempt is not `below`."""
        self.ensure_workers(self.busy + self.queued)
        size = self.batch_size if limit is None else min(limit, self.batch_size)
        if self.queued < size * len(self._slots):
            size = max(1, self.queued // max(1, len(self._slots)))
        for number in sorted(self._ready, key=lambda number: self._slots[number].outstanding):
            slot = self._slots[number]
            if not self.queued or self.queue.attempt >= below:
                break
            enough = size // 2 or int(self.ahead and limit is None)
            if slot.outstanding > enough:
                continue
            interval, lines = self.queue.cut(size)
            self._send_batch(slot, interval, lines)
            if slot.outstanding > enough:
                self._ready.discard(number)

    def _send_batch(self, slot: SlotHandle, interval: Interval, lines: list[bytes]) -> None:
        self._next_batch += 1
        slot.batches.append(AssignedBatch(self._next_batch, interval, lines))
        if not slot.outstanding:
            slot.progressed = time.monotonic()
        self._add_outstanding(slot, interval.count)
        body = b"".join(lines)
        self._send(slot.worker, Command(protocol.TASKS, slot.slot, self._next_batch, interval.attempt, 0.0, body))

    def _add_outstanding(self, slot: SlotHandle, more: int) -> None:
        """Count `more` tasks of a slot, or fewer if it is negative."""
        before = slot.outstanding
        slot.outstanding += more
        self.outstanding += more
        self.busy += (slot.outstanding > 0) - (before > 0)

    def rebalance(self, patience: float = 0.2) -> None:
        """Ask workers to give back the tasks that wait in a slot with a long task."""
        now = time.monotonic()
        for slot in self._slots.values():
            if slot.outstanding > 1 and not slot.asked_back and now - slot.progressed > patience:
                for other in slot.worker.slots.values():
                    other.asked_back = True
                self._send(slot.worker, Command(protocol.GIVE_BACK))

    # --- reports -------------------------------------------------------------------------------

    def wait(self, timeout: float) -> PoolReport:
        """Wait up to `timeout` seconds for reports of workers, or for a signal."""
        report = PoolReport()
        if self.trouble is not None:
            # the workers that could be started go on
            (report.warnings if self.workers else report.troubles).append(self.trouble)
            self.trouble, timeout = None, 0.0
        if self._suspects:
            timeout = min(timeout, self._resolve(report))
        if self.workers:
            timeout = min(timeout, self._next_check - time.monotonic())
        for fd, event in self._poll.poll(max(0.0, timeout) * 1000):
            worker = self.workers.get(fd)
            if worker is None:
                continue
            if event & select.POLLOUT:
                self._push(worker)
            if event & ~select.POLLOUT:
                self._receive(worker, report)
        now = time.monotonic()
        if self.stopping and self.workers and now > self._kill_after:
            self._kill_workers(report)
        elif now >= self._next_check:
            self._next_check = now + CHECK_EVERY
            self._check_workers(report)
        return report

    def _receive(self, worker: WorkerHandle, report: PoolReport) -> None:
        try:
            data = worker.link.recv(1 << 20)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self._lose(worker, report)
            return
        self._handle_data(worker, data, report)

    def _handle_data(self, worker: WorkerHandle, data: bytes, report: PoolReport) -> None:
        """Handle reports in their order, up to the first that is suspect."""
        for news in worker.reports.feed(data):
            unasked = news.kind == protocol.INTERRUPTED and not self.stopping and not self.warned
            now = time.monotonic() if unasked else 0.0
            if unasked and now >= worker.suspect_until + AWAIT_STOP:
                worker.suspect, worker.suspect_until = news, now + 2 * AWAIT_STOP
                self._suspects.append(worker)
                self._poll.unregister(worker.link)
                return
            self._handle(worker, news, report)

    def _resolve(self, report: PoolReport) -> float:
        """Handle suspect reports that have waited long enough, or all if the farmer stops; seconds until the next."""
        now = time.monotonic()
        wait = math.inf
        suspects, self._suspects = self._suspects, []
        for worker in suspects:
            if not self.stopping and now < worker.suspect_until:
                wait = min(wait, worker.suspect_until - now)
                self._suspects.append(worker)
                continue
            wait = 0.0  # the farmer gets this report at once
            suspect, worker.suspect = worker.suspect, None
            assert suspect is not None
            self._watch(worker)
            self._handle(worker, suspect, report)
            self._handle_data(worker, b"", report)
        return wait

    def _handle(self, worker: WorkerHandle, news: WorkerReport, report: PoolReport) -> None:
        if news.kind == protocol.TROUBLE:
            report.troubles.append(news.results.decode("utf-8", "replace"))
        elif news.kind == protocol.SURVIVOR:
            self._add_stuck(map(int, news.results.split()), report)
        elif news.kind == protocol.LEFTOVERS:
            report.leftovers += [(int(task), int(count)) for task, count in map(bytes.split, news.results.split(b"\n"))]
        elif news.kind == protocol.REPLACE:
            worker.retiring = True
            self._ready.difference_update(worker.slots)
            self._send(worker, Command(protocol.QUIT))
        elif news.kind == protocol.UNSTARTED:
            self._handle_unstarted(worker.slots[news.slot], news)
        else:
            self._handle_results(worker, news, report)

    def _handle_results(self, worker: WorkerHandle, news: WorkerReport, report: PoolReport) -> None:
        slot = worker.slots[news.slot]
        batch = slot.batches[0]
        done = batch.interval.slice(batch.done, news.count)
        outcomes = report.outcomes
        if news.kind in (protocol.INTERRUPTED, protocol.UNFINISHED):
            last, done = done.slice(news.count - 1, 1), done.slice(0, news.count - 1)
            if news.kind == protocol.UNFINISHED or (self.warned and not self.stopping):
                outcomes.returned.append(last)
            else:
                self._interrupted(worker, last, outcomes)
        if news.finished or news.failed:
            self.deaths.progress()
        outcomes.done.append(done)
        outcomes.lines.append(news.results)
        outcomes.finished += news.finished
        outcomes.failed += news.failed
        outcomes.seconds += news.seconds
        outcomes.ended += news.finished + news.failed
        outcomes.times.update(news.times)
        outcomes.views.append((news.finished_lines, news.failed_lines, news.slices))
        self._progress(slot, batch, news.count)

    def _interrupted(self, worker: WorkerHandle, task: Interval, outcomes: FarmerReport) -> None:
        """A task ran when its worker ended. That counts as a death, unless the farmer stops."""
        if self.stopping:
            (outcomes.overran if self.out_of_time else outcomes.returned).append(task)
        else:
            outcomes.died.append(task)
            worker.died.append(task)

    def _add_stuck(self, pids: Iterable[int], report: PoolReport) -> None:
        """Report processes that do not die once, and do not wait for them again."""
        fresh = set(pids) - self._stuck
        report.survivors += sorted(fresh)
        self._stuck |= fresh
        self._tree.stuck |= fresh

    def _progress(self, slot: SlotHandle, batch: AssignedBatch, count: int) -> None:
        batch.done += count
        self._add_outstanding(slot, -count)
        slot.progressed = time.monotonic()
        slot.asked_back = False
        if not batch.left:
            slot.batches.remove(batch)
        if slot.outstanding <= (self.batch_size // 2 or int(self.ahead)) and not slot.worker.retiring:
            self._ready.add(slot.slot)

    def _handle_unstarted(self, slot: SlotHandle, news: WorkerReport) -> None:
        batch = next(batch for batch in slot.batches if batch.number == news.number)
        keep = batch.interval.count - news.count
        self.queue.put_back(QueuedTasks(batch.interval.slice(keep, news.count), batch.lines[keep:]))
        batch.interval, batch.lines = batch.interval.slice(0, keep), batch.lines[:keep]
        self._add_outstanding(slot, -news.count)
        self._progress(slot, batch, 0)

    # --- ends of workers -----------------------------------------------------------------------

    def _lose(self, worker: WorkerHandle, report: PoolReport) -> None:
        """A worker has ended. If it was not asked to, its tasks are stopped and returned, and another replaces it."""
        fd = worker.link.fileno()
        self._poll.unregister(worker.link)
        del self.workers[fd]
        with suppress(OSError):  # the descriptor is closed even if the kernel reports an error
            worker.link.close()
        self._ready.difference_update(worker.slots)
        for number, slot in worker.slots.items():
            self._add_outstanding(slot, -slot.outstanding)
            del self._slots[number]
        if not self._forced:  # else it was killed together with all others
            worker.process.join(UNRESPONSIVE)
            if worker.process.exitcode is None:
                send(worker.pid, signal.SIGKILL)
        worker.process.join(STUCK_AFTER if not self._forced else 0.1)
        if worker.process.exitcode is None:  # it is in an uninterruptible wait
            self._add_stuck([worker.pid], report)
        if worker.has_tasks:
            # the processes of its tasks are now children of the farmer
            self._add_stuck(self._tree.end(time.monotonic(), frozenset(self._pids())), report)
            for slot in worker.slots.values():
                self._recover(slot, report)
        if not self.stopping:
            died = worker.has_tasks or not worker.retiring
            if died:
                self._count_death(worker, report)
            self._replace(worker, died)
        with suppress(ValueError):  # it has not ended, or another call has taken its status
            worker.process.close()

    def _count_death(self, worker: WorkerHandle, report: PoolReport) -> None:
        """Warn of a worker that died, or of a round of them if all die; give up in the end."""
        ran = [(one.segment, one.start) for one in worker.died]
        first = self.deaths.add(time.monotonic(), worker.started, ran)
        gives_up = self.deaths.hopeless and not self.busy
        logs = self.slot_context(min(worker.slots)).logs if gives_up else None
        text = self.deaths.describe(worker.slots, worker.process.exitcode, bool(ran), logs)
        if gives_up:
            report.hopeless = text
        elif first or not self.deaths.alike:
            report.warnings.append(text)

    def _recover(self, slot: SlotHandle, report: PoolReport) -> None:
        shown, attempt, start = SHOWN.unpack_from(self._view(slot.slot))
        found = recover(slot.batches, shown, attempt)
        outcomes = report.outcomes
        outcomes.returned += found.returned
        if found.died is not None:
            self._interrupted(slot.worker, found.died, outcomes)
            if shown > 0:
                ran = shown - 1, attempt, found.command, start
                line, event = died_at(time.monotonic() + self.clock, self.slot_context(slot.slot), ran)
                outcomes.lines.append(line)
                outcomes.views.append((b"", b"", event))
        for tasks in reversed(found.kept):
            self.queue.put_back(tasks)

    def _check_workers(self, report: PoolReport) -> None:
        """Continue workers that were stopped, which would keep their tasks for ever, and find those that are gone.

        The second check in a row acts: a job that is suspended stops and continues all processes, one after the other.
        The socket of a worker that is gone stays open if a process has it that a custom runner forked.
        """
        for worker in list(self.workers.values()):
            state = 0 if worker.suspect is not None else worker.process.state()
            worker.checks = worker.checks + 1 if state else 0
            if worker.checks < 2:
                continue
            slots = ", ".join(map(str, worker.slots))
            if state != os.CLD_STOPPED:
                self._lose(worker, report)
            elif worker.checks <= MOST_CONTINUED + 1:
                if worker.checks == 2:
                    report.warnings.append(f"worker for slot {slots} was stopped (SIGSTOP); continuing it")
                send(worker.pid, signal.SIGCONT)
            else:
                report.warnings.append(f"worker for slot {slots} was stopped repeatedly; killing it")
                send(worker.pid, signal.SIGKILL)

    def _kill_workers(self, report: PoolReport) -> None:
        """Kill workers that do not exit: stopped ones, and those whose runner ignores `terminate` or hangs."""
        for worker in list(self.workers.values()):
            if self._forced:
                self._lose(worker, report)
            else:
                kill_with_tree(worker.pid)
        self._forced = True
        self._kill_after = time.monotonic() + STUCK_AFTER

    def sweep(self) -> list[int]:
        """End the processes that are left when all workers are gone; returns those that do not die."""
        survivors = self._tree.end(time.monotonic(), frozenset(self._pids()))
        reap(frozenset(self._pids()))
        return survivors
