"""Empty tasks: the cost to claim, record and settle one, with a runner whose `run` returns at once.

The baseline is two forked Pythons that do the same without a ledger: read a line, open a log, call `run`, write a
line. The lists have 1,000 tasks to a million in powers of ten, ten million with -N; with a log file for each task only
up to 100,000. Rates are those of the farmer's work without its start. The last lines are for the longest list: the
duration of exchanges and the size of the farmer in each tenth of it, compared with the first.
"""

from __future__ import annotations

import json
import os
import statistics
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.measure import Figure, farmer, rounds, scratch
from benchmarks.system import compiled, knows_logs, operated, timed, watched

NUMBER = 1_000_000
LARGE = 10_000_000
SLOTS = 2
COUNTED = 20_000
MOST_LOGS = 100_000
RATE = 100_000
OPERATIONS = 0.1
GROWTH = 10.0
WANTED = {50: 1.1, 90: 1.2}
_FEW = 30
_LINK_TURNS = 50

RUNNER = """
class Nothing:
    def run(self, taskid, command, logfh):
        return 0
    def terminate(self):
        pass
"""
BARE = """
import os, sys
sys.path.insert(0, sys.argv[1])
from nothing import Nothing
folder, number, slots, logs = sys.argv[1], int(sys.argv[3]), int(sys.argv[4]), int(sys.argv[5])
for slot in range(slots):
    if not os.fork():
        runner = Nothing()
        with open(sys.argv[2], "rb") as lines, open(f"{sys.argv[6]}/results-{slot}", "wb") as told:
            for task, line in enumerate(lines):
                if task % slots == slot:
                    if logs:
                        log = open(f"{sys.argv[6]}/log_{task}", "a")
                        runner.run(task, line.decode(), log)
                        log.close()
                    else:
                        runner.run(task, line.decode(), None)
                    told.write(b"%d 1 %d 0 0 finished 0 0 0 0 0 files 00000000\\n" % (task, slot))
        os._exit(0)
for slot in range(slots):
    os.wait()
"""


class EmptyTasks:
    """A list of empty tasks, and the ways to run it."""

    def __init__(self, folder: str, number: int, logs: str | None) -> None:
        self.folder = folder
        self.number = number
        self.list = os.path.join(folder, f"list-{number}")
        self.ini = os.path.join(folder, "nothing.ini")
        self.logs = logs
        self.reports: list[dict[str, Any]] = []
        self.written: dict[str, list[float]] = {"ours": [], "bare": []}
        Path(folder, "nothing.py").write_text(RUNNER, encoding="ascii")
        Path(self.ini).write_text("[nothing]\nRunner = nothing.Nothing\n", encoding="ascii")
        with open(self.list, "w", encoding="ascii") as file:
            file.writelines(f"nothing {task}\n" for task in range(number))

    def arguments(self, workdir: str) -> list[str]:
        options = ["--logs", self.logs] if self.logs else []
        return ["-q", "-n", str(SLOTS), "-r", "nothing", "--config", self.ini, *options, "-w", workdir, self.list]

    def ours(self) -> float:
        """The farmer's seconds from its first read of the ledger to its last message."""
        with scratch(self.folder) as inside:
            report = os.path.join(inside, "report")
            command = watched(report, *self.arguments(os.path.join(inside, "farm")))
            spent = timed(command, more={"PYTHONPATH": self.folder})
            told = json.loads(Path(report).read_bytes())
        self.reports.append(told)
        self.written["ours"].append(spent.written)
        return float(told["end"] - told["begin"])

    def bare_command(self, inside: str) -> list[str]:
        numbers = [str(self.number), str(SLOTS), str(int(self.logs is None))]
        return [sys.executable, "-c", BARE, self.folder, self.list, *numbers, inside]

    def bare(self) -> float:
        with scratch(self.folder) as inside:
            spent = timed(self.bare_command(inside))
        self.written["bare"].append(spent.written)
        return spent.seconds

    def operations(self, library: str) -> tuple[float, float]:
        """File operations of the farmer and its workers, and of the baseline."""
        with scratch(self.folder) as inside:
            command = farmer(*self.arguments(os.path.join(inside, "farm")))
            ours = operated(library, command, inside, more={"PYTHONPATH": self.folder})
        with scratch(self.folder) as inside:
            return ours, operated(library, self.bare_command(inside), inside)


