"""Whether workers that die one after the other have one cause, so that starting more of them is in vain.

A task that kills its worker is run again, and is recorded as lost in the end (--max-deaths). But a worker may also die
at once whatever it runs: a runner of the user's own that crashes, a limit of memory, a node that kills processes. Then
the farmer waits longer before each start, and gives up. It decides that from the workers that died since a task ended
last: how many of them ran tasks in whose workers nothing died before, how many died at once without a task, and in how
many rounds. A round is a set of workers that were started together.
"""

from __future__ import annotations

import signal
from collections.abc import Collection, Iterable

START_PAUSE = 1.0
"""Seconds between two starts of a worker that dies."""
_LONGEST_PAUSE = 60.0
_AT_ONCE = 10.0
"""Seconds within which a worker that ran no task is said to have died at once."""
_DIFFERENT = 3
"""Deaths of different tasks, or at once, that make a common cause likely. One or two tasks are left to --max-deaths."""
_ROUNDS = 6
"""Rounds after which it is certain: half a minute of pauses, and fewer than the deaths that --max-deaths allows."""

Name = tuple[int, int]
"""A task by its segment and its place there."""


class Deaths:
    """The deaths of workers since a task ended last. `_tasks` ran in workers that died, also before that."""

    def __init__(self) -> None:
        self._tasks: set[Name] = set()
        self.progress()

    def progress(self) -> None:
        """A task has ended, so workers can work: those that died before had tasks that killed them."""
        self.workers = self._different = self._rounds = 0
        self._round_began = 0.0

    def add(self, now: float, started: float, ran: Collection[Name]) -> bool:
        """Count a worker that died while it `ran` these tasks; whether it is the first one of its round."""
        self.workers += 1
        self._different += self._tasks.isdisjoint(ran) if ran else now - started < _AT_ONCE
        self._tasks.update(ran)
        first = not self._rounds or started >= self._round_began
        if first:
            self._rounds += 1
            self._round_began = now
        return first

    @property
    def alike(self) -> bool:
        """Whether a common cause is likely."""
        return self._different >= _DIFFERENT

    @property
    def unclear(self) -> bool:
        """Whether it is not known yet if a task or a common cause kills workers: other tasks will show it."""
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
        """The line for people about the worker that died last, in which a task `ran`; `logs` if it was the last one."""
        where = ", ".join(map(str, slots))
        how = ending(exitcode) + ("" if ran else ", no task ran")
        if not self.alike:
            return f"worker for slot {where} died ({how}); starting a replacement"
        text = f"{self.workers} workers died one after the other and no task ended; the last for slot {where} ({how})"
        if logs is not None:
            return f"{text}; look into {logs}, at the runner and at `ulimit -a`, and run the command again"
        return f"{text}; the next start is in {self.pause:.0f} s"


def ending(exitcode: int | None) -> str:
    """How a worker ended, for people. A worker that gets SIGTERM from a stranger stops by itself, and exits with 0."""
    if exitcode is None:
        return "it hangs in the kernel"
    if exitcode > 0:
        return f"exit status {exitcode}"
    number = -exitcode or signal.SIGTERM
    try:
        return signal.Signals(number).name
    except ValueError:  # of real time
        return f"signal {number}"
