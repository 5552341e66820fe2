"""The end of a list with a heavy tail, in simulated time: the time of the last result, compared with the optimum.

Durations are log-normal with sigma 1.5: of 16,000 tasks with an average of a minute the longest take hours, and half
of them less than 20 s. They run on 8 farmers with 8 slots each, on a file system whose metadata operations take 1 ms;
`simulation.py` lists the real parts. The baselines are list scheduling without overhead, and farmers that claim a task
when a slot is idle, and none in advance. Each round uses another list.
"""

from __future__ import annotations

import statistics

from benchmarks.events import World, list_scheduling
from benchmarks.measure import Figure
from benchmarks.scale import lengths
from benchmarks.simulation import FarmModel, simulate
from benchmarks.standins import OneAtATime, SimulatedExchanges

NUMBER = 16_000
FARMERS = 8
SLOTS = 8
MEANS = (60.0, 1.0)
SIGMA = 1.5
LATENCY = 0.001
ABOVE = 1.02


def run(folder: str, number: int, count: int) -> tuple[str, list[Figure]]:
    title = f"{number} tasks, log-normal (sigma {SIGMA}), {FARMERS} x {SLOTS} slots, simulated: seconds to the end"
    return title, [figure for mean in MEANS for figure in _figures(number, mean, count)]


def _figures(number: int, mean: float, count: int) -> list[Figure]:
    found = [compare(number, mean, seed) for seed in range(count)]
    ours, single, best = (statistics.median(each) for each in zip(*found, strict=True))
    worst = max(found, key=lambda one: one[0] / one[2])
    name = f"{mean:g} s on average"
    return [
        _judged(f"{name}: against list scheduling", ours, best, number),
        _judged(f"{name}: the worst of the lists", worst[0], worst[2], number),
        Figure(f"{name}: against one task at a time", ours, single, "s"),
        Figure(f"{name}: one task at a time against list scheduling", single, best, "s"),
    ]


def _judged(name: str, ours: float, best: float, number: int) -> Figure:
    return Figure(name, ours, best, "s", f"<= {ABOVE}", ours <= ABOVE * best if number == NUMBER else None)


def compare(tasks: int, mean: float, seed: int) -> tuple[float, float, float]:
    """Seconds until the last result is recorded: with our cadence, one task at a time, and for the bare tasks."""
    times = lengths(tasks, mean, SIGMA, seed)
    ours, single = (
        simulate(FarmModel(World(LATENCY, seed), times, SLOTS, mean), FARMERS, cadence=cadence).recorded_at
        for cadence in (SimulatedExchanges, OneAtATime)
    )
    return ours, single, list_scheduling(times, FARMERS * SLOTS)
