"""Many workers: seconds until each runs its first task, and the memory of all, compared with bare forked Pythons.

Memory is the proportional set size (smaps_rollup of proc(5)) of the farmer and its workers; the programs of the tasks
do not count. The bare processes only report that they exist.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from benchmarks.measure import Figure, farmer, rounds, scratch
from benchmarks.system import megabytes, name, tree

NUMBER = 256
SECONDS = 3.0
MEGABYTES = 400.0
_TASK = "sleep"
_DEADLINE = 60.0

BARE = """
import os, sys, time
ready, told = os.pipe()
stop, stopped = os.pipe()
for _ in range(int(sys.argv[1])):
    if not os.fork():
        os.close(stopped)
        os.write(told, b".")
        os.read(stop, 1)
        os._exit(0)
for _ in range(int(sys.argv[1])):
    os.read(ready, 1)
print(flush=True)
sys.stdin.read()
"""


def run(folder: str, number: int, count: int) -> tuple[str, list[Figure]]:
    path = os.path.join(folder, "list")
    Path(path).write_text(f"{_TASK} 600\n" * number, encoding="ascii")
    memory: dict[str, list[float]] = {"ours": [], "bare": []}

    def ours() -> float:
        with scratch(folder) as inside:
            seconds, pss = _ours(path, os.path.join(inside, "farm"), number)
        memory["ours"].append(pss)
        return seconds

    def bare() -> float:
        seconds, pss = _bare(number)
        memory["bare"].append(pss)
        return seconds

    seconds = rounds({"ours": ours, "bare": bare}, count)
    pss, bare_pss = (sorted(values)[len(values) // 2] for values in memory.values())
    judged = number == NUMBER
    return f"{number} workers; compared with {number} bare forked Python processes", [
        Figure(
            "all are ready",
            seconds["ours"],
            seconds["bare"],
            "s",
            f"< {SECONDS:g} s",
            seconds["ours"] < SECONDS if judged else None,
        ),
        Figure("memory of all", pss, bare_pss, "MB", f"< {MEGABYTES:g} MB", pss < MEGABYTES if judged else None),
    ]


def _ours(path: str, workdir: str, number: int) -> tuple[float, float]:
    """Seconds until every task of the list runs, and megabytes of farmer and workers then."""
    said = Path(path + ".said")
    start = time.perf_counter()
    with said.open("wb") as file:
        process = subprocess.Popen(
            farmer("-q", "-n", str(number), "--grace", "1", "-w", workdir, path), stdin=subprocess.DEVNULL, stderr=file
        )
    try:
        while sum(name(pid) == _TASK for pid in tree(process.pid)) < number:
            if process.poll() is not None or time.perf_counter() - start > _DEADLINE:
                raise SystemExit(f"the farmer did not start {number} tasks in {_DEADLINE:g} s: {said.read_text()}")
            time.sleep(0.05)
        seconds = time.perf_counter() - start
        return seconds, megabytes(pid for pid in tree(process.pid) if name(pid) != _TASK)
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait()


def _bare(number: int) -> tuple[float, float]:
    start = time.perf_counter()
    with subprocess.Popen(
        [sys.executable, "-c", BARE, str(number)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        seconds = time.perf_counter() - start
        return seconds, megabytes(tree(process.pid))
