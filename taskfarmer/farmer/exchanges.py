"""A farmer's dealings with the ledger: when to exchange, how much to take, and what to do when it fails.

Owns the cadence and the trouble. Trouble means that results cannot be recorded (a full disk, a quota, an
I/O error): nothing is taken any more, what runs goes on, and the exchange is tried again, its results
in a fresh journal, until it succeeds or the farmer's patience ends.
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
from taskfarmer.farmer.walltime import Deadline
from taskfarmer.formats.intervals import Interval, count_tasks
from taskfarmer.formats.results import LOST, result_line
from taskfarmer.formats.tasks import parse_task
from taskfarmer.formats.timeline import farmer_number, time_slice
from taskfarmer.ledger.ledger import FarmerReport, Ledger
from taskfarmer.ledger.segments import SegmentReader
from taskfarmer.options import Reporter
from taskfarmer.pool.pool import Pool
from taskfarmer.storage import durable
from taskfarmer.views.views import EVERY, Views

LONG_LIST_OF_RETURNED = 4096
LARGEST_LOOK = 4096
OTHERS = 2
"""Tasks that are taken beside one that may have killed its worker."""
LONGEST_LINE = 160
"""Bytes of a result line, at most as a rule."""
PARTS_OF_LIMIT = 4
"""One over the part of the largest journal that is told at once, and that workers may have besides."""
TRIM_EVERY = 1.0
"""Seconds between looks whether tasks that say how long they take still fit."""


class Exchanges:
    """`exhausted` says that the last exchange found nothing to take; `trouble` why none succeeds."""

    def __init__(
        self, reporter: Reporter, ledger: Ledger, pool: Pool, views: Views, deadline: Deadline, max_deaths: int
    ) -> None:
        self.reporter = reporter
        self.ledger = ledger
        self.pool = pool
        self.views = views
        self.deadline = deadline
        self.max_deaths = max_deaths
        self.reader = SegmentReader(ledger.workdir)
        self.trouble: str | None = None
        self.trouble_since = 0.0
        self.on_trouble: Callable[[], None] = lambda: None
        self.retry_at = 0.0
        self.next = 0.0
        self.exhausted = False
        self.lost_here = 0
        self._views_trouble = ""
        self._bucket = pacing.Bucket(3.0, time.monotonic())
        self._passed_over = 0
        self._next_trim = 0.0
        most = ledger.limit / (PARTS_OF_LIMIT * LONGEST_LINE * pool.slots)
        # the results of all that workers have fit into a journal, also if files may not get large (`ulimit -f`)
        self._largest_batch = max(1, int(min(most, sys.maxsize)))
        self.gained: list[Interval] = []
        """Tasks that are ours and not in the queue yet."""

    def pace(self) -> pacing.Pace:
        state = self.ledger.state
        # one quick task says nothing about the others
        duration = state.seconds / state.ended if state.ended >= self.pool.slots else None
        farmers = max(1, len(state.farmers) + (not self.ledger.registered))
        return pacing.Pace(farmers, self.pool.slots, state.slots, self.ledger.commits.exclusive, duration)

    def wants(self) -> int:
        """Tasks to take in an exchange now."""
        state = self.ledger.state
        left = state.unprocessed if len(state.returned) < LONG_LIST_OF_RETURNED else state.tasks
        if self.exhausted and not left:
            left = self.pool.idle  # somebody may have given something back since
        queued = self.pool.queued + self.pool.outstanding - self.pool.busy
        want = pacing.want(self.pace(), self.pool.idle, queued, left)
        # what came back is taken first: others are to show whether they kill workers, too
        return min(left, want + OTHERS) if want and self.pool.deaths.unclear else want

    def due(self, now: float, taking: bool) -> float:
        """When the next exchange is to be looked at; `now + 60` where nothing waits for one."""
        if self.trouble:
            return self.retry_at
        if self.ledger.all_settled and not (taking and self.wants()):
            return now + 60.0
        return self.next

    def if_due(self, now: float, taking: bool) -> None:
        """Exchange if it is time to, or if slots have nothing to do. `taking`: whether tasks may be taken."""
        if self.views.due(now):
            self._show_views()
        if self.pool.ahead and not self.deadline.calm(now, self.ledger.state):
            self.pool.ahead = False
            self.pool.rebalance(patience=0.0)
        if self.trouble:
            if now >= self.retry_at:
                self.make(0)
            return
        want = self.wants() if taking else 0
        if not want and self.ledger.all_settled:
            return
        untold = self.ledger.unsettled_bytes
        much = pacing.too_much(self.pace(), untold) or untold > self.ledger.limit / PARTS_OF_LIMIT
        if now >= self.next or much or self._out_of_turn(now, want):
            self.make(want)

    def _out_of_turn(self, now: float, want: int) -> bool:
        if not want or self.pool.queued or self.exhausted:
            return False
        if not self.pool.idle and self.pool.batch_size == 1:
            return False  # quick tasks that workers have last no longer than an exchange, others do
        bucket = self._bucket.take(now, 1.0 / pacing.period(self.pace()))
        if bucket is None:
            return False
        self._bucket = bucket
        return True

    def make(self, want: int, leave: bool = False, patience: float = math.inf) -> None:
        """One exchange; a disk that takes nothing is trouble, not the end."""
        begin = time.monotonic()
        room = self.deadline.room(begin)
        # where nothing of the last batch fitted, the rest of the list is looked at in larger ones
        wanted = max(want, self._passed_over) if want and self.deadline.fits(begin, self.ledger.state) else 0
        try:
            gained, told = self.ledger.exchange(wanted, leave, patience, room)
        except FileTooLarge:
            raise  # to wait does not help
        except StorageError as error:
            self.in_trouble(str(error))
            return
        if self.trouble:
            self.reporter.info("results can be recorded again")
            self.trouble = None
        self.views.add(told.views, told.size)
        self.gained += gained
        self._take_gained()
        # what is left although we wanted some needs more time than we have
        self.exhausted = not gained and (not self.ledger.state.has_unprocessed or (want > 0 and room < math.inf))
        now = time.monotonic()
        self.deadline.slowest_exchange = max(self.deadline.slowest_exchange, now - begin)
        pace = self.pace()
        self.next = now + pacing.jittered(pacing.period(pace), random.random())
        self.pool.batch_size = min(pacing.batch_size(pace), self._largest_batch)
        # not towards the end of the list: another slot may be free sooner
        state = self.ledger.state
        ahead = pacing.ahead(pace.duration) and self.pool.attentive and state.has_unprocessed
        self.pool.ahead = ahead and self.deadline.calm(now, state)
        self.views.every = pacing.shows(len(self.ledger.state.farmers), EVERY)
        if self.views.due(now) and not leave:  # what is left to show is shown last
            self._show_views()

    def ends_here(self, took_everything: Callable[[], bool]) -> bool:
        """Whether what there is to tell is the last of the farm: it is told as we leave, in one commit.

        `took_everything` takes in what the list has more; False if that did not succeed, or not yet.
        """
        try:
            if not self.ledger.is_last_farmer() or self.ledger.refresh().has_unprocessed:
                return False
            return took_everything() and self.ledger.is_last_farmer()
        except StorageError:
            return False  # the exchange that follows says what is wrong

    def again(self) -> None:
        """There may be more to take: look at once."""
        self.exhausted = False
        self.next = 0.0

    def _show_views(self) -> None:
        try:
            self.views.show()
        except OSError as error:
            self._warn_of_views(f"{error.filename}: {durable.reason(error)}")
        except StorageError as error:
            self._warn_of_views(str(error))

    def _warn_of_views(self, text: str) -> None:
        if text != self._views_trouble:
            self._views_trouble = text
            self.reporter.warning(f"{text}; the views are brought up to date later")

    def mend_views(self) -> None:
        """We were expelled: if nobody else will look at the views, make sure that we left them exact."""
        try:
            self.views.mend()
        except (OSError, TaskFarmerError) as error:
            text = f"{error.filename}: {error.strerror}" if isinstance(error, OSError) else str(error)
            self.reporter.warning(f"{text}; the views may not be exact: taskfarmer check WORKDIR --repair")

    def in_trouble(self, text: str) -> None:
        now = time.monotonic()
        if self.trouble is None:
            self.trouble_since = now
            self.reporter.warning(f"{text}; running tasks go on, no new ones are started")
            self.on_trouble()
        self.trouble = text
        self.retry_at = now + min(5.0, 0.2 + (now - self.trouble_since) / 2)

    def _take_gained(self) -> None:
        """Put what was gained into the queue; where it cannot be read, the rest waits until the trouble is over."""
        try:
            while self.gained:
                self._take(self.gained[0])
                del self.gained[0]
        except StorageError as error:  # what is damaged stays so: that is no trouble, but the end
            self.in_trouble(str(error))

    def give_up(self) -> list[Interval]:
        """Everything that was not begun; it is no longer here."""
        gained, self.gained = self.gained, []
        return gained + self.pool.take_back()

    def no_longer_fits(self, now: float) -> list[Interval]:
        """What was not begun, and for which there is no time any more; it is no longer here."""
        state = self.ledger.state
        if not self.pool.queued or self.deadline.end == math.inf:
            return []
        if not state.timed:
            return [] if self.deadline.fits(now, state) else self.pool.take_back()
        if now < self._next_trim:
            return []
        self._next_trim = now + TRIM_EVERY
        return self.pool.take_back(lambda line: self.deadline.needs(now, line, state) is None)

    def _take(self, interval: Interval) -> None:
        """Put gained tasks into the queue; those that killed too many farmers are recorded as lost."""
        segment = self.ledger.state.segments[interval.segment]
        lines = self.reader.lines(segment, interval.start, interval.count)
        if self.max_deaths and interval.deaths > self.max_deaths:
            self._give_up(interval, lines)
        elif segment.timed:
            self._take_what_fits(interval, lines)
        else:
            self.pool.add(interval, lines)

    def _take_what_fits(self, interval: Interval, lines: list[bytes]) -> None:
        """Put each task that there is time for into the queue; the others go back, and what they need is known."""
        now = time.monotonic()
        state = self.ledger.state
        back = FarmerReport()
        place = 0
        for needs, group in groupby(lines, lambda line: self.deadline.needs(now, line, state)):
            some = list(group)
            part = interval.slice(place, len(some))
            place += len(some)
            if needs is None:
                self.pool.add(part, some)
            else:
                back.returned.append(part.with_needs(max(part.needs, needs)))
        all_passed_over = count_tasks(back.returned) == interval.count
        self._passed_over = min(LARGEST_LOOK, 2 * max(self._passed_over, interval.count)) if all_passed_over else 0
        if not back.is_empty:
            self.ledger.add_report(back)

    def _give_up(self, interval: Interval, lines: list[bytes]) -> None:
        now = time.time()
        tidings = FarmerReport(done=[interval], failed=interval.count)
        number = farmer_number(self.ledger.me)
        for line in lines:
            task_id, command = parse_task(line)
            tidings.lines.append(result_line(task_id, interval.attempt, 0, now, now, LOST, log=b"none"))
            event = time_slice(number, 0, task_id, interval.attempt, command, now, now, LOST, 0, 0, 0.0, 0.0, 0)
            tidings.views.append((b"", line, event))
            times = f"{interval.deaths} times a farmer or a worker died while it ran"
            self.reporter.warning(f"task {task_id} is failed as lost: {times} (--max-deaths)")
        self.lost_here += interval.count
        self.ledger.add_report(tidings)
