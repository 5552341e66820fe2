"""How many tasks a farmer claims and how often it exchanges: pure functions of its measurements.

The ledger is one file that all farmers replace in turn. The cost of an exchange to the others determines how often a
farmer may exchange; the duration of tasks determines how many it must hold until the next exchange. The constants come
from the model in docs/architecture.md: commits may use `EXCLUSIVE_SHARE` of the time, and the whole farm may use
`OPERATIONS` file operations per second for exchanges and `VIEW_OPERATIONS` for views.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import NamedTuple

from taskfarmer.formats.durations import class_end

SHORTEST_PERIOD = 1.0
LONGEST_PERIOD = 300.0
EXCLUSIVE_SHARE = 0.4
OPERATIONS = 240.0
OPERATIONS_PER_EXCHANGE = 16.0
JITTER = 0.15
SHORTEST_IDLE_PERIOD = 2.0
OPERATIONS_PER_IDLE_CHECK = 6.0
VIEW_OPERATIONS = 52.0
OPERATIONS_PER_VIEW_UPDATE = 16.0
SHORTEST_BATCH = 0.2
"""Seconds of work in a batch. A worker reports twice per batch, so that its next batch arrives in time."""
LONGEST_BATCH, BATCHES_PER_PERIOD = 1.0, 5
"""Large farms exchange less often, so their batches are longer: a fifth of the period, up to so many seconds."""
LARGEST_BATCH = 16_384
PREFETCH_BELOW = 5.0
"""A slot holds its next task in advance if tasks take fewer seconds than this."""
LARGEST_RESERVE = 250_000
"""Tasks held until the next exchange, at most, because their lines are kept in memory."""
FLUSH_BYTES = 4 << 20
"""Bytes of results after which a farmer that is alone exchanges early. Together with their lines for the views they
occupy four times as much memory."""
MIN_SAMPLES = 20
QUANTILE = 0.95


class Pace(NamedTuple):
    """The measurements of a farmer.

    farmers: number of living farmers in the farm.
    slots, all_slots: slots of this farmer and of the whole farm.
    section: seconds that the exclusive section of a commit takes.
    duration: mean seconds of a task; None before enough tasks have ended.
    """

    farmers: int
    slots: int
    all_slots: int
    section: float
    duration: float | None


def period(pace: Pace) -> float:
    """Seconds between two exchanges of one farmer."""
    least = max(
        SHORTEST_PERIOD,
        20 * pace.section,
        pace.farmers * pace.section / EXCLUSIVE_SHARE,
        pace.farmers * OPERATIONS_PER_EXCHANGE / OPERATIONS if pace.farmers > 1 else 0.0,
    )
    return min(LONGEST_PERIOD, least)


def should_flush(pace: Pace, size: int) -> bool:
    """Whether `size` bytes of results are a reason to exchange early. A farmer that is alone delays no others."""
    return size > FLUSH_BYTES and pace.farmers == 1


def idle_period(pace: Pace) -> float:
    """Seconds between two checks of a farmer that only waits for others."""
    return max(period(pace), SHORTEST_IDLE_PERIOD, pace.farmers * OPERATIONS_PER_IDLE_CHECK / OPERATIONS)


def view_period(farmers: int, least: float) -> float:
    """Seconds between two updates of the views by one of `farmers` farmers, and at least `least`."""
    return max(least, farmers * OPERATIONS_PER_VIEW_UPDATE / VIEW_OPERATIONS)


def jittered(seconds: float, chance: float) -> float:
    """`seconds` plus or minus 15 %, for a `chance` in [0, 1): spreads farmers that started at the same time."""
    return seconds * (1 + JITTER * (2 * chance - 1))


def claim_size(pace: Pace, idle: int, queued: int, left: int) -> int:
    """Number of tasks to claim now, so that all slots have work until the next exchange and others get their share.

    `idle` slots have no task, `queued` tasks are held but not running, and `left` tasks may be claimed.
    """
    if pace.duration is None:
        return max(0, min(left, idle - queued))
    until_next = period(pace)
    needed = pace.slots * ((1 + JITTER) * until_next + pace.section) / max(pace.duration, 1e-6)
    # if tasks take much longer than the period, an exchange is possible whenever a slot becomes free
    reserve = 0 if pace.duration > 4 * until_next else math.ceil(needed + 2 * math.sqrt(needed))
    reserve = min(reserve, LARGEST_RESERVE)
    wanted = idle + reserve - queued
    if pace.farmers > 1:
        slots = max(pace.all_slots, pace.slots)
        # Usually half of the fair share, so that latecomers find tasks, too. The whole share if the remaining tasks end
        # before the next exchange: with less, slots would be idle until then.
        divisor = 1 if left * pace.duration < until_next * slots else 2
        fair = math.ceil(left * pace.slots / (divisor * slots))
        wanted = min(wanted, max(idle - queued, fair))
    return max(0, min(left, wanted))


def expected_duration(times: Mapping[int, int], finished: int) -> float:
    """Seconds within which 95 % of the finished tasks ended; 0 if fewer than 20 have finished.

    `times` counts the tasks of a second or more by their class of durations (`formats/durations.py`).
    """
    slow = sum(times.values())
    total = max(finished, slow)
    if total < MIN_SAMPLES:
        return 0.0
    counted = total - slow
    longest = 1.0
    for number in sorted(times):
        if counted >= QUANTILE * total:
            break
        counted += times[number]
        longest = class_end(number)
    return longest


def batch_size(pace: Pace) -> int:
    """Number of tasks to send to a worker at once: the work of 0.2 to 1 s, or one task if tasks take longer."""
    if pace.duration is None:
        return 1
    seconds = min(LONGEST_BATCH, max(SHORTEST_BATCH, period(pace) / BATCHES_PER_PERIOD))
    return max(1, min(LARGEST_BATCH, int(seconds / max(pace.duration, 1e-6))))


def should_prefetch(duration: float | None) -> bool:
    """Whether a slot should hold its next task in advance: a short task often ends while the farmer exchanges."""
    return duration is not None and duration < PREFETCH_BELOW


class TokenBucket(NamedTuple):
    """A token bucket that limits early exchanges: it gains `rate` tokens per second, up to `depth`."""

    tokens: float
    at: float
    depth: float = 3.0

    def spend(self, now: float, rate: float) -> TokenBucket | None:
        """The bucket with one token less; None if it is empty."""
        tokens = min(self.depth, self.tokens + (now - self.at) * rate)
        return TokenBucket(tokens - 1, now, self.depth) if tokens >= 1 else None
