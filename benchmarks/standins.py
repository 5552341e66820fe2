"""Replacements for the parts of a farmer that wait for processes or files, for simulated time.

`Slots` replaces its pool, `SimulatedLedger` the ledger's side of a farmer without its commit, `SimulatedExchanges` is
the real cadence, which decides but leaves the action to others.
"""

from __future__ import annotations

import heapq
import math
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, cast

from benchmarks.events import Diary
from taskfarmer.farmer import exchanges
from taskfarmer.formats.intervals import Interval
from taskfarmer.ledger.ledger import FarmerReport, Ledger
from taskfarmer.ledger.state import Segment, State
from taskfarmer.pool.deaths import Deaths


class Slots:
    """Replaces `Pool`: a queue, and running tasks with their end times.

    The farmer learns of an end when it reads the reports. No slot has its next task queued.
    """

    batch_size = 1
    ahead = attentive = False

    def __init__(self, slots: int, lengths: Sequence[float], diary: Diary) -> None:
        self.slots = slots
        self.lengths = lengths
        self.diary = diary
        self.deaths = Deaths()
        self.queued = 0
        self.queue: deque[Interval] = deque()
        self.running: list[tuple[float, int]] = []
        self.ended: list[tuple[float, int]] = []

    @property
    def busy(self) -> int:
        return len(self.running)

    outstanding = busy

    @property
    def idle(self) -> int:
        return self.slots - len(self.running)

    def lines(self, segment: Segment, start: int, count: int) -> list[bytes]:
        """Replaces `SegmentReader`: the commands do not matter."""
        return []

    def add(self, interval: Interval, lines: list[bytes]) -> None:
        self.queue.append(interval)
        self.queued += interval.count

    def dispatch(self, now: float) -> None:
        while self.queued and len(self.running) < self.slots:
            self._begin(now)

    def _begin(self, now: float) -> None:
        first = self.queue[0]
        end = now + self.lengths[first.start]
        heapq.heappush(self.running, (end, first.start))
        self.diary.task(now, end)
        self.queued -= 1
        if first.count == 1:
            self.queue.popleft()
        else:
            self.queue[0] = Interval(first.segment, first.start + 1, first.count - 1)

    def absorb(self, now: float) -> None:
        while self.running and self.running[0][0] <= now:
            self.ended.append(heapq.heappop(self.running))

    def advance(self, now: float, limit: float) -> float:
        """Let time pass from `now` until a slot runs out of tasks, at most until `limit`; the time of that."""
        while self.running and self.running[0][0] <= limit:
            at = max(now, self.running[0][0])
            if not self.queued:
                return at
            self.ended.append(heapq.heappop(self.running))
            self._begin(at)
        return limit


class Journal:
    """Replaces `durable.Journal`."""

    size = 0


class SimulatedLedger(Ledger):
    """A farmer's side of the ledger, in two halves: the part before the commit, and the part after it."""

    won: State
    sent: FarmerReport

    def begin(self, want: int, leave: bool) -> Callable[[State], State]:
        """`Ledger.exchange` until its commit: the change to be committed."""
        sent, self._open = self._open, FarmerReport()
        if self._sent is not None:
            self._sent.add(sent)
            sent = self._sent
        if sent.lines:
            journal = cast(Journal, self._journal or Journal())
            journal.size += sum(map(len, sent.lines))
            self._journal = cast(Any, journal)
            sent.lines = []
        self._sent = self.sent = sent
        self.seq += 1
        return self._change(sent, want, leave, math.inf)

    def exchange(
        self, want: int = 0, leave: bool = False, patience: float = math.inf, seconds_left: float = math.inf
    ) -> tuple[list[Interval], FarmerReport]:
        """The part after the commit."""
        return self._conclude(self.won, self.sent)

    def is_in(self, state: State) -> None:
        """The farmer has joined long ago, and holds the claims in `state`."""
        self.seq, self.commits.last_seen = 1, state
        self._conclude(state, FarmerReport())


class SimulatedExchanges(exchanges.Exchanges):
    """The cadence. It records its decisions; the farmer carries them out, and then reports the result."""

    asked: int | None = None
    to_show = False
    concluding = False

    def exchange(self, want: int, leave: bool = False, patience: float = math.inf) -> None:
        if self.concluding:
            super().exchange(want, leave, patience)
        else:
            self.asked = want

    def _update_views(self) -> None:
        self.to_show = True


class OneAtATime(SimulatedExchanges):
    """Another cadence: when slots are idle it claims a task for each, and none in advance."""

    def tasks_to_claim(self) -> int:
        return self.pool.idle

    def _may_exchange_early(self, now: float, want: int) -> bool:
        return want > 0 and not self.exhausted


class NoDeadline:
    """Stands for `Walltime`: there is time without end."""

    slowest_exchange = 0.0

    def seconds_left(self, now: float) -> float:
        return math.inf

    def may_claim(self, now: float, state: State) -> bool:
        return True
