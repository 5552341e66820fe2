"""File operations per task, as the library of benchmarks/slow.c counts them."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from benchmarks.system import operated
from support.farms import Farm

FEW, MANY = 50, 1050


def operations(farm: Farm, library: str, command: str, *options: object) -> float:
    """File operations of a farmer and its workers in `logs` and `tasks` for one more task, without those of the task.

    Other operations (exchanges, heartbeats, views) depend on the time: on a busy machine there are more of them.
    """
    found = []
    for size in (FEW, MANY):
        tasklist = farm.folder / f"list-{size}-{len(os.listdir(farm.folder))}"
        tasklist.write_text(f"{command}\n" * size)
        workdir = f"{tasklist}_workdir"
        words = [sys.executable, "-m", "taskfarmer", "run", str(tasklist), "-q", "-n", "2", *map(str, options)]
        name = Path(command.split()[0]).name
        more = {"PYTHONPATH": str(Path(__file__).parents[2]), "HOME": str(farm.folder)}
        found.append(operated(library, words, f"{workdir}/logs:{workdir}/tasks", name, more))
    return (found[1] - found[0]) / (MANY - FEW)
