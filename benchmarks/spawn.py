"""Short tasks: a farmer with two workers, compared with a C loop of posix_spawn in two processes, and with its peers.

All run `/bin/true`, and then a command with a pipe. Farmer, C loop and the same loop in Python keep a log file for
each task; the farmer also records each task. All figures include start-up unless their label excludes it. On a machine
that is busy with other work, CPU seconds (including those of the tasks) are the reliable figures. From 1,000 tasks on:
peers, which are downloaded once and kept in a cache directory, a tenth of the list (all peers; PyTaskFarmer 0.1.0,
whose time grows with the square of the list, only there), and ten times the list (without peers).
"""

from __future__ import annotations

import os
import statistics
import sys
from collections import defaultdict
from collections.abc import Callable, Mapping
from pathlib import Path

from benchmarks import peers
from benchmarks.measure import Figure, farmer, rounds, scratch
from benchmarks.peers import Missing, Turn, Work
from benchmarks.system import Spent, compiled, knows_logs, operated, timed

NUMBER = 10_000
PROCESSES = 2
PROGRAM = "/bin/true"
PIPE = f"{PROGRAM} | {PROGRAM}"
LEAST = 1000
WANTED = {"C loop": 0.85, "HyperQueue": 5.0, "GNU parallel": 7.0}
WANTED_CPU = 1.25
WANTED_LONG = 0.95
WANTED_XARGS = 1.3
WANTED_OPERATIONS = 1.1
QUIET_LOGS = ("none", "packed")


PYTHON = """
import os, signal, sys
tasks, processes, words = int(sys.argv[1]), int(sys.argv[2]), sys.argv[4:]
logs, null = sys.argv[3] != "-", os.open("/dev/null", os.O_RDWR)
folder = os.open(sys.argv[3], os.O_RDONLY) if logs else -1
variables, signals = dict(os.environb), signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}
for slot in range(processes):
    if not os.fork():
        for task in range(slot, tasks, processes):
            log = os.open(f"log_{task}", os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o666, dir_fd=folder) if logs else null
            files = [(os.POSIX_SPAWN_DUP2, one, to) for one, to in ((null, 0), (log, 1), (log, 2))]
            pid = os.posix_spawn(words[0], words, variables, file_actions=files, setpgroup=0, setsigdef=signals)
            if logs:
                os.close(log)
            os.wait4(pid, 0)
        os._exit(0)
for slot in range(processes):
    os.wait()
"""
"""The C loop in Python, with a process group for each task: the limit for a farmer that records nothing."""


class Contest:
    """The contestants and their times; a contestant is a name and a number of tasks."""

    def __init__(self, folder: str) -> None:
        self.folder = folder
        self.turns: dict[str, Callable[[], float]] = {}
        self.sizes: dict[str, int] = {}
        self.cpu: dict[str, list[float]] = defaultdict(list)
        self.seconds: Mapping[str, float] = {}

    def enter(self, name: str, turn: Turn, work: Work) -> None:
        def timed() -> float:
            with scratch(self.folder) as inside:
                spent = turn(work, inside)
            self.cpu[f"{name} {work.size}"].append(spent.cpu)
            return spent.seconds

        self.turns[f"{name} {work.size}"] = timed
        self.sizes[f"{name} {work.size}"] = work.size

    def run(self, count: int) -> None:
        self.seconds = rounds(self.turns, count)

    def rate(self, name: str, size: int) -> float:
        return size / self.seconds[f"{name} {size}"]

    def running(self, name: str, size: int) -> float:
        """Tasks per second without the time for a list of one task."""
        return (size - 1) / (self.seconds[f"{name} {size}"] - self.seconds[f"{name} 1"])

    def milliseconds(self, name: str, size: int) -> float:
        return statistics.median(self.cpu[f"{name} {size}"]) / size * 1000


def run(folder: str, number: int, count: int) -> tuple[str, list[Figure]]:
    yardstick = compiled("spawn.c", folder)
    found, missing = _peers() if number >= LEAST else ({}, [f"peers, which are asked from {LEAST} tasks on"])
    modes = tuple(mode for mode in QUIET_LOGS if knows_logs(mode))
    if not modes:
        missing.append("--logs none and packed, which this version does not have")
    figures: list[Figure] = []
    for command, words in ((PROGRAM, (PROGRAM,)), (PIPE, ("/bin/bash", "-c", PIPE))):
        contest = Contest(folder)
        plain = command == PROGRAM
        for size in _sizes(number, plain):
            work = Work(_list(folder, size, command), size, PROCESSES, words)
            _enter(contest, work, yardstick, modes if plain else (), found if size <= number else {}, number)
        contest.run(count)
        figures += _figures(contest, number, plain, modes if plain else (), list(found))
        if plain and number >= LEAST:
            figures.append(_operations(folder, number, yardstick))
    lines = [f"{number} x {PROGRAM}, {PROCESSES} at a time, a log file each; compared with a C loop, and with peers"]
    return "\n".join([*lines, *(f"left out: {what}" for what in missing)]), figures


