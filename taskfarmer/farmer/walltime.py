"""How much time a farmer has left, and which tasks still fit into it.

A farmer ends at `--timeout`, or at the end of its allocation less a margin; the latter may become known while tasks
run. A task is expected to take as long as its line or `--min-time-left` states, or else as long as nearly all finished
tasks of the farm took.
"""

from __future__ import annotations

import math
import os
import time

from taskfarmer import protocol
from taskfarmer.farmer import pacing
from taskfarmer.farmer.events import human_duration
from taskfarmer.formats.intervals import Interval
from taskfarmer.formats.tasks import task_time
from taskfarmer.launch import squeue
from taskfarmer.ledger.state import FITS_AGAIN, State
from taskfarmer.options import Reporter, Settings
from taskfarmer.peers.heartbeat import Presence
from taskfarmer.pool.pool import Pool
from taskfarmer.proctree import STUCK_AFTER
from taskfarmer.storage.layout import Workdir

MARGIN = 60.0
ANSWER_WITHIN = 3.0
"""Seconds for which a farmer waits to learn the end of its allocation, if task durations are known."""
PREFETCH_UNTIL = 120.0
"""A farmer stops prefetching tasks into slots at least this many seconds before the warning of its end."""
EXCHANGES_TO_LEAVE = 3


