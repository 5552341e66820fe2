"""Thousands of farmers: the real policy and the real transitions, in simulated time on a model of a file system.

`simulation.py` lists the real and the modelled parts. A farm begins when all its farmers start within a second. "Until
empty" is the time until no task is left to claim: the rest depends on the last tasks, not on the ledger. The makespan
is compared with that of list scheduling without overhead. The two stampedes are a simultaneous start of a thousand
farmers, and a simultaneous stop of ten thousand.

The limits on paper: an exclusive section takes s = 11 l + 3 b c, for eleven metadata operations of l seconds each, and
for a revision of b = 95 n bytes that is read, written and read again, at c = 20 ns a byte: 17 ms with a thousand
farmers and 1 ms, a third of it for the revision. A farmer exchanges once in T, which is n s / 0.5 unless another rule
makes it longer, and at most five minutes. So half of the time is exclusive, and beyond that all of it, at

    l         T reaches five minutes   n s reaches five minutes: commits come too late, whatever T is
    0.2 ms    4,800 farmers            6,900 farmers
    1 ms      4,200                    6,200
    5 ms      2,200                    3,800

The size of the revision makes this quadratic: faster metadata helps little beyond 5,000 farmers. Heartbeats grow with
the number of farmers for any T: 7 operations in 75 s each with over a thousand farmers (`heartbeat.beat_interval`),
so 93 per second and thousand farmers.
"""

from __future__ import annotations

import math
import random
import sys
import time
from array import array
from collections.abc import Sequence
from dataclasses import dataclass, replace

from benchmarks.events import Process, World, list_scheduling
from benchmarks.measure import Figure
from benchmarks.simulation import FarmModel, Simulated, driving, simulate
from taskfarmer.farmer import pacing
from taskfarmer.ledger.ledger import FarmerReport
from taskfarmer.ledger.state import Entry

NUMBER = 1000
SLOTS = 64
SIGMA = 0.5
LARGEST_REVISION = 250_000
OPERATIONS = 500
LATE = 1.03
STARTS_WITHIN = 15.0
STOPPED = 10_000
FAREWELLS_WITHIN = 5.0
WITHIN = 1.0
"""Seconds over which the starts of farmers, and the ends of tasks of stopped farmers, are spread."""


@dataclass(frozen=True)
class Case:
    """A farm: `tasks` for each slot, of `seconds` on average (log-normal); metadata operations take `latency`.

    `busy` is the required share of work in the slots' time; 0 if there is no requirement.
    """

    farmers: int
    seconds: float
    tasks: int
    latency: float = 0.001
    busy: float = 0.0
    shared: bool = True

    @property
    def name(self) -> str:
        lock = "" if self.shared else ", no lock"
        return f"{self.farmers} x {self.seconds:g} s, {self.latency * 1000:g} ms{lock}"


JUDGED = (Case(NUMBER, 60, 50, 0.001, 0.99), Case(NUMBER, 60, 50, 0.005, 0.94))
OTHERS = (
    Case(10, 0.1, 1000),
    Case(10, 60, 50),
    Case(100, 1, 200),
    Case(100, 60, 50),
    Case(NUMBER, 10, 40),
    Case(NUMBER, 60, 50, 0.0002),
    Case(NUMBER, 60, 20, shared=False),
    Case(NUMBER, 3600, 10),
    Case(3000, 60, 15),
    Case(3000, 600, 8),
    Case(10_000, 600, 4),
    Case(10_000, 3600, 4),
)


def run(folder: str, number: int, count: int) -> tuple[str, list[Figure]]:
    judged = number == NUMBER
    cases = (*JUDGED, *OTHERS) if judged else tuple(replace(case, farmers=number, busy=0.0) for case in JUDGED)
    figures = [*starts(number, judged), *stops(STOPPED if judged else number, judged)]
    for case in cases:
        begin = time.perf_counter()
        figures += farm(case)
        print(f"{case.name}: simulated in {time.perf_counter() - begin:.0f} s", file=sys.stderr)
    return f"farmers with {SLOTS} slots each, simulated", figures


def lengths(tasks: int, seconds: float, sigma: float, seed: int = 1) -> Sequence[float]:
    """Durations of tasks: log-normal, `seconds` on average."""
    rng = random.Random(seed)
    mu = math.log(seconds) - sigma**2 / 2
    return array("d", (rng.lognormvariate(mu, sigma) for _ in range(tasks)))


