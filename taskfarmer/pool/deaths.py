"""Detect whether workers that die in a row have a common cause, so that starting more of them is useless.

A task that kills its worker is retried, and is recorded as lost in the end (--max-deaths). But workers may also die
whatever they run: a custom runner crashes, a memory limit is too low, the node kills processes. Then the farmer waits
longer before each start, and gives up. It judges by the workers that died since the last task ended: how many of them
ran tasks that no worker had died of before, how many died soon without a task, and in how many rounds. A round is a set
of workers that were started together.
"""

from __future__ import annotations

import signal
from collections.abc import Collection, Iterable

START_PAUSE = 1.0
"""Seconds between two starts of a worker that dies."""
_LONGEST_PAUSE = 60.0
_SOON = 10.0
"""Seconds after its start within which the death of a worker without a task counts."""
_DIFFERENT = 3
"""Deaths of different tasks, or soon, that make a common cause likely. --max-deaths handles one or two bad tasks."""
_ROUNDS = 6
"""Rounds after which it is certain: half a minute of pauses, and fewer deaths than --max-deaths allows."""

TaskPlace = tuple[int, int]
"""A task, by its segment and its place there."""


class Deaths:
    """The deaths of workers since the last task ended. `_tasks` ran in workers that died, also before that."""

    def __init__(self) -> None:
        self._tasks: set[TaskPlace] = set()
        self.progress()

    def progress(self) -> None:
        """A task has ended, so workers can work: those that died before had tasks that killed them."""
        self.workers = self._different = self._rounds = 0
        self._round_start = 0.0

    def add(self, now: float, started: float, ran: Collection[TaskPlace]) -> bool:
        """Count a worker that died while it `ran` these tasks; True if it is the first one of its round."""
        self.workers += 1
        self._different += self._tasks.isdisjoint(ran) if ran else now - started < _SOON
        self._tasks.update(ran)
        first = not self._rounds or started >= self._round_start
        if first:
            self._rounds += 1
            self._round_start = now
        return first

    @property
    def alike(self) -> bool:
        """Whether a common cause is likely."""
        return self._different >= _DIFFERENT

    @property
    def unclear(self) -> bool:
        """Whether a task or a common cause may kill workers. Other tasks will show which of them."""
        return self.workers > 0 and not self.alike

    @property
    def hopeless(self) -> bool:
        return self.alike and self._rounds >= _ROUNDS

    @property
    def pause(self) -> float:
        """Seconds until the next worker is started."""
        if not self.alike:
            return START_PAUSE
        return min(_LONGEST_PAUSE, START_PAUSE * 2.0 ** min(self._rounds - 1, 10))

    def describe(self, slots: Iterable[int], exitcode: int | None, ran: bool, logs: str | None) -> str:
        """The message about the worker that died last. `ran`: with a task; `logs`: their folder, if it was the last."""
        numbers = ", ".join(map(str, slots))
        how = exit_reason(exitcode) + ("" if ran else ", no task ran")
        if not self.alike:
            return f"worker for slot {numbers} died ({how}); starting a replacement"
        text = f"{self.workers} workers died in a row and no task ended; the last for slot {numbers} ({how})"
        if logs is not None:
            return f"{text}; check {logs}, the runner and `ulimit -a`, then run the command again"
        return f"{text}; next start in {self.pause:.0f} s"


def exit_reason(exitcode: int | None) -> str:
    """How a worker ended. If another process sent it SIGTERM, it stops by itself, and exits with 0."""
    if exitcode is None:
        return "stuck in the kernel"
    if exitcode > 0:
        return f"exit status {exitcode}"
    number = -exitcode or signal.SIGTERM
    try:
        return signal.Signals(number).name
    except ValueError:  # a real-time signal
        return f"signal {number}"