def _sizes(number: int, plain: bool) -> list[int]:
    return [1, number // 10, number, 10 * number] if plain and number >= LEAST else [1, number]


def _peers() -> tuple[dict[str, Turn], list[str]]:
    found: dict[str, Turn] = {"xargs": peers.xargs}
    missing = []
    for name, make in (
        ("GNU parallel", peers.parallel),
        ("HyperQueue", peers.hyperqueue),
        ("PyTaskFarmer", peers.pytaskfarmer),
    ):
        try:
            found[name] = make()
        except Missing as error:
            missing.append(f"{name}: {error}")
    return found, missing


def _enter(
    contest: Contest, work: Work, yardstick: str, modes: tuple[str, ...], found: Mapping[str, Turn], number: int
) -> None:
    def ours(*options: str) -> Turn:
        def turn(work: Work, folder: str) -> Spent:
            workdir = os.path.join(folder, "farm")
            return timed(farmer("-q", "-n", str(work.processes), *options, "-w", workdir, work.path))

        return turn

    def theirs(with_logs: bool, *loop: str) -> Turn:
        def turn(work: Work, folder: str) -> Spent:
            return timed([*loop, str(work.size), str(work.processes), folder if with_logs else "-", *work.words])

        return turn

    contest.enter("ours", ours(), work)
    contest.enter("C loop", theirs(True, yardstick), work)
    contest.enter("Python loop", theirs(True, sys.executable, "-c", PYTHON), work)
    contest.enter("C loop without logs", theirs(False, yardstick), work)
    if modes:
        contest.enter("Python loop without logs", theirs(False, sys.executable, "-c", PYTHON), work)
    for mode in modes:
        contest.enter(f"ours, --logs {mode}", ours("--logs", mode), work)
    if work.size == 1:
        return
    for name, turn in found.items():
        # PyTaskFarmer 0.1.0 splits commands at blanks, so it does not support pipes
        if name != "PyTaskFarmer" or (work.size < number and len(work.words) == 1):
            contest.enter(name, turn, work)


def _figures(contest: Contest, number: int, plain: bool, modes: tuple[str, ...], found: list[str]) -> list[Figure]:
    judged = plain and number == NUMBER
    figures = []

    def rate(name: str, size: int, other: str, least: float | None, label: str = "") -> None:
        ours, theirs = contest.rate(name, size), contest.rate(other, size)
        wanted = f">= {least}" if least and judged and size == number else ""
        kept = ours / theirs >= least if wanted and least else None
        figures.append(Figure(label or f"{size}, {other}", ours, theirs, "tasks/s", wanted, kept))

    for size in _sizes(number, plain)[1:]:
        rate("ours", size, "C loop", WANTED["C loop"])
        rate("ours", size, "Python loop", None)
        rate("Python loop", size, "C loop", None, f"{size}, Python loop, C loop")
        if modes:
            rate("Python loop without logs", size, "C loop without logs", None, f"{size}, Python loop, C loop, no logs")
        for name in found:
            if f"{name} {size}" in contest.sizes:
                rate("ours", size, name, WANTED.get(name))
        for mode in modes:
            quiet, label = f"ours, --logs {mode}", f"{size}, --logs {mode}"
            rate(quiet, size, "C loop without logs", WANTED["C loop"], f"{label}, C loop")
            rate(quiet, size, "Python loop without logs", None, f"{label}, Python loop")
            if f"xargs {size}" in contest.sizes:
                rate(quiet, size, "xargs", WANTED_XARGS, f"{label}, xargs")
        ours, theirs = contest.milliseconds("ours", size), contest.milliseconds("C loop", size)
        bar, kept = (f"<= {WANTED_CPU}", ours / theirs <= WANTED_CPU) if judged and size == number else ("", None)
        figures.append(Figure(f"{size}, CPU time of a task, C loop", ours, theirs, "ms", bar, kept))
    figures += _start(contest, number, plain, judged)
    return figures if plain else [_renamed(one) for one in figures]


def _start(contest: Contest, number: int, plain: bool, judged: bool) -> list[Figure]:
    """A list of one task; rates without it; the rate of the longest list compared with that of the shortest."""
    figures = [Figure("a list of one task, C loop", contest.seconds["ours 1"], contest.seconds["C loop 1"], "s")]
    if number < LEAST:
        return figures
    running, yard = contest.running("ours", number), contest.running("C loop", number)
    figures.append(Figure(f"{number} without start-up, C loop", running, yard, "tasks/s"))
    if plain:
        long, short = contest.running("ours", 10 * number), contest.running("ours", number // 10)
        bar, kept = (f">= {WANTED_LONG}", long / short >= WANTED_LONG) if judged else ("", None)
        figures.append(Figure(f"{10 * number} against {number // 10}, no start-up", long, short, "tasks/s", bar, kept))
    return figures


def _operations(folder: str, number: int, yardstick: str) -> Figure:
    """File operations per task of farmer and workers, not of the tasks; without those of a list of one task."""
    library = compiled("slow.c", folder, "-shared", "-fPIC")
    found: dict[tuple[str, int], int] = {}
    for size in (1, number):
        path = _list(folder, size, PROGRAM)
        with scratch(folder) as inside:
            command = farmer("-q", "-n", str(PROCESSES), "-w", os.path.join(inside, "farm"), path)
            found["ours", size] = operated(library, command, inside, os.path.basename(PROGRAM))
        with scratch(folder) as inside:
            command = [yardstick, str(size), str(PROCESSES), inside, PROGRAM]
            found["C loop", size] = operated(library, command, inside, os.path.basename(PROGRAM))
    ours, loop = ((found[who, number] - found[who, 1]) / (number - 1) for who in ("ours", "C loop"))
    wanted = f"< {WANTED_OPERATIONS:g}"
    return Figure(f"{number}, file operations, C loop", ours, loop, "1/task", wanted, ours < WANTED_OPERATIONS)


def _renamed(one: Figure) -> Figure:
    return Figure(f"pipe: {one.name}", one.ours, one.theirs, one.unit, one.wanted, one.kept)


def _list(folder: str, size: int, command: str) -> str:
    path = os.path.join(folder, f"list-{size}")
    Path(path).write_text(f"{command}\n" * size, encoding="ascii")
    return path
