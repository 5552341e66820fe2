"""Short tasks: a farmer with two workers against a C loop of posix_spawn in two processes.

Both run `/bin/true` and keep a log file for each task; the farmer also records each. Start-up is in the
first figure; the second leaves out what a list of one task takes, of both. On a machine that is busy with
other things the last figure, CPU seconds (those of the tasks included), is the one to trust.
"""

from __future__ import annotations

import os
import resource
import shutil
import statistics
import subprocess
import time
from pathlib import Path

from benchmarks.measure import Figure, farmer, rounds

NUMBER = 5000
PROCESSES = 2
PROGRAM = "/bin/true"
WANTED = 0.6


def run(folder: str, number: int, count: int) -> tuple[str, list[Figure]]:
    yardstick = _compile(folder)
    lists = {size: _list(folder, size) for size in (1, number)}

    spent: dict[str, list[float]] = {"ours": [], "theirs": []}

    def ours(size: int) -> float:
        workdir = os.path.join(folder, "farm")
        seconds, cpu = _timed(farmer("-q", "-n", str(PROCESSES), "-w", workdir, lists[size]), workdir)
        if size == number:
            spent["ours"].append(cpu)
        return seconds

    def theirs(size: int) -> float:
        logs = os.path.join(folder, "logs")
        os.mkdir(logs)
        seconds, cpu = _timed([yardstick, PROGRAM, str(size), str(PROCESSES), logs], logs)
        if size == number:
            spent["theirs"].append(cpu)
        return seconds

    seconds = rounds(
        {
            "ours": lambda: ours(number),
            "theirs": lambda: theirs(number),
            "our start": lambda: ours(1),
            "their start": lambda: theirs(1),
        },
        count,
    )
    rate, yardrate = number / seconds["ours"], number / seconds["theirs"]
    running = (number - 1) / (seconds["ours"] - seconds["our start"])
    yardrunning = (number - 1) / (seconds["theirs"] - seconds["their start"])
    cpu = {who: statistics.median(values) / number * 1000 for who, values in spent.items()}
    kept = rate / yardrate >= WANTED if number == NUMBER else None
    return f"{number} x {PROGRAM}, {PROCESSES} at a time, a log file each; compared with a C loop", [
        Figure("start-up included", rate, yardrate, "tasks/s", f">= {WANTED}", kept),
        Figure("without start-up", running, yardrunning, "tasks/s"),
        Figure("a list of one task", seconds["our start"], seconds["their start"], "s"),
        Figure("CPU time per task", cpu["ours"], cpu["theirs"], "ms"),
    ]


def _compile(folder: str) -> str:
    source = str(Path(__file__).with_name("spawn.c"))
    program = os.path.join(folder, "spawn")
    subprocess.run(["cc", "-O2", "-o", program, source], check=True)
    return program


def _list(folder: str, size: int) -> str:
    path = os.path.join(folder, f"list-{size}")
    Path(path).write_text(f"{PROGRAM}\n" * size, encoding="ascii")
    return path


def _timed(command: list[str], leaves: str) -> tuple[float, float]:
    """Seconds and CPU seconds that `command` takes; what it `leaves` behind is removed before the next turn."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    start = time.perf_counter()
    subprocess.run(command, check=True, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    seconds = time.perf_counter() - start
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    shutil.rmtree(leaves)
    return seconds, after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime
