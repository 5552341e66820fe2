"""The size of a revision: simulated farmers that claim and settle with the real policy and the real transitions.

Tasks take 60 s on average, with similar durations (log-normal, sigma 0.1) or with a heavy tail (sigma 1), so that the
claims of a farmer are as scattered as possible; every tenth farmer is replaced by another one on the way. The list is
nearly complete at the start, so that all positions have the maximum number of digits. The baseline is the same
revision without claims: the difference is the size of the claims.
"""

from __future__ import annotations

import heapq
import math
import random
from collections import Counter
from dataclasses import dataclass, field, replace

from benchmarks.measure import Figure
from taskfarmer.farmer import pacing
from taskfarmer.formats.durations import time_class
from taskfarmer.formats.intervals import Interval, merge_adjacent, parse_intervals, subtract
from taskfarmer.ledger import state as states
from taskfarmer.ledger.commits import encode
from taskfarmer.ledger.state import Segment, Settlement, State

NUMBER = 64
CASES = (
    (100, 10**4, 0.1),
    (100, 10**7, 0.1),
    (100, 10**4, 1.0),
    (100, 10**7, 1.0),
    (1000, 10**7, 0.1),
    (1000, 10**7, 1.0),
)
LIMITS = {100: 16 * 1024, 1000: 250_000}
MEAN = 60.0
LASTS = 240.0
SECTION = 0.005


@dataclass
class SimulatedFarmer:
    """A farmer: claimed tasks that have not started, running tasks with their end times, and unreported results."""

    name: str
    leaves: bool
    queue: list[Interval] = field(default_factory=list)
    running: list[tuple[float, Interval]] = field(default_factory=list)
    done: list[Interval] = field(default_factory=list)
    held: list[Interval] = field(default_factory=list)
    times: Counter[int] = field(default_factory=Counter)
    bytes: int = 0


def run(folder: str, number: int, count: int) -> tuple[str, list[Figure]]:
    figures = []
    for farmers, tasks, sigma in CASES:
        largest, bare = simulate(farmers, number, tasks, sigma)
        limit = LIMITS[farmers]
        kept = largest < limit if number == NUMBER else None
        name = f"{farmers} x {number} slots, {tasks:.0e} tasks, sigma {sigma:g}"
        figures.append(Figure(name, largest, bare, "bytes", f"< {limit}", kept))
    return "the largest revision of a farm; compared with the same one without claims", figures


def simulate(farmers: int, slots: int, tasks: int, sigma: float) -> tuple[int, int]:
    """The bytes of the largest revision, and of the same one without claims."""
    rng = random.Random(farmers * tasks)
    given = max(0, tasks - int(farmers * slots * (2 + LASTS / MEAN)))
    segment = Segment("f" * 12, 0, tasks, given, 48 * tasks, "e" * 64)
    state = State("c" * 16, 10**5, ("nobody-1-00000000", 1), "000390-0123abcd", 10**5, (segment,), finished=given)
    heap = [(rng.random() * 5, place) for place in range(farmers)]
    heapq.heapify(heap)
    crowd = [_newcomer(rng, place % 10 == 0) for place in range(farmers)]
    largest = bare = seen = 0
    while heap:
        now, place = heapq.heappop(heap)
        if now > LASTS:
            break
        state = _exchange(state, crowd, place, slots, now, rng, sigma)
        pace = pacing.Pace(farmers, slots, farmers * slots, SECTION, MEAN)
        heapq.heappush(heap, (now + pacing.jittered(pacing.period(pace), rng.random()), place))
        seen += 1
        if seen % (farmers // 4) == 0:
            size = len(encode(state))
            if size > largest:
                largest, bare = size, size - _claims(state)
    return largest, bare


def _newcomer(rng: random.Random, leaves: bool) -> SimulatedFarmer:
    name = f"nid{rng.randrange(10**6):06d}-{rng.randrange(10**5, 10**6)}-{rng.getrandbits(32):08x}"
    return SimulatedFarmer(name, leaves)


def _exchange(
    state: State, crowd: list[SimulatedFarmer], place: int, slots: int, now: float, rng: random.Random, sigma: float
) -> State:
    """One commit: report the results until `now`, claim tasks, and start those that slots can run."""
    one = crowd[place]
    _advance(one, slots, now, rng, sigma)
    if one.leaves and now > LASTS / 3:
        state = _depart(state, one)
        one = crowd[place] = _newcomer(rng, False)
    state = states.join(state, one.name, one.name, slots)
    one.bytes += 110 * len(one.done)
    done = tuple(merge_adjacent(one.done))
    state = states.settle(
        state,
        one.name,
        Settlement(one.name, one.bytes, done, finished=len(one.done), ended=len(one.done), times=one.times),
    )
    before = subtract(one.held, done)
    pace = pacing.Pace(len(crowd), slots, len(crowd) * slots, SECTION, MEAN)
    idle = slots - len(one.running)
    queued = sum(interval.count for interval in one.queue)
    state = states.claim(state, one.name, pacing.claim_size(pace, idle, queued, state.unprocessed))
    state = replace(states.stamp(state, one.name, state.revision), revision=state.revision + 1)
    one.held = parse_intervals(state.farmers[one.name].claims)
    one.queue += subtract(one.held, before)
    one.done = []
    one.times = Counter()
    _fill(one, slots, now, rng, sigma)
    return state


def _advance(one: SimulatedFarmer, slots: int, now: float, rng: random.Random, sigma: float) -> None:
    """Let time pass: tasks finish, and the next ones of the queue start in their slots."""
    while one.running and one.running[0][0] <= now:
        at, task = heapq.heappop(one.running)
        one.done.append(task)
        _fill(one, slots, at, rng, sigma)


def _fill(one: SimulatedFarmer, slots: int, now: float, rng: random.Random, sigma: float) -> None:
    while one.queue and len(one.running) < slots:
        first = one.queue[0]
        task = first.slice(0, 1)
        one.queue[:1] = [first.slice(1, first.count - 1)] if first.count > 1 else []
        length = rng.lognormvariate(math.log(MEAN) - sigma**2 / 2, sigma)
        one.times[time_class(length)] += 1
        heapq.heappush(one.running, (now + length, _Ordered.of(task)))


class _Ordered(Interval):
    """An interval for a heap; tasks that finish at the same instant have no order."""

    @classmethod
    def of(cls, one: Interval) -> Interval:
        return cls(one.segment, one.start, one.count, one.attempt, one.deaths)

    def __lt__(self, other: Interval) -> bool:
        return self.start < other.start


def _depart(state: State, one: SimulatedFarmer) -> State:
    """The farmer releases all its tasks and leaves."""
    if one.name not in state.farmers:
        return state
    held = parse_intervals(state.farmers[one.name].claims)
    what = Settlement(one.name, one.bytes, returned=tuple(held))
    return states.leave(states.settle(state, one.name, what), one.name)


def _claims(state: State) -> int:
    return sum(len(entry.claims) for entry in state.farmers.values())