def farm(case: Case) -> list[Figure]:
    """The figures of a farm from its beginning to its end."""
    slots = case.farmers * SLOTS
    tasks = lengths(slots * case.tasks, case.seconds, SIGMA)
    ground = simulate(FarmModel(World(case.latency), tasks, SLOTS, case.seconds / 60, case.shared), case.farmers)
    best = list_scheduling(tasks, slots)
    seen, until = ground.until_empty, ground.empty_at
    operations = {kind: seen[kind] / until for kind in seen if kind not in ("commits", "lost")}
    busy, total = ground.diary.busy(until, slots), sum(operations.values())
    judged = bool(case.busy)

    def figure(what: str, ours: float, theirs: float, unit: str, wanted: str = "", kept: bool = False) -> Figure:
        return Figure(f"{case.name}: {what}", ours, theirs, unit, wanted if judged else "", kept if judged else None)

    most = OPERATIONS
    return [
        figure("slots busy until empty", busy, 1.0, "", f">= {case.busy}", busy >= case.busy),
        figure("makespan", ground.recorded_at, best, "s", f"<= {LATE}", ground.recorded_at <= LATE * best),
        figure("metadata operations", total, pacing.OPERATIONS, "1/s", f"<= {most} 1/s", total <= most),
        *(
            Figure(f"{case.name}:   of these {kind}", each, total, "1/s")
            for kind, each in sorted(operations.items(), key=lambda item: -item[1])
        ),
        Figure(
            f"{case.name}: lost commits, against those that count", seen["lost"] / until, seen["commits"] / until, "1/s"
        ),
        Figure(f"{case.name}: oldest result not recorded", ground.oldest, case.seconds, "s"),
        figure(
            "largest revision",
            ground.largest,
            LARGEST_REVISION,
            "bytes",
            f"<= {LARGEST_REVISION}",
            ground.largest <= LARGEST_REVISION,
        ),
    ]


def starts(farmers: int, judged: bool, latency: float = 0.001) -> list[Figure]:
    """Farmers that start at once, until the last one has work."""
    world = World(latency)
    ground = FarmModel(world, [1e6] * (farmers * SLOTS * 2), SLOTS, 1e6)
    with driving(world):
        for _ in range(farmers):
            world.start(Simulated(ground).life(), world.rng.uniform(0, WITHIN))
        until = 0.0
        while len(ground.joined) < farmers:
            until += 1.0
            world.run(until)
    took = max(ground.joined)
    name = f"{farmers} starts at once, {latency * 1000:g} ms: until all have work"
    kept = took <= STARTS_WITHIN if judged else None
    return [Figure(name, took, STARTS_WITHIN, "s", f"<= {STARTS_WITHIN:g} s", kept)]


def stops(farmers: int, judged: bool, latency: float = 0.001) -> list[Figure]:
    """Farmers that are stopped at once: from the end of each one's tasks until it has left or written a note."""
    world = World(latency)
    ground = FarmModel(world, [60.0] * (farmers * SLOTS * 4), SLOTS, 60.0)
    with driving(world):
        crowd = [Simulated(ground) for _ in range(farmers)]
        hold(ground, crowd, SLOTS + SLOTS // 2)
        waited: list[float] = []
        for one in crowd:
            world.start(_stopped(one, waited), world.rng.uniform(0, WITHIN))
        world.run()
    name = f"{farmers} stopped at once, {latency * 1000:g} ms"
    left = farmers - len(ground.newest.farmers)
    kept = max(waited) <= FAREWELLS_WITHIN if judged else None
    return [
        Figure(f"{name}: last word", max(waited), FAREWELLS_WITHIN, "s", f"<= {FAREWELLS_WITHIN:g} s", kept),
        Figure(f"{name}: left by a commit, of all", left, farmers, "farmers"),
    ]


def hold(ground: FarmModel, crowd: Sequence[Simulated], each: int) -> None:
    """Give each farmer this many tasks, as if all had been at work for long."""
    entries = {one.name: Entry(7, f"0:{place * each}+{each}", one.name, 4000, SLOTS) for place, one in enumerate(crowd)}
    segment = replace(ground.newest.segments[0], next=len(crowd) * each)
    ground.become(replace(ground.newest, farmers=entries, segments=(segment,)))
    for one in crowd:
        one.ledger.is_in(ground.newest)


def _stopped(one: Simulated, waited: list[float]) -> Process:
    """A farmer whose tasks were all killed just now; it leaves, and the time for that is recorded."""
    one.ledger.add_report(FarmerReport(returned=list(one.ledger.held)))
    yield from one.leave(waited)
