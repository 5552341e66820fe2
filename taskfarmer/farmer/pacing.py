"""How much to take and how often to tell: pure functions of what a farmer has measured.

The ledger is one file that all farmers replace in turn, so what an exchange costs the others sets how
often it may happen; how long tasks take sets how many must be held until the next one. Numbers are
from the model in docs/architecture.md: `SHARE` of the time may be spent in exclusive sections,
`OPERATIONS` file operations per second by the whole farm for exchanges, `OPERATIONS_OF_SHOWS` for views.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import NamedTuple

from taskfarmer.formats.durations import class_end

SHORTEST = 1.0
LONGEST = 300.0
SHARE = 0.4
OPERATIONS = 240.0
PER_EXCHANGE = 16.0
JITTER = 0.15
WAITING = 2.0
OPERATIONS_OF_A_LOOK = 6.0
PER_SHOW = 16.0
OPERATIONS_OF_SHOWS = 52.0
BATCH = 0.2
"""Seconds of work in a batch: a worker tells twice as often how far it has come, so that the next one comes in time."""
LONGEST_BATCH, BATCHES = 1.0, 5
"""The same in a large farm, which records what is told so many batches later."""
LARGEST_BATCH = 16_384
AHEAD = 5.0
"""Seconds: a slot whose tasks are shorter has the next one at hand."""
LARGEST_RESERVE = 250_000
"""Tasks to have until the next exchange, at most, since their lines are kept in memory."""
MUCH_UNTOLD = 4 << 20
"""Bytes of results that a farmer which is alone does not keep until its turn: with all that is to be shown of them they
are four times as many."""
ENOUGH = 20
NEARLY_ALL = 0.95


class Pace(NamedTuple):
    """What a farmer knows: `farmers` that live, its own `slots` and `all_slots`, seconds per exclusive
    `section` and per task (`duration`, None before enough have ended)."""

    farmers: int
    slots: int
    all_slots: int
    section: float
    duration: float | None


def period(pace: Pace) -> float:
    """Seconds between two exchanges of one farmer."""
    least = max(
        SHORTEST,
        20 * pace.section,
        pace.farmers * pace.section / SHARE,
        pace.farmers * PER_EXCHANGE / OPERATIONS if pace.farmers > 1 else 0.0,
    )
    return min(LONGEST, least)


def too_much(pace: Pace, untold: int) -> bool:
    """Whether so many bytes of results are to be told before it is time: where that costs nobody else anything."""
    return untold > MUCH_UNTOLD and pace.farmers == 1


def waiting(pace: Pace) -> float:
    """Seconds between two looks of a farmer that only waits for others."""
    return max(period(pace), WAITING, pace.farmers * OPERATIONS_OF_A_LOOK / OPERATIONS)


def shows(farmers: int, least: float) -> float:
    """Seconds between two updates of the views by one of so many farmers, `least` where they are few."""
    return max(least, farmers * PER_SHOW / OPERATIONS_OF_SHOWS)


def jittered(seconds: float, chance: float) -> float:
    """`chance` in [0, 1) spreads exchanges of farmers that started together."""
    return seconds * (1 + JITTER * (2 * chance - 1))


def want(pace: Pace, idle: int, queued: int, left: int) -> int:
    """Tasks to take now, so that `slots` have work until the next exchange and others have theirs."""
    if pace.duration is None:
        return max(0, min(left, idle - queued))
    until_next = period(pace)
    needed = pace.slots * ((1 + JITTER) * until_next + pace.section) / max(pace.duration, 1e-6)
    # with tasks much longer than the period an exchange is there whenever a slot becomes free
    reserve = 0 if pace.duration > 4 * until_next else math.ceil(needed + 2 * math.sqrt(needed))
    reserve = min(reserve, LARGEST_RESERVE)
    wanted = idle + reserve - queued
    if pace.farmers > 1:
        slots = max(pace.all_slots, pace.slots)
        # what is left lasts until the next exchange: who takes less of it than its share would have to wait for that
        part = 1 if left * pace.duration < until_next * slots else 2
        fair = math.ceil(left * pace.slots / (part * slots))
        wanted = min(wanted, max(idle - queued, fair))
    return max(0, min(left, wanted))


def expected(times: Mapping[int, int], finished: int) -> float:
    """Seconds within which nearly all finished tasks ended, 0 while there are too few of them to tell.

    `times` counts those of a second or more by their class of durations.
    """
    slow = sum(times.values())
    total = max(finished, slow)
    if total < ENOUGH:
        return 0.0
    counted = total - slow
    longest = 1.0
    for number in sorted(times):
        if counted >= NEARLY_ALL * total:
            break
        counted += times[number]
        longest = class_end(number)
    return longest


def batch_size(pace: Pace) -> int:
    """Tasks handed to a worker at once: a fifth of a period's work, one where tasks are long."""
    if pace.duration is None:
        return 1
    seconds = min(LONGEST_BATCH, max(BATCH, period(pace) / BATCHES))
    return max(1, min(LARGEST_BATCH, int(seconds / max(pace.duration, 1e-6))))


def ahead(duration: float | None) -> bool:
    """Whether a slot is to have its next task at hand: it would wait for exchanges, which take a part of such a one."""
    return duration is not None and duration < AHEAD


class Bucket(NamedTuple):
    """Tokens for exchanges out of turn: `rate` a second, up to `depth`."""

    tokens: float
    at: float
    depth: float = 3.0

    def take(self, now: float, rate: float) -> Bucket | None:
        """The bucket with one token less, or None where there is none."""
        tokens = min(self.depth, self.tokens + (now - self.at) * rate)
        return Bucket(tokens - 1, now, self.depth) if tokens >= 1 else None
