"""Memory of a farmer and its workers: 64 and 128 slots, idle and busy, and for lists of a thousand to a million tasks.

Resident and proportional set size (smaps_rollup of proc(5)); the programs of the tasks do not count. Busy: each slot
has a task that sleeps. Idle: all slots have run tasks, and one task still sleeps. Plug-in: a runner with a custom
`run`, for which each slot has a worker. The baseline is as many bare forked Pythons as there are slots; for lists, the
list of a thousand.
"""

from __future__ import annotations

import os
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks.measure import Figure, farmer, scratch
from benchmarks.system import megabytes, name, tree
from benchmarks.workers import BARE

NUMBER = 64
LISTS = (1_000, 100_000, 1_000_000)
WANTED = 130.0
WANTED_GROWTH = 10.0
KINDS = ("Pss", "Rss")
_TASK = "sleep"
_DEADLINE = 120.0
_SETTLES = 0.5
RUNNER = """
import os
class Spawning:
    def run(self, taskid, command, logfh):
        words = command.split()
        return os.waitstatus_to_exitcode(os.waitpid(os.posix_spawnp(words[0], words, os.environ), 0)[1])
    def terminate(self):
        pass
"""


def run(folder: str, number: int, count: int) -> tuple[str, list[Figure]]:
    lists = LISTS if number >= NUMBER else LISTS[:2]
    turns: dict[str, Callable[[], dict[str, float]]] = {}
    for slots in (number, 2 * number):
        turns[f"{slots} slots, busy"] = _turn(folder, slots, [f"{_TASK} 600"] * slots, slots)
        turns[f"{slots} slots, idle"] = _turn(folder, slots, [f"{_TASK} 600"] + [f"{_TASK} 0.3"] * (3 * slots), 1)
        turns[f"{slots} slots, plug-in"] = _turn(folder, slots, [f"{_TASK} 600"] * slots, slots, *_plugin(folder))
        turns[f"{slots} Pythons"] = lambda slots=slots: _bare(slots)  # type: ignore[misc]
    for size in lists:
        turns[f"{size} tasks"] = _turn(folder, number, [f"{_TASK} 600"] * size, number)
    seen: dict[str, list[dict[str, float]]] = {what: [] for what in turns}
    for _ in range(count):
        for what, turn in turns.items():
            seen[what].append(turn())
    middle = {
        what: {kind: statistics.median(one[kind] for one in found) for kind in KINDS} for what, found in seen.items()
    }
    figures = []
    for slots in (number, 2 * number):
        for state in ("busy", "idle", "plug-in"):
            what = f"{slots} slots, {state}"
            for kind in KINDS:
                judged = slots == NUMBER and kind == "Pss"
                ours, wanted = middle[what][kind], f"<= {WANTED:g} MB" if judged else ""
                kept = ours <= WANTED if judged else None
                figures.append(Figure(f"{what}, {kind}", ours, middle[f"{slots} Pythons"][kind], "MB", wanted, kept))
    for size in lists:
        ours, first = middle[f"{size} tasks"]["Pss"], middle[f"{lists[0]} tasks"]["Pss"]
        judged = number == NUMBER and size == lists[-1]
        wanted, kept = (f"+ {WANTED_GROWTH:g} MB", ours - first <= WANTED_GROWTH) if judged else ("", None)
        figures.append(Figure(f"{number} slots, busy, a list of {size}, Pss", ours, first, "MB", wanted, kept))
    return f"{number} slots; compared with bare forked Pythons, and with a list of {lists[0]}", figures


def _plugin(folder: str) -> tuple[str, ...]:
    """The options for a runner whose `run` waits for the task."""
    Path(folder, "spawning.py").write_text(RUNNER, encoding="ascii")
    Path(folder, "spawning.ini").write_text("[spawning]\nRunner = spawning.Spawning\n", encoding="ascii")
    return ("-r", "spawning", "--config", os.path.join(folder, "spawning.ini"))


def _turn(folder: str, slots: int, commands: list[str], running: int, *options: str) -> Callable[[], dict[str, float]]:
    """Measure a farmer when exactly `running` of its tasks run, and have run for a while."""

    def turn() -> dict[str, float]:
        with scratch(folder) as inside, working(inside, slots, commands, running, *options) as pid:
            own = [one for one in tree(pid) if name(one) != _TASK]
            return {kind: megabytes(own, kind) for kind in KINDS}

    return turn


@contextmanager
def working(folder: str, slots: int, commands: list[str], running: int, *options: str) -> Iterator[int]:
    """A farmer that can start no more tasks, because no task or slot is left, and has exactly `running` tasks."""
    path = os.path.join(folder, "list")
    Path(path).write_text("".join(f"{command}\n" for command in commands), encoding="ascii")
    arguments = ["-q", "-n", str(slots), "--grace", "1", *options, "-w", os.path.join(folder, "farm"), path]
    said = Path(folder, "said")
    with said.open("wb") as file:
        more = {**os.environ, "PYTHONPATH": str(Path(folder).parent)}
        process = subprocess.Popen(farmer(*arguments), stdin=subprocess.DEVNULL, stderr=file, env=more)
    try:
        _settle(process, said, running, 1 if len(commands) <= slots or running == slots else len(commands) - running)
        yield process.pid
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait()


def _settle(process: subprocess.Popen[bytes], said: Path, running: int, begun: int) -> None:
    """Wait until at least `begun` tasks have started, and exactly `running` of them have been running for a while."""
    end, seen = time.monotonic() + _DEADLINE, set()
    since = time.monotonic()
    while True:
        tasks = {pid for pid in tree(process.pid) if name(pid) == _TASK}
        seen |= tasks
        now = time.monotonic()
        if len(tasks) != running or len(seen) < begun / 2:
            since = now
        elif now - since > _SETTLES:
            return
        if process.poll() is not None or now > end:
            raise SystemExit(f"the farmer did not come to have {running} tasks: {said.read_text()}")
        time.sleep(0.05)


def _bare(number: int) -> dict[str, float]:
    with subprocess.Popen(
        [sys.executable, "-c", BARE, str(number)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        pids = tree(process.pid)
        return {kind: megabytes(pids, kind) for kind in KINDS}
