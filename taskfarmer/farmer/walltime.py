"""How much time a farmer has, and what it still starts in it.

The end is `--timeout`, or that of the allocation less a margin; it may become known while tasks run. A task
is expected to take what `--min-time-left` says, or else what nearly all finished tasks of the farm took.
"""

from __future__ import annotations

import math
import os
import time

from taskfarmer import protocol
from taskfarmer.farmer import pacing
from taskfarmer.farmer.events import lasting
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
"""Seconds for which a farmer begins nothing until it knows when its allocation ends, where that matters."""
CALM = 120.0
"""Seconds before the warning of its end from which on a farmer lets no task wait in a slot, at least."""
EXCHANGES_TO_LEAVE = 3


class Deadline:
    """`room` is the time left in seconds; infinite where no end is known."""

    def __init__(self, settings: Settings, reporter: Reporter, workdir: Workdir, begin: float) -> None:
        self.settings = settings
        self.reporter = reporter
        self.slowest_exchange = 0.0
        self._begin = begin
        self.warned = settings.warn_signal is None
        self._clock = time.time() - time.monotonic()
        self._allocation: squeue.Allocation | None = None
        self._end = math.inf
        self._expected: tuple[State | None, float] = None, 0.0
        if settings.timeout is None:
            self._allocation = squeue.Allocation(workdir, os.environ, begin)
            self._say_end(begin)
        else:
            self._end = begin + settings.timeout

    def mind(self, now: float, pool: Pool, presence: Presence | None) -> None:
        """See whether the end of the allocation has become known, and warn the tasks when it is near."""
        if self._allocation is not None and self._allocation.look(now):
            self._say_end(now)
            pool.tell(protocol.Command(protocol.DEADLINE, seconds=self.epoch_end))
            if presence is not None:
                presence.add_job_info("SLURM_JOB_END_TIME", f"{self._allocation.end:.0f}")
        if not self.warned and now >= self.end - self.settings.warn_time:
            self.warned = True
            assert self.settings.warn_signal is not None
            pool.tell(protocol.Command(protocol.WARN, number=self.settings.warn_signal))
            self.reporter.info(f"{lasting(self.room(now))} left: the running tasks are warned (--warn-signal)")

    def awaited(self, now: float, state: State) -> float:
        """When to begin tasks although the end is not known yet, by how long they take; 0 where that is at once."""
        asked = self._allocation is not None and not self._allocation.settled
        by = self._begin + ANSWER_WITHIN
        return by if asked and now < by and (state.timed or self.expected(state)) else 0.0

    def _say_end(self, now: float) -> None:
        if self._allocation is None or self._allocation.end is None:
            return
        left = self._allocation.end - self._clock - now
        if left <= self.margin:
            self.reporter.warning(
                f"the allocation ends in {lasting(max(0.0, left))}, and giving back is begun {lasting(self.margin)} "
                "before that: nothing is started; ask for more --time, or give a shorter --margin or `--timeout none`"
            )
        else:
            self.reporter.info(
                f"the allocation ends in {lasting(left)}; what runs {lasting(self.margin)} before that goes back"
            )

    @property
    def why(self) -> str:
        return "--timeout" if self._allocation is None else "the end of the allocation"

    @property
    def margin(self) -> float:
        """Seconds before the end of the allocation at which tasks are ended and given back."""
        if self.settings.margin is not None:
            return self.settings.margin
        return max(MARGIN, self.settings.grace + STUCK_AFTER + EXCHANGES_TO_LEAVE * self.slowest_exchange)

    @property
    def end(self) -> float:
        """When this farmer stops, on the monotonic clock; infinite where no end is known."""
        if self._allocation is not None and self._allocation.end is not None:
            return self._allocation.end - self._clock - self.margin
        return self._end

    @property
    def epoch_end(self) -> float:
        """The same in epoch seconds, 0 where no end is known: what tasks are told."""
        end = self.end
        return end + self._clock if end < math.inf else 0.0

    @property
    def due(self) -> float:
        """When something of this is to be looked at again."""
        due = self.end if self.warned else self.end - self.settings.warn_time
        if self._allocation is not None and not self._allocation.settled:
            due = min(due, self._allocation.due)
        return due

    def room(self, now: float) -> float:
        """Seconds for tasks that begin now."""
        return max(0.0, self.end - now)

    def over(self, now: float) -> bool:
        return now >= self.end

    def expected(self, state: State) -> float:
        """Seconds that a task of this farm takes as far as is known; 0 where nothing is known."""
        if self.settings.min_time_left is not None:
            return self.settings.min_time_left
        if state is not self._expected[0]:
            self._expected = state, pacing.expected(state.times, state.finished)
        return self._expected[1]

    def calm(self, now: float, state: State) -> bool:
        """Whether the end is so far away that a task may wait in a slot for the one before it."""
        if self._allocation is not None and not self._allocation.settled:
            return False
        if self.end == math.inf:
            return True
        return not state.timed and self.room(now) - self.settings.warn_time > max(CALM, 4 * self.expected(state))

    def fits(self, now: float, state: State) -> bool:
        """Whether tasks may be taken; where some say how long they take, each is looked at by itself."""
        if self.end == math.inf:
            return True
        return not self._nothing_more and (state.timed or self.room(now) > self.expected(state))

    @property
    def _nothing_more(self) -> bool:
        """After a warning nothing is begun, since nobody would warn it."""
        return self.settings.warn_signal is not None and self.warned

    def needs(self, now: float, line: bytes, state: State) -> int | None:
        """None where there is time for a task; else the seconds that it needs, by its line where that says so."""
        if self.end == math.inf:
            return None
        own = task_time(line)
        seconds = self.expected(state) if own is None else own
        return int(seconds) + 1 if self._nothing_more or self.room(now) <= seconds else None

    def anything_fits(self, now: float, state: State) -> bool:
        """Whether there is a task to take that may be begun."""
        return self.fits(now, state) and state.has_claimable(self.room(now))

    def say_what_is_left(self, now: float, state: State) -> None:
        """Tell why a farmer ends although there are tasks."""
        expected = self.expected(state)
        one = state.unprocessed == 1
        which = "the task that is left" if one else f"the {state.unprocessed} tasks that are left"
        if expected > self.room(now):
            why = f"take{'s' * one} about {lasting(expected)}"
        else:
            why = f"need{'s' * one} more time than that"
        what = f"{which} {why}: {'it is' if one else 'they are'}"
        self.reporter.info(f"{lasting(self.room(now))} left, and {what} for the next job")

    def say_what_is_too_long(self, overran: list[Interval], state: State) -> None:
        """Tell of tasks that had the longest time that there was, and did not end."""
        for one in overran:
            if one.needs >= int(state.longest * FITS_AGAIN) > 0:
                first = state.first_id(one)
                tasks = f"task {first}" if one.count == 1 else f"tasks {first} to {first + one.count - 1}"
                self.reporter.warning(
                    f"{tasks} did not end in the longest time that any farmer had ({lasting(state.longest)}), and not "
                    "for the first time: begun again only where there is more; ask for more --time"
                )
