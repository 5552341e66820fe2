"""Start-up: `--version`, `--help` and a list of one task, compared with a bare Python and one with our imports.

Seconds, file operations (strace, without the programs that are started), modules in memory; and seconds if each file
operation takes a millisecond longer (see slow.c), as if many nodes started at once from one file system.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path

from benchmarks.measure import Figure, farmer, rounds
from benchmarks.system import calls, can_trace, compiled, operations, slowed, timed

NUMBER = 1000
"""Microseconds that are added to each file operation."""
PASS, IMPORTS = "python", "its imports"
BARE = {PASS: "pass", IMPORTS: "import click, filelock, multiprocessing"}
MOST_OPERATIONS = 2.5
WANTED = {
    ("s", "--version", PASS): 4.5,
    ("s", "a task", IMPORTS): 2.2,
    ("operations", "a task", IMPORTS): MOST_OPERATIONS,
}
_MODULES = """
import atexit, os, sys
def tell(me=os.getpid()):
    if os.getpid() == me:
        os.write(1, b" %d" % len(sys.modules))
atexit.register(tell)
"""


def run(folder: str, number: int, count: int) -> tuple[str, list[Figure]]:
    path = os.path.join(folder, "list")
    Path(path).write_text("/bin/true\n", encoding="ascii")
    workdir = os.path.join(folder, "farm")
    library = compiled("slow.c", folder, "-shared", "-fPIC")
    commands = {
        "--version": farmer("--version"),
        "--help": farmer("--help"),
        "a task": farmer("-q", "-n", "2", "-w", workdir, path),
        **{name: [sys.executable, "-c", text] for name, text in BARE.items()},
    }
    left = {name: workdir if name == "a task" else None for name in commands}

    def turn(name: str, microseconds: int) -> Callable[[], float]:
        more = slowed(library, microseconds, "/") if microseconds else None
        return lambda: timed(commands[name], left[name], more).seconds

    for name, command in commands.items():
        # compile and read everything once; installed packages are compiled, so compile the checkout, too
        timed(command, left[name], {"PYTHONDONTWRITEBYTECODE": ""})
    quick = {name: turn(name, 0) for name in commands}
    slow = {f"{name}, slow": turn(name, number) for name in commands}
    measured = {"s": rounds({**quick, **slow}, count)}
    if can_trace():
        found = {name: calls(command, left[name]) for name, command in commands.items()}
        measured["operations"] = {name: float(operations(one)) for name, one in found.items()}
        measured["system calls"] = {name: float(sum(one.values())) for name, one in found.items()}
    measured["modules"] = {name: _modules(command, left[name]) for name, command in commands.items()}
    figures = [_figure(values, unit, name, bare, "") for unit, values in measured.items() for name, bare in _pairs()]
    figures += [_figure(measured["s"], "s", name, bare, ", slow") for name, bare in _pairs()]
    title = f"starting; compared with bare Pythons; `slow`: {number} microseconds are added to each file operation"
    return title if "operations" in measured else title + "\nleft out: system calls, strace may not trace here", figures


def _pairs() -> list[tuple[str, str]]:
    return [(name, bare) for name in ("--version", "--help", "a task") for bare in (PASS, IMPORTS)]


def _figure(values: dict[str, float], unit: str, name: str, bare: str, how: str) -> Figure:
    ours, theirs = values[name + how], values[bare + how]
    bar = WANTED.get((unit, name, bare))
    wanted, kept = (f"<= {bar}", ours / theirs <= bar) if bar and not how else ("", None)
    return Figure(f"{name}, {bare}{how}", ours, theirs, unit, wanted, kept)


def _modules(command: list[str], leaves: str | None) -> float:
    """How many modules a Python command has imported when it exits."""
    python, _, program, *arguments = command
    return float(timed([python, "-c", _MODULES + program, *arguments], leaves).said.split()[-1])
