"""A long list: seconds and peak memory of its import, compared with Python reading and splitting the same file."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

from benchmarks.measure import Figure, rounds, scratch

NUMBER = 1_000_000
SECONDS = 10.0
MEGABYTES = 200.0

_PEAK = """
with open("/proc/self/status") as status:
    print(next(line.split()[1] for line in status if line.startswith("VmHWM:")))
"""
OURS = f"""
import sys
from taskfarmer.intake import Intake
from taskfarmer.options import Settings, silent
Intake(Settings(sys.argv[1], workdir=sys.argv[2]), silent()).open()
{_PEAK}"""
BARE = f"""
import sys
with open(sys.argv[1], "rb") as file:
    lines = file.read().split(b"\\n")
{_PEAK}"""


def run(folder: str, number: int, count: int) -> tuple[str, list[Figure]]:
    path = f"{folder}/list"
    with open(path, "w", encoding="ascii") as file:
        for task in range(number):
            file.write(f"./simulate --seed {task} --events 1000 --output out/run_{task:07d}.dat\n")
    size = Path(path).stat().st_size
    peaks: dict[str, list[float]] = {"ours": [], "bare": []}

    def ours() -> float:
        with scratch(folder) as inside:
            seconds, peak = _timed(OURS, path, f"{inside}/farm")
        peaks["ours"].append(peak)
        return seconds

    def bare() -> float:
        seconds, peak = _timed(BARE, path)
        peaks["bare"].append(peak)
        return seconds

    seconds = rounds({"ours": ours, "bare": bare}, count)
    peak, bare_peak = (sorted(values)[len(values) // 2] for values in peaks.values())
    took, judged = seconds["ours"], number == NUMBER
    return f"import of {number} lines ({size / 1e6:.0f} MB); compared with read() and split()", [
        Figure("import", took, seconds["bare"], "s", f"< {SECONDS:g} s", took < SECONDS if judged else None),
        Figure("peak memory", peak, bare_peak, "MB", f"< {MEGABYTES:g} MB", peak < MEGABYTES if judged else None),
    ]


def _timed(program: str, *arguments: str) -> tuple[float, float]:
    """Seconds of a Python program, including its start-up, and its peak memory in megabytes."""
    start = time.perf_counter()
    done = subprocess.run([sys.executable, "-c", program, *arguments], check=True, stdout=subprocess.PIPE)
    return time.perf_counter() - start, int(done.stdout) * 1024 / 1e6
