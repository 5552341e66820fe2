"""Idle farmers: CPU time and system calls of a farmer whose 64 tasks sleep, and of one that waits for work.

The waiting farmer (--wait) has no tasks; another farmer runs the last one, which sleeps. Both are observed for a
minute, and for another minute with strace. The baseline is a Python that sleeps a second at a time. The programs of
the tasks do not count.
"""

from __future__ import annotations

import os
import signal
import statistics
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from benchmarks.measure import Figure, farmer, scratch
from benchmarks.memory import working
from benchmarks.system import calls_of, can_trace, cpu, name, operations, tree

NUMBER = 60
"""Seconds for which each farmer is observed."""
SLOTS = 64
WANTED = 0.1
WANTED_OPERATIONS = 1.0
_TASK = "sleep"
_SETTLES = 3.0
BARE = "import time\nwhile True:\n    time.sleep(1)"


def run(folder: str, number: int, count: int) -> tuple[str, list[Figure]]:
    spent: dict[str, list[float]] = {}
    found: dict[str, Counter[str]] = {}
    with ExitStack() as stack:
        inside = stack.enter_context(scratch(folder))
        asleep = stack.enter_context(working(inside, SLOTS, [f"{_TASK} 86400"] * SLOTS, SLOTS))
        one = stack.enter_context(scratch(folder))
        stack.enter_context(working(one, 1, [f"{_TASK} 86400"], 1))
        arguments = ["--wait", "-w", os.path.join(one, "farm"), os.path.join(one, "list")]
        waiting = stack.enter_context(_process(farmer("-q", "-n", str(SLOTS), *arguments)))
        bare = stack.enter_context(_process([sys.executable, "-c", BARE]))
        time.sleep(_SETTLES)
        pids = {"64 tasks sleep": _own(asleep), "waits for work": _own(waiting), "bare": [bare]}
        for _ in range(count):
            before = {who: cpu(them) for who, them in pids.items()}
            start = time.monotonic()
            time.sleep(number)
            seconds = time.monotonic() - start
            for who, them in pids.items():
                spent.setdefault(who, []).append((cpu(them) - before[who]) / seconds * 60)
        if can_trace():
            found = {who: calls_of(them, number) for who, them in pids.items()}
    figures = []
    for who in ("64 tasks sleep", "waits for work"):
        figures += _figures(who, spent, found, number)
    title = f"farmers with {SLOTS} slots and nothing to do, {number} s; compared with a Python that sleeps in seconds"
    return title if found else title + "\nleft out: system calls, strace may not trace here", figures


def _figures(who: str, spent: dict[str, list[float]], found: dict[str, Counter[str]], number: int) -> list[Figure]:
    ours, bare = statistics.median(spent[who]), statistics.median(spent["bare"])
    judged = who == "64 tasks sleep" and number >= NUMBER
    kept = ours / 60 * 100 < WANTED if judged else None
    figures = [Figure(f"{who}: CPU", ours, bare, "s/min", f"< {WANTED * 0.6:g}" if judged else "", kept)]
    if found:
        minute = 60 / number
        calls, bare_calls = (sum(found[one].values()) * minute for one in (who, "bare"))
        figures.append(Figure(f"{who}: system calls", calls, bare_calls, "1/min"))
        rate = operations(found[who]) / number
        wanted, kept = (f"<= {WANTED_OPERATIONS:g}", rate <= WANTED_OPERATIONS) if judged else ("", None)
        figures.append(Figure(f"{who}: file operations", rate, WANTED_OPERATIONS, "1/s", wanted, kept))
    return figures


def _own(pid: int) -> list[int]:
    return [one for one in tree(pid) if name(one) != _TASK]


@contextmanager
def _process(command: list[str]) -> Iterator[int]:
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        yield process.pid
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait()
