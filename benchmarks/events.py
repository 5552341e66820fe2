"""Simulated time: a queue of events, the number of metadata operations, and the share of the time that is work."""

from __future__ import annotations

import heapq
import math
import random
from collections import Counter, defaultdict
from collections.abc import Generator, Sequence

Process = Generator[float, None, None]
"""A sequence of actions; it yields the seconds until the next one."""


class World:
    """The clock, the random generator, the queue of events, and the number of metadata operations by kind and second.

    Each operation takes `latency` seconds, give or take a half. The server has no capacity limit: the number of
    operations in the same second is a figure to report, not a limit.
    """

    def __init__(self, latency: float, seed: int = 1) -> None:
        self.now = 0.0
        self.latency = latency
        self.rng = random.Random(seed)
        self.operations: Counter[str] = Counter()
        self.by_second: Counter[int] = Counter()
        self._heap: list[tuple[float, int, Process]] = []
        self._started = 0

    def monotonic(self) -> float:
        """The time; the name is the one in the module `time`."""
        return self.now

    def start(self, process: Process, at: float) -> None:
        self._started += 1
        heapq.heappush(self._heap, (at, self._started, process))

    def run(self, until: float = math.inf) -> None:
        """Run all events that start or continue before `until`."""
        heap = self._heap
        while heap and heap[0][0] < until:
            self.now, number, process = heap[0]
            pause = next(process, None)
            if pause is None:
                heapq.heappop(heap)
            else:
                heapq.heapreplace(heap, (self.now + pause, number, process))

    def ask(self, kind: str, count: int) -> float:
        """The seconds that `count` metadata operations take in sequence."""
        self.operations[kind] += count
        self.by_second[int(self.now)] += count
        return self.latency * count * (0.5 + self.rng.random())


class Diary:
    """The amount of work over time: for each interval of `width` seconds the starts and ends of tasks in it."""

    def __init__(self, width: float) -> None:
        self.width = width
        self._begun: dict[int, int] = defaultdict(int)
        self._sums: dict[int, float] = defaultdict(float)
        self.last = 0.0

    def task(self, begin: float, end: float) -> None:
        first, last = int(begin / self.width), int(end / self.width)
        self._begun[first] += 1
        self._begun[last] -= 1
        self._sums[first] -= begin
        self._sums[last] += end
        self.last = max(self.last, end)

    def work(self, until: float) -> float:
        """Seconds of work in all slots together; `until` is rounded down to whole intervals."""
        stop = int(until / self.width)
        running = sum(self._begun[place] for place in range(stop))
        return sum(self._sums[place] for place in range(stop)) + running * stop * self.width

    def busy(self, until: float, slots: int) -> float:
        """The share of the time of `slots` that was work."""
        return self.work(until) / (slots * max(1, int(until / self.width)) * self.width)


def list_scheduling(lengths: Sequence[float], slots: int) -> float:
    """The makespan if each task, in the order of the list, starts as soon as a slot is free, without overhead."""
    ends = [0.0] * slots
    for length in lengths:
        heapq.heapreplace(ends, ends[0] + length)
    return max(ends)
