"""A farmer's report to the ledger at its next exchange, as a value."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from taskfarmer.formats.intervals import Interval


@dataclass
class FarmerReport:
    """A farmer's report: result lines (`size` bytes of them), and their effect on the tasks.

    `overran` are released because the farmer's time ran out; `times` counts finished tasks by class of duration.
    `views` are lines for `finished`, `failed` and the timeline; the ledger only passes them on.
    """

    lines: list[bytes] = field(default_factory=list)
    done: list[Interval] = field(default_factory=list)
    returned: list[Interval] = field(default_factory=list)
    died: list[Interval] = field(default_factory=list)
    overran: list[Interval] = field(default_factory=list)
    finished: int = 0
    failed: int = 0
    seconds: float = 0.0
    ended: int = 0
    times: Counter[int] = field(default_factory=Counter)
    size: int = 0
    views: list[tuple[bytes, bytes, bytes]] = field(default_factory=list)

    @property
    def is_empty(self) -> bool:
        return not (self.lines or self.no_longer_held)

    @property
    def no_longer_held(self) -> tuple[Interval, ...]:
        """All tasks that the farmer no longer holds."""
        return (*self.done, *self.returned, *self.died, *self.overran)

    def add(self, more: FarmerReport) -> None:
        self.lines += more.lines
        self.done += more.done
        self.returned += more.returned
        self.died += more.died
        self.overran += more.overran
        self.finished += more.finished
        self.failed += more.failed
        self.seconds += more.seconds
        self.ended += more.ended
        self.times += more.times
        self.size += more.size
        self.views += more.views
