"""What a user asks of a scheduler, as values, and whether it can be had at all."""

from __future__ import annotations

import math
from typing import NamedTuple

from taskfarmer.errors import UsageError

NOTICE = 60
"""Seconds before the end at which the farmers are told, as in examples/slurm."""
EARLY = 60
"""Seconds by which Slurm may tell them earlier (sbatch(1), --signal)."""
SHORT_GRACE = 30
MOST_NOTICE = 65535
"""sbatch(1), --signal."""


class Request(NamedTuple):
    """Jobs that work on a task list. Times are in seconds, paths absolute, `words` as the user wrote them.

    `slots` is None where each farmer is to count its CPUs (`--proc auto`), and only a wish for CPUs where
    `slots_given` is false: the scheduler then says how many there are. `program` starts a farmer, with
    `options` of it; `grace` and `margin` are its.
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
    def returns(self) -> bool:
        """Whether the job is to start itself again until the list is done (examples/slurm/flex.sh)."""
        return self.requeue and self.time_min is not None

    @property
    def notice(self) -> int:
        """Seconds before the end at which the scheduler tells the farmers: after they have ended by themselves."""
        if self.margin is not None:
            return min(MOST_NOTICE, max(1, math.ceil(self.margin) - EARLY))
        return min(MOST_NOTICE, max(NOTICE, math.ceil(self.grace) + NOTICE // 2))

    @property
    def lead(self) -> int:
        """Seconds before the end at which farmers begin to give back; the signal may come `EARLY` seconds early."""
        return self.notice + EARLY if self.margin is None else math.ceil(self.margin)

    def check(self) -> None:
        """UsageError where the parts of a request exclude each other, whatever the scheduler."""
        if self.time is not None and self.time_min is not None and self.time_min > self.time:
            raise UsageError(f"--time-min {clock(self.time_min)}: is longer than --time {clock(self.time)}")
        for name, value in (("--time", self.time), ("--time-min", self.time_min)):
            if value is not None and value <= self.lead:
                raise UsageError(
                    f"{name} {clock(value)}: what runs is given back {self.lead} s before the end, so nothing could "
                    "run; ask for more time, or give a shorter --margin"
                )
        for name, text in (("--partition", self.partition), ("--account", self.account), ("-C", self.constraint)):
            if text is not None and (not text or not text.isprintable()):
                raise UsageError(f"{name}: {text!r} is no name")
        for word in self.words:
            if not word or not word.isprintable():
                raise UsageError(f"{word!r}: cannot stand in a job script; what is behind -- is for the scheduler")
        if self.words and not self.words[0].startswith("-"):
            raise UsageError(f"{self.words[0]!r}: behind -- stand options of the scheduler, and this is none")


def clock(seconds: float) -> str:
    """Seconds as sbatch(1) reads a time: `hours:minutes:seconds`, with `days-` before it where there are any."""
    whole = math.ceil(seconds)
    days, rest = divmod(whole, 86400)
    return (f"{days}-" if days else "") + hours(rest)


def hours(seconds: float) -> str:
    """Seconds as sge_types(1) has a time: `hours:minutes:seconds`."""
    whole = math.ceil(seconds)
    return f"{whole // 3600:02}:{whole // 60 % 60:02}:{whole % 60:02}"
