"""When a farmer exchanges with the ledger, how many tasks it claims, and how it handles storage errors.

Owns the schedule of exchanges and the state `storage_error`. In that state results cannot be recorded (full disk,
exceeded quota, I/O error): the farmer claims nothing, running tasks continue, and the exchange is retried with a new
journal until it succeeds or the farmer gives up.
"""

from __future__ import annotations

import math
import random
import sys
import time
from collections.abc import Callable
from itertools import groupby

from taskfarmer.errors import FileTooLarge, StorageError, TaskFarmerError
from taskfarmer.farmer import pacing
from taskfarmer.farmer.walltime import Walltime
from taskfarmer.formats.intervals import Interval, count_tasks
from taskfarmer.formats.results import LOST, result_line
from taskfarmer.formats.tasks import parse_task
from taskfarmer.formats.timeline import farmer_number, time_slice
from taskfarmer.ledger.ledger import FarmerReport, Ledger
from taskfarmer.ledger.segments import SegmentReader
from taskfarmer.options import Reporter
from taskfarmer.pool.pool import Pool
from taskfarmer.storage import durable
from taskfarmer.views.views import UPDATE_EVERY, Views

LONG_LIST_OF_RETURNED = 4096
LARGEST_SKIP_WINDOW = 4096
EXTRA_CLAIM = 2
"""Additional tasks claimed while it is unclear whether a task or the node killed a worker."""
LONGEST_LINE = 160
"""Bytes of a result line; few are longer."""
SHARES_OF_LIMIT = 4
"""The farmer settles when its results fill 1/4 of the largest journal, and its workers hold at most another 1/4."""
TRIM_EVERY = 1.0
"""Seconds between checks whether queued tasks with a known duration still fit."""


