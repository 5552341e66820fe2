"""Measuring side by side: rounds in which all contestants take turns, medians, a table, JSON.

Machines differ and drift, so a single figure means little: the subject and its baseline take turns, round after round,
and the ratio of their medians counts.
"""

from __future__ import annotations

import json
import os
import platform
import shutil
import statistics
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

HERE = Path(__file__).resolve().parent.parent
ROUNDS = 5
_PREFIX = "taskfarmer-benchmark-"


@dataclass(frozen=True)
class Figure:
    """One line of a table: `ours` and `theirs` in `unit`, their `ratio`, and the required bound, if any."""

    name: str
    ours: float
    theirs: float
    unit: str
    wanted: str = ""
    kept: bool | None = None

    @property
    def ratio(self) -> float:
        return self.ours / self.theirs if self.theirs else float("nan")


def rounds(turns: Mapping[str, Callable[[], float]], count: int = ROUNDS) -> dict[str, float]:
    """The median of each of `turns`, which are called one after the other, `count` times."""
    seen: dict[str, list[float]] = {name: [] for name in turns}
    for _ in range(count):
        for name, turn in turns.items():
            seen[name].append(turn())
    return {name: statistics.median(values) for name, values in seen.items()}


@contextmanager
def scratch(folder: str | None) -> Iterator[str]:
    """A new directory in `folder` or in the default directory for temporary files, which is removed afterwards.

    A directory inside another scratch directory is removed with that one: if many files were deleted within the last
    minutes, ext4 takes up to a hundred times as long to create one (`recently_deleted` in fs/ext4/ialloc.c), and the
    next turn would pay for this.
    """
    path = tempfile.mkdtemp(prefix=_PREFIX, dir=folder)
    try:
        yield path
    finally:
        if folder is None or not os.path.basename(folder).startswith(_PREFIX):
            shutil.rmtree(path, ignore_errors=True)


def farmer(*arguments: str) -> list[str]:
    """The command that runs a farmer from this checkout or installation.

    One directory precedes the module search path, as for `python pytaskfarmer.py` and for the bare Pythons of the
    baseline.
    """
    start = f"import sys; sys.path[0] = {str(HERE)!r}; from taskfarmer.start import pytaskfarmer; pytaskfarmer()"
    return [sys.executable, "-c", start, *arguments]


def table(title: str, figures: list[Figure]) -> str:
    head = ("figure", "ours", "compared", "unit", "ratio", "wanted", "")
    rows = [head] + [
        (one.name, _number(one.ours), _number(one.theirs), one.unit, f"{one.ratio:.3f}", one.wanted, _verdict(one))
        for one in figures
    ]
    widths = [max(len(row[place]) for row in rows) for place in range(len(head))]
    lines = ["  ".join(word.ljust(width) for word, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    return "\n".join([title, *lines])


def document(name: str, title: str, figures: list[Figure]) -> str:
    machine = {"system": platform.platform(), "python": platform.python_version(), "cpus": os.cpu_count()}
    values = [{**asdict(one), "ratio": round(one.ratio, 4)} for one in figures]
    return json.dumps({"benchmark": name, "title": title, "machine": machine, "figures": values}, indent=1) + "\n"


def _number(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3f}"


def _verdict(one: Figure) -> str:
    return "" if one.kept is None else "kept" if one.kept else "MISSED"