class Walltime:
    """The end of a farmer's time. All times are in seconds; they are infinite while no end is known."""

    def __init__(self, settings: Settings, reporter: Reporter, workdir: Workdir, started: float) -> None:
        self.settings = settings
        self.reporter = reporter
        self.slowest_exchange = 0.0
        self._started = started
        self.warned = settings.warn_signal is None
        self._clock_offset = time.time() - time.monotonic()
        self._allocation: squeue.Allocation | None = None
        self._end = math.inf
        self._expected: tuple[State | None, float] = None, 0.0
        if settings.timeout is None:
            self._allocation = squeue.Allocation(workdir, os.environ, started)
            self._report_end(started)
        else:
            self._end = started + settings.timeout

    def update(self, now: float, pool: Pool, presence: Presence | None) -> None:
        """Learn the end of the allocation if it has become known, and warn the tasks when it is near."""
        if self._allocation is not None and self._allocation.update(now):
            self._report_end(now)
            pool.broadcast(protocol.Command(protocol.DEADLINE, seconds=self.epoch_end))
            if presence is not None:
                presence.add_job_info("SLURM_JOB_END_TIME", f"{self._allocation.end:.0f}")
        if not self.warned and now >= self.end - self.settings.warn_time:
            self.warned = True
            assert self.settings.warn_signal is not None
            pool.broadcast(protocol.Command(protocol.WARN, number=self.settings.warn_signal))
            left = human_duration(self.seconds_left(now))
            self.reporter.info(f"{left} left: warning the running tasks (--warn-signal)")

    def wait_for_end_time(self, now: float, state: State) -> float:
        """Until when to start no task because the end of the allocation is not known yet; 0 to start at once."""
        asked = self._allocation is not None and not self._allocation.settled
        until = self._started + ANSWER_WITHIN
        return until if asked and now < until and (state.timed or self.expected(state)) else 0.0

    def _report_end(self, now: float) -> None:
        if self._allocation is None or self._allocation.end is None:
            return
        left = self._allocation.end - self._clock_offset - now
        margin = human_duration(self.margin)
        if left <= self.margin:
            self.reporter.warning(
                f"the allocation ends in {human_duration(max(0.0, left))}, less than the margin of {margin} for "
                "stopping tasks: no task is started; ask for more --time, or give a shorter --margin or "
                "`--timeout none`"
            )
        else:
            self.reporter.info(
                f"the allocation ends in {human_duration(left)}; tasks still running {margin} before that will be "
                "stopped and put back on the list"
            )

    @property
    def stop_reason(self) -> str:
        return "--timeout" if self._allocation is None else "the end of the allocation"

    @property
    def margin(self) -> float:
        """Seconds before the end of the allocation at which running tasks are stopped and released."""
        if self.settings.margin is not None:
            return self.settings.margin
        return max(MARGIN, self.settings.grace + STUCK_AFTER + EXCHANGES_TO_LEAVE * self.slowest_exchange)

    @property
    def end(self) -> float:
        """When this farmer stops, on the monotonic clock."""
        if self._allocation is not None and self._allocation.end is not None:
            return self._allocation.end - self._clock_offset - self.margin
        return self._end

    @property
    def epoch_end(self) -> float:
        """The same in epoch seconds, for the tasks; 0 while no end is known."""
        end = self.end
        return end + self._clock_offset if end < math.inf else 0.0

    @property
    def next_check(self) -> float:
        """When to call `update` next."""
        due = self.end if self.warned else self.end - self.settings.warn_time
        if self._allocation is not None and not self._allocation.settled:
            due = min(due, self._allocation.next_check)
        return due

    def seconds_left(self, now: float) -> float:
        """Seconds that a task has if it starts now."""
        return max(0.0, self.end - now)

    def has_expired(self, now: float) -> bool:
        return now >= self.end

    def expected(self, state: State) -> float:
        """Expected seconds of a task of this farm; 0 without an estimate."""
        if self.settings.min_time_left is not None:
            return self.settings.min_time_left
        if state is not self._expected[0]:
            self._expected = state, pacing.expected_duration(state.times, state.finished)
        return self._expected[1]

    def allows_prefetch(self, now: float, state: State) -> bool:
        """Whether the end is so far away that a slot may hold its next task while it runs another."""
        if self._allocation is not None and not self._allocation.settled:
            return False
        if self.end == math.inf:
            return True
        least = max(PREFETCH_UNTIL, 4 * self.expected(state))
        return not state.timed and self.seconds_left(now) - self.settings.warn_time > least

    def may_claim(self, now: float, state: State) -> bool:
        """Whether tasks may be claimed. If lines state a time, each task is checked individually (`needs_more`)."""
        if self.end == math.inf:
            return True
        return not self._after_warning and (state.timed or self.seconds_left(now) > self.expected(state))

    @property
    def _after_warning(self) -> bool:
        """Whether the running tasks were warned: a task that starts later would miss the warning."""
        return self.settings.warn_signal is not None and self.warned

    def needs_more(self, now: float, line: bytes, state: State) -> int | None:
        """The seconds that a task needs if there is less time than that; None if it fits."""
        if self.end == math.inf:
            return None
        stated = task_time(line)
        seconds = self.expected(state) if stated is None else stated
        return int(seconds) + 1 if self._after_warning or self.seconds_left(now) <= seconds else None

    def anything_fits(self, now: float, state: State) -> bool:
        """Whether there is a task that may be claimed and started."""
        return self.may_claim(now, state) and state.has_claimable(self.seconds_left(now))

    def report_skipped(self, now: float, state: State) -> None:
        """Log why this farmer exits although there are tasks."""
        expected, left = self.expected(state), self.seconds_left(now)
        one = state.unprocessed == 1
        which = "the remaining task" if one else f"the {state.unprocessed} remaining tasks"
        about = f" (about {human_duration(expected)}{' each' * (not one)})" if expected > left else ""
        them = "it" if one else "them"
        self.reporter.info(f"{human_duration(left)} left, too short for {which}{about}; leaving {them} to the next job")

    def warn_of_overruns(self, overran: list[Interval], state: State) -> None:
        """Warn of tasks that did not finish in the longest time that any farmer had."""
        for one in overran:
            if one.needs >= int(state.longest * FITS_AGAIN) > 0:
                first = state.first_id(one)
                tasks = f"task {first}" if one.count == 1 else f"tasks {first} to {first + one.count - 1}"
                self.reporter.warning(
                    f"{tasks} again did not finish in the longest time that any farmer had "
                    f"({human_duration(state.longest)}); only a farmer with more time will retry; ask for more --time"
                )