class Exchanges:
    """Decides when to exchange with the ledger, and does it.

    `exhausted`: the last exchange found no task to claim. `storage_error`: why exchanges fail, None while they succeed.
    """

    def __init__(
        self, reporter: Reporter, ledger: Ledger, pool: Pool, views: Views, walltime: Walltime, max_deaths: int
    ) -> None:
        self.reporter = reporter
        self.ledger = ledger
        self.pool = pool
        self.views = views
        self.walltime = walltime
        self.max_deaths = max_deaths
        self.reader = SegmentReader(ledger.workdir)
        self.storage_error: str | None = None
        self.storage_error_since = 0.0
        self.on_storage_error: Callable[[], None] = lambda: None
        self.retry_at = 0.0
        self.next_exchange = 0.0
        self.exhausted = False
        self.lost_here = 0
        self._views_error = ""
        self._bucket = pacing.TokenBucket(3.0, time.monotonic())
        self._skip_window = 0
        self._next_trim = 0.0
        most = ledger.limit / (SHARES_OF_LIMIT * LONGEST_LINE * pool.slots)
        # the results of all batches in flight fit into a journal, even if files must stay small (`ulimit -f`)
        self._largest_batch = max(1, int(min(most, sys.maxsize)))
        self.pending: list[Interval] = []
        """Claimed tasks that are not in the queue yet."""

    def pace(self) -> pacing.Pace:
        state = self.ledger.state
        # the first finished tasks would give a wrong estimate, because quick tasks finish first
        duration = state.seconds / state.ended if state.ended >= self.pool.slots else None
        farmers = max(1, len(state.farmers) + (not self.ledger.registered))
        return pacing.Pace(farmers, self.pool.slots, state.slots, self.ledger.commits.exclusive, duration)

    def tasks_to_claim(self) -> int:
        """Number of tasks that an exchange should claim now."""
        state = self.ledger.state
        left = state.unprocessed if len(state.returned) < LONG_LIST_OF_RETURNED else state.tasks
        if self.exhausted and not left:
            left = self.pool.idle  # another farmer may have released some since
        queued = self.pool.queued + self.pool.outstanding - self.pool.busy
        size = pacing.claim_size(self.pace(), self.pool.idle, queued, left)
        # returned tasks are claimed first: extra ones show whether other tasks kill workers too
        return min(left, size + EXTRA_CLAIM) if size and self.pool.deaths.unclear else size

    def next_check(self, now: float, may_claim: bool) -> float:
        """When to check next whether an exchange is due; `now + 60` if there is nothing to exchange."""
        if self.storage_error:
            return self.retry_at
        if self.ledger.all_settled and not (may_claim and self.tasks_to_claim()):
            return now + 60.0
        return self.next_exchange

    def exchange_if_due(self, now: float, may_claim: bool) -> None:
        """Exchange if the time has come or slots are idle; claim tasks only if `may_claim`."""
        if self.views.due(now):
            self._update_views()
        if self.pool.ahead and not self.walltime.allows_prefetch(now, self.ledger.state):
            self.pool.ahead = False
            self.pool.rebalance(patience=0.0)
        if self.storage_error:
            if now >= self.retry_at:
                self.exchange(0)
            return
        want = self.tasks_to_claim() if may_claim else 0
        if not want and self.ledger.all_settled:
            return
        size = self.ledger.unsettled_bytes
        flush = pacing.should_flush(self.pace(), size) or size > self.ledger.limit / SHARES_OF_LIMIT
        if now >= self.next_exchange or flush or self._may_exchange_early(now, want):
            self.exchange(want)

    def _may_exchange_early(self, now: float, want: int) -> bool:
        if not want or self.pool.queued or self.exhausted:
            return False
        if not self.pool.idle and self.pool.batch_size == 1:
            return False  # every slot runs a task longer than an exchange, so none will wait for this one
        bucket = self._bucket.spend(now, 1.0 / pacing.period(self.pace()))
        if bucket is None:
            return False
        self._bucket = bucket
        return True

    def exchange(self, want: int, leave: bool = False, patience: float = math.inf) -> None:
        """Settle results and claim up to `want` tasks in one commit; note a storage error instead of raising it."""
        started = time.monotonic()
        seconds_left = self.walltime.seconds_left(started)
        # if no task of the last claim fitted, larger claims search the rest of the list
        wanted = max(want, self._skip_window) if want and self.walltime.may_claim(started, self.ledger.state) else 0
        try:
            claimed, settled = self.ledger.exchange(wanted, leave, patience, seconds_left)
        except FileTooLarge:
            raise  # a retry would fail as well
        except StorageError as error:
            self.note_storage_error(str(error))
            return
        if self.storage_error:
            self.reporter.info("results can be recorded again")
            self.storage_error = None
        self.views.add(settled.views, settled.size)
        self.pending += claimed
        self._queue_pending()
        # tasks that are left although some were wanted need more time than this farmer has
        self.exhausted = not claimed and (
            not self.ledger.state.has_unprocessed or (want > 0 and seconds_left < math.inf)
        )
        now = time.monotonic()
        self.walltime.slowest_exchange = max(self.walltime.slowest_exchange, now - started)
        pace = self.pace()
        self.next_exchange = now + pacing.jittered(pacing.period(pace), random.random())
        self.pool.batch_size = min(pacing.batch_size(pace), self._largest_batch)
        # no prefetch near the end of the list: another slot may become free earlier
        state = self.ledger.state
        prefetch = pacing.should_prefetch(pace.duration) and self.pool.attentive and state.has_unprocessed
        self.pool.ahead = prefetch and self.walltime.allows_prefetch(now, state)
        self.views.every = pacing.view_period(len(self.ledger.state.farmers), UPDATE_EVERY)
        if self.views.due(now) and not leave:  # a leaving farmer updates the views last of all
            self._update_views()

    def is_last(self, list_is_complete: Callable[[], bool]) -> bool:
        """Whether the unsettled results are the farm's last ones, so that the commit that leaves can settle them.

        `list_is_complete` imports new lines of the task list, and returns False if that failed or is not possible yet.
        """
        try:
            if not self.ledger.is_last_farmer() or self.ledger.refresh().has_unprocessed:
                return False
            return list_is_complete() and self.ledger.is_last_farmer()
        except StorageError:
            return False  # the exchange that follows reports the error

    def reset(self) -> None:
        """Exchange as soon as possible, because there may be new tasks to claim."""
        self.exhausted = False
        self.next_exchange = 0.0

    def _update_views(self) -> None:
        try:
            self.views.update()
        except OSError as error:
            self._warn_of_views(f"{error.filename}: {durable.reason(error)}")
        except StorageError as error:
            self._warn_of_views(str(error))

    def _warn_of_views(self, text: str) -> None:
        if text != self._views_error:
            self._views_error = text
            self.reporter.warning(f"{text}; the views will be updated later")

    def repair_views(self) -> None:
        """Make the views exact after this farmer was expelled, unless another farmer will."""
        try:
            self.views.complete_after_expulsion()
        except (OSError, TaskFarmerError) as error:
            text = f"{error.filename}: {error.strerror}" if isinstance(error, OSError) else str(error)
            self.reporter.warning(f"{text}; the views may be stale; rebuild them: taskfarmer check WORKDIR --repair")

    def note_storage_error(self, text: str) -> None:
        now = time.monotonic()
        if self.storage_error is None:
            self.storage_error_since = now
            self.reporter.warning(f"{text}; running tasks continue, no new ones are started")
            self.on_storage_error()
        self.storage_error = text
        self.retry_at = now + min(5.0, 0.2 + (now - self.storage_error_since) / 2)

    def _queue_pending(self) -> None:
        """Put claimed tasks into the queue. Those that cannot be read stay pending until the storage error is gone."""
        try:
            while self.pending:
                self._queue(self.pending[0])
                del self.pending[0]
        except StorageError as error:  # Damaged is not caught: a corrupt segment stays corrupt, so it is fatal
            self.note_storage_error(str(error))

    def remove_unstarted(self) -> list[Interval]:
        """Remove and return all tasks not yet started."""
        pending, self.pending = self.pending, []
        return pending + self.pool.release_queued()

    def remove_too_long(self, now: float) -> list[Interval]:
        """Remove and return the tasks that are not started yet and would no longer finish in time."""
        state = self.ledger.state
        if not self.pool.queued or self.walltime.end == math.inf:
            return []
        if not state.timed:
            return [] if self.walltime.may_claim(now, state) else self.pool.release_queued()
        if now < self._next_trim:
            return []
        self._next_trim = now + TRIM_EVERY
        return self.pool.release_queued(lambda line: self.walltime.needs_more(now, line, state) is None)

    def _queue(self, interval: Interval) -> None:
        """Put claimed tasks into the queue; record those that killed too many farmers or workers as lost."""
        segment = self.ledger.state.segments[interval.segment]
        lines = self.reader.lines(segment, interval.start, interval.count)
        if self.max_deaths and interval.deaths > self.max_deaths:
            self._record_lost(interval, lines)
        elif segment.timed:
            self._queue_fitting(interval, lines)
        else:
            self.pool.add(interval, lines)

    def _queue_fitting(self, interval: Interval, lines: list[bytes]) -> None:
        """Queue the tasks that fit into the time left; release the others together with the time they need."""
        now = time.monotonic()
        state = self.ledger.state
        released = FarmerReport()
        place = 0
        for needs, group in groupby(lines, lambda line: self.walltime.needs_more(now, line, state)):
            block = list(group)
            part = interval.slice(place, len(block))
            place += len(block)
            if needs is None:
                self.pool.add(part, block)
            else:
                released.returned.append(part.with_needs(max(part.needs, needs)))
        all_skipped = count_tasks(released.returned) == interval.count
        self._skip_window = min(LARGEST_SKIP_WINDOW, 2 * max(self._skip_window, interval.count)) if all_skipped else 0
        if not released.is_empty:
            self.ledger.add_report(released)

    def _record_lost(self, interval: Interval, lines: list[bytes]) -> None:
        now = time.time()
        report = FarmerReport(done=[interval], failed=interval.count)
        number = farmer_number(self.ledger.me)
        for line in lines:
            task_id, command = parse_task(line)
            report.lines.append(result_line(task_id, interval.attempt, 0, now, now, LOST, log=b"none"))
            event = time_slice(number, 0, task_id, interval.attempt, command, now, now, LOST, 0, 0, 0.0, 0.0, 0)
            report.views.append((b"", line, event))
            deaths = f"a farmer or a worker died {interval.deaths} times while running it"
            self.reporter.warning(f"task {task_id} failed as lost: {deaths} (--max-deaths)")
        self.lost_here += interval.count
        self.ledger.add_report(report)
