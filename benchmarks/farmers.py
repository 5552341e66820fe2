"""Farmers that share a list: the rate of 1, 2, 4, ... 64 of them with the same total number of workers.

Short tasks on one disk; all farmers are ready before the first starts, and the rate is that of the nine tenths of the
tasks that finish last. The rates are compared with one farmer that has all slots: in its normal form, in which up to
eight slots share a worker, and with a worker for each slot, like 64 farmers with one slot each. Then the same with a
lock that is not shared, which must only cost commits. And a slow file system, on which each file operation takes two
milliseconds longer (see slow.c): the share of the slots' time that tasks of a second fill, from a farmer's first task
until a farmer finds that no task is left, compared with a disk that is not slow.
"""

from __future__ import annotations

import fcntl
import json
import os
import statistics
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.measure import Figure, rounds, scratch
from benchmarks.system import compiled, slowed, watched

NUMBER = 64
TASKS = 1000
"""Short tasks for each worker; with fewer tasks the end of the list, when each worker has few left, would dominate."""
SLOW_FARMERS, SLOW_SLOTS, SLOW_TASKS = 16, 8, 60
MICROSECONDS = 2000
WANTED = 0.9
WANTED_LOST = 0.2
WANTED_BUSY = 0.98
LONE = "one farmer, a worker for each slot"
_DEADLINE = 120.0
_FEW = 10


@dataclass(frozen=True)
class Crowd:
    """Farmers on one farm: their number, their slots, and the kind of their tasks."""

    farmers: int
    slots: int
    tasks: int
    command: str
    own_locks: bool = False
    lone_slots: bool = False
    """Whether each slot has a separate worker; otherwise several slots of a farmer share one."""
    slow: str = ""
    """The library that makes the farm's file system slow; None for the normal speed."""


