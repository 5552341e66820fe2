"""A request for jobs as a value, and its validation."""

from __future__ import annotations

import math
from typing import NamedTuple

from taskfarmer.errors import UsageError

NOTICE = 60
"""Seconds before the end of the job at which the scheduler signals the farmers, as in examples/slurm."""
EARLY = 60
"""Slurm may send the signal up to this many seconds early (sbatch(1), --signal)."""
SHORT_GRACE = 30
"""Seconds that tasks of a job that requeues itself have to save their state."""
MOST_NOTICE = 65535
"""The limit of sbatch(1), --signal."""


class Request(NamedTuple):
    """Jobs that work on a task list. Times are in seconds, paths are absolute.

    With `slots` None, each farmer counts its CPUs (`--proc auto`). If `slots_given` is false, `slots` is only the
    number of CPUs to request, and the farmer reads the granted number from the scheduler's variable. `program` with
    `options` starts a farmer; `grace` and `margin` are options of it. `words` are the user's scheduler options.
    """

    tasklist: str
    name: str
    program: tuple[str, ...]
    options: tuple[str, ...] = ()
    slots: int | None = 8
    slots_given: bool = False
    nodes: int = 1
    array: int | None = None
    time: float | None = None
    time_min: float | None = None
    partition: str | None = None
    account: str | None = None
    constraint: str | None = None
    requeue: bool = False
    words: tuple[str, ...] = ()
    grace: float = 10.0
    margin: float | None = None

    @property
    def requeues_itself(self) -> bool:
        """Whether the job requeues itself until the list is done (examples/slurm/flex.sh)."""
        return self.requeue and self.time_min is not None

    @property
    def notice(self) -> int:
        """Seconds before the end at which the signal is sent; a farmer that knows the end has stopped by then."""
        if self.margin is not None:
            return min(MOST_NOTICE, max(1, math.ceil(self.margin) - EARLY))
        return min(MOST_NOTICE, max(NOTICE, math.ceil(self.grace) + NOTICE // 2))

    @property
    def lead(self) -> int:
        """Seconds before the end at which farmers stop; the signal may come `EARLY` seconds early."""
        return self.notice + EARLY if self.margin is None else math.ceil(self.margin)

    def check(self) -> None:
        """UsageError if the request is inconsistent for any scheduler."""
        if self.time is not None and self.time_min is not None and self.time_min > self.time:
            raise UsageError(f"--time-min {clock(self.time_min)}: longer than --time {clock(self.time)}; lower it")
        for name, value in (("--time", self.time), ("--time-min", self.time_min)):
            if value is not None and value <= self.lead:
                raise UsageError(
                    f"{name} {clock(value)}: too short, because farmers stop {self.lead} s before the end; ask for "
                    "more time, or shorten --margin"
                )
        for name, text in (("--partition", self.partition), ("--account", self.account), ("-C", self.constraint)):
            if text is not None and (not text or not text.isprintable()):
                raise UsageError(f"{name}: invalid name {text!r}")
        for word in self.words:
            if not word or not word.isprintable():
                raise UsageError(f"{word!r}: not allowed in a job script; put only scheduler options after --")
        if self.words and not self.words[0].startswith("-"):
            raise UsageError(f"expected a scheduler option after --, got {self.words[0]!r}")


def clock(seconds: float) -> str:
    """Seconds in the format of sbatch(1): `hours:minutes:seconds`, preceded by `days-` for a day or more."""
    whole = math.ceil(seconds)
    days, remainder = divmod(whole, 86400)
    return (f"{days}-" if days else "") + hours(remainder)


def hours(seconds: float) -> str:
    """Seconds in the format of sge_types(1): `hours:minutes:seconds`."""
    whole = math.ceil(seconds)
    return f"{whole // 3600:02}:{whole // 60 % 60:02}:{whole % 60:02}"