def run(folder: str, number: int, count: int) -> tuple[str, list[Figure]]:
    sizes = sorted({number, *(size for size in (10**power for power in range(3, 8)) if size < number)})
    figures: list[Figure] = []
    modes = (None, "none") if knows_logs() else (None,)
    for mode in modes:
        label = "" if mode is None else f"--logs {mode}: "
        longest = None
        for size in (size for size in sizes if mode or size <= MOST_LOGS):
            longest = EmptyTasks(folder, size, mode)
            seconds = rounds({"ours": longest.ours, "bare": longest.bare}, count)
            figures += _rates(longest, seconds, f"{label}{size}", mode == "none" and size >= NUMBER)
        assert longest is not None
        figures.append(_commits(longest, folder, f"{label}{longest.number}"))
        figures.append(_operations(folder, min(number, COUNTED), mode, label))
        figures += _tenths(longest.reports, label, mode == modes[-1] and number >= LARGE)
    title = f"{number} tasks that are nothing, {SLOTS} workers; compared with {SLOTS} Pythons without a ledger"
    if None in modes and len(modes) == 1:
        title += "\nleft out: --logs none, which this version does not have; each task has a log file"
    if number > MOST_LOGS:
        title += f"\nleft out: more than {MOST_LOGS} tasks with a log file each"
    return title, figures


def _rates(one: EmptyTasks, seconds: dict[str, float], label: str, judged: bool) -> list[Figure]:
    rate, bare = one.number / seconds["ours"], one.number / seconds["bare"]
    written, bare_written = (statistics.median(values) / one.number for values in one.written.values())
    farmer_cpu = statistics.median(report["cpu"] for report in one.reports) / one.number * 1e6
    below = statistics.median(report["cpu below"] for report in one.reports) / one.number * 1e6
    wanted, kept = (f">= {RATE}", rate >= RATE) if judged else ("", None)
    return [
        Figure(f"{label}, rate", rate, bare, "tasks/s", wanted, kept),
        Figure(f"{label}, written", written, bare_written, "bytes/task"),
        Figure(f"{label}, CPU, of farmer and of workers", farmer_cpu, below, "us/task"),
    ]


def _commits(one: EmptyTasks, folder: str, label: str) -> Figure:
    """Commits per second, compared with the maximum for this disk."""
    rate = statistics.median(report["commits"] / (report["end"] - report["begin"]) for report in one.reports)
    return Figure(f"{label}, commits; of the disk: file, fsync, link, fsync", rate, _links(folder), "1/s")


def _links(folder: str) -> float:
    with scratch(folder) as inside:
        fd = os.open(inside, os.O_RDONLY | os.O_DIRECTORY)
        start = time.perf_counter()
        for turn in range(_LINK_TURNS):
            path = os.path.join(inside, f"prepared-{turn}")
            with open(path, "xb") as file:
                file.write(bytes(1000))
                file.flush()
                os.fsync(file.fileno())
            os.link(path, os.path.join(inside, str(turn)))
            os.unlink(path)
            os.fsync(fd)
        seconds = time.perf_counter() - start
        os.close(fd)
    return _LINK_TURNS / seconds


def _operations(folder: str, number: int, mode: str | None, label: str) -> Figure:
    """File operations per task, without those of a list of one task."""
    library = compiled("slow.c", folder, "-shared", "-fPIC")
    (one, bare_one), (many, bare_many) = (EmptyTasks(folder, size, mode).operations(library) for size in (1, number))
    ours, bare = (many - one) / (number - 1), (bare_many - bare_one) / (number - 1)
    more = ours if mode else ours - bare  # opening a log file does not count, because the baseline does it, too
    wanted = f"< {OPERATIONS}" + ("" if mode else " more")
    return Figure(f"{label}{number}, file operations", ours, bare, "1/task", wanted, more < OPERATIONS)


def _tenths(reports: Sequence[dict[str, Any]], label: str, judged: bool) -> list[Figure]:
    """Exchanges and memory in each tenth of the list; all rounds together."""
    times: list[list[float]] = [[] for _ in range(10)]
    sizes: list[list[float]] = [[] for _ in range(10)]
    for report in reports:
        total = report["exchanges"][-1][2] or 1
        for seconds, _, ended, _, resident in report["exchanges"]:
            tenth = min(9, int(10 * max(0, ended - 1) / total))
            times[tenth].append(seconds * 1000)
            sizes[tenth].append(resident)
    if sum(map(len, times)) < _FEW or not all(times):
        return []
    figures = []
    for tenth in range(10):
        for part in (50, 90, 99):
            ours, first = _quantile(times[tenth], part), _quantile(times[0], part)
            bar = WANTED.get(part) if judged and tenth == 9 else None
            wanted, kept = (f"<= {bar}", ours / first <= bar) if bar else ("", None)
            figures.append(Figure(f"{label}tenth {tenth + 1}, exchange p{part}", ours, first, "ms", wanted, kept))
        largest, first_largest = max(sizes[tenth]), max(sizes[0])
        grown = largest - first_largest
        wanted, kept = (f"+/- {GROWTH:g}", abs(grown) <= GROWTH) if judged else ("", None)
        name = f"{label}tenth {tenth + 1}, memory of the farmer"
        figures.append(Figure(name, largest, first_largest, "MB", wanted, kept))
    return figures


def _quantile(values: Sequence[float], percent: int) -> float:
    return sorted(values)[min(len(values) - 1, len(values) * percent // 100)]