def run(folder: str, number: int, count: int) -> tuple[str, list[Figure]]:
    library = compiled("slow.c", folder, "-shared", "-fPIC")
    sizes = [2**power for power in range(7) if 2**power <= number]
    crowds = {_name(size): Crowd(size, number // size, TASKS * number, "/bin/true") for size in sizes}
    crowds[f"{_name(sizes[-1])}, locks of their own"] = Crowd(
        sizes[-1], number // sizes[-1], TASKS * number, "/bin/true", own_locks=True
    )
    crowds[LONE] = Crowd(1, number, TASKS * number, "/bin/true", lone_slots=True)
    told: dict[str, list[Outcome]] = {name: [] for name in crowds}

    def turn(name: str) -> Callable[[], float]:
        def rate() -> float:
            outcome = work(folder, crowds[name])
            told[name].append(outcome)
            return outcome.rate

        return rate

    rates = rounds({name: turn(name) for name in crowds}, count)
    figures = []
    for name, crowd in crowds.items():
        judged = number == NUMBER and crowd.farmers == number
        figures += _figures(name, rates, told, judged)
        if judged:
            kept = rates[name] / rates[LONE] >= WANTED
            label = f"{name}, rate, {LONE}"
            figures.append(Figure(label, rates[name], rates[LONE], "tasks/s", f">= {WANTED}", kept))
    figures += _slow(folder, library, number, count)
    return f"farmers of one farm, {number} workers in all; compared with one farmer that has them all", figures


def _name(size: int) -> str:
    return "one farmer" if size == 1 else f"{size} farmers"


def _figures(name: str, rates: dict[str, float], told: dict[str, list[Outcome]], judged: bool) -> list[Figure]:
    ours, first = rates[name], rates[_name(1)]
    kept = ours / first >= WANTED if judged else None
    figures = [Figure(f"{name}, rate", ours, first, "tasks/s", f">= {WANTED}" if judged else "", kept)]
    steady, steady_first = (statistics.median(one.steady for one in told[who]) for who in (name, _name(1)))
    figures.append(Figure(f"{name}, rate, the last tenth left out, too", steady, steady_first, "tasks/s"))
    lost, commits = (sum(getattr(one, what) for one in told[name]) for what in ("lost", "commits"))
    kept = lost < WANTED_LOST * commits if judged else None
    wanted = f"< {WANTED_LOST}" if judged else ""
    figures.append(Figure(f"{name}, lost commits, of all commits", lost, commits, "", wanted, kept))
    waited, worked = (statistics.median(getattr(one, what) for one in told[name]) for what in ("waited", "worked"))
    return [*figures, Figure(f"{name}, lock waits, of all farmers' time", waited, worked, "s")]


# --- running a crowd -----------------------------------------------------------------------------


@dataclass(frozen=True)
class Outcome:
    """The result of a crowd. `busy` is the share of slot time in tasks until no task was left to claim."""

    rate: float
    steady: float
    """The rate of the tasks that finish in the middle eight tenths."""
    busy: float
    lost: int
    commits: int
    waited: float
    worked: float


def work(folder: str, crowd: Crowd) -> Outcome:
    """Start all farmers, let them begin together, and wait until the list is complete."""
    with scratch(folder) as inside:
        path, gate, workdir = (os.path.join(inside, name) for name in ("list", "gate", "farm"))
        Path(path).write_text(f"{crowd.command}\n" * crowd.tasks, encoding="ascii")
        options = [
            "--gate",
            gate,
            *(["--own-lock"] if crowd.own_locks else []),
            *(["--lone-slots"] if crowd.lone_slots else []),
        ]
        arguments = ["-q", "-n", str(crowd.slots), "-w", workdir, path]
        more = slowed(crowd.slow, MICROSECONDS, workdir) if crowd.slow else {}
        closed = open(gate, "wb")  # noqa: SIM115
        fcntl.flock(closed, fcntl.LOCK_EX)
        processes = [
            subprocess.Popen(
                watched(os.path.join(inside, f"report-{place}"), *options, *arguments),
                stdin=subprocess.DEVNULL,
                env={**os.environ, **more},
            )
            for place in range(crowd.farmers)
        ]
        try:
            _await(inside, processes)
            closed.close()
            failed = [process.returncode for process in processes if process.wait()]
        finally:
            for process in processes:
                process.kill()
                process.wait()
        if failed:
            raise SystemExit(f"{len(failed)} of {crowd.farmers} farmers failed: exit statuses {failed}")
        reports = [json.loads(Path(inside, f"report-{place}").read_bytes()) for place in range(crowd.farmers)]
        timeline = json.loads(Path(workdir, "timeline.json").read_bytes())
    return _outcome(crowd, reports, [event for event in timeline if event["ph"] == "X"])


def _await(folder: str, processes: list[subprocess.Popen[bytes]]) -> None:
    """Wait until all farmers are at the gate."""
    end = time.monotonic() + _DEADLINE
    while sum(entry.startswith("gate.") for entry in os.listdir(folder)) < len(processes):
        if time.monotonic() > end or any(process.poll() for process in processes):
            raise SystemExit("a farmer did not come to its work")
        time.sleep(0.05)


def _outcome(crowd: Crowd, reports: list[dict[str, Any]], slices: list[dict[str, Any]]) -> Outcome:
    if len(slices) != crowd.tasks:
        raise SystemExit(f"{len(slices)} of {crowd.tasks} tasks are in the timeline")
    ends = sorted((one["ts"] + one["dur"]) / 1e6 for one in slices)
    early = len(ends) // _FEW
    return Outcome(
        rate=(len(ends) - 1 - early) / (ends[-1] - ends[early]),
        steady=(len(ends) - 1 - 2 * early) / (ends[-1 - early] - ends[early]),
        busy=_busy(crowd, reports, slices),
        lost=sum(report["lost"] for report in reports),
        commits=sum(report["commits"] for report in reports),
        waited=sum(map(sum, (report["waits"] for report in reports))),
        worked=sum(report["end"] - report["begin"] for report in reports),
    )


def _busy(crowd: Crowd, reports: list[dict[str, Any]], slices: list[dict[str, Any]]) -> float:
    """The share of slot time in tasks: for each farmer from its first task until no farmer could claim any more."""
    empty = min(end for report in reports for _, end, _, left, _ in report["exchanges"] if not left)
    tasks: dict[int, list[tuple[float, float]]] = {}
    for one in slices:
        tasks.setdefault(one["pid"], []).append((one["ts"] / 1e6, (one["ts"] + one["dur"]) / 1e6))
    busy = there = 0.0
    for mine in tasks.values():
        busy += sum(max(0.0, min(end, empty) - start) for start, end in mine)
        there += crowd.slots * max(0.0, empty - min(start for start, _ in mine))
    return busy / there if there else 0.0


def _slow(folder: str, library: str, number: int, count: int) -> list[Figure]:
    farmers, tasks = (SLOW_FARMERS, SLOW_TASKS) if number >= NUMBER else (min(number, 2), 10)
    quick = Crowd(farmers, SLOW_SLOTS, farmers * SLOW_SLOTS * tasks, "sleep 1")
    slow = Crowd(quick.farmers, quick.slots, quick.tasks, quick.command, slow=library)
    shares = rounds({"slow": lambda: work(folder, slow).busy, "quick": lambda: work(folder, quick).busy}, count)
    kept = shares["slow"] >= WANTED_BUSY if number == NUMBER else None
    name = f"{farmers} farmers, {SLOW_SLOTS} slots, {tasks} tasks a slot, {MICROSECONDS / 1000:g} ms: slots busy"
    return [Figure(name, 100 * shares["slow"], 100 * shares["quick"], "%", f">= {100 * WANTED_BUSY:g} %", kept)]
