"""A task list that grows at its end while it is run: a farmer looks when little is left of it.

A farmer stays while lines of the list are not taken in: a last line without newline that may be incomplete, or lines
that the file system did not let it take in.
"""

from __future__ import annotations

import math

from taskfarmer.errors import (
    Contended,
    ListUnavailable,
    StaleView,
    Stopped,
    StorageError,
    TaskFarmerError,
    TaskListError,
)
from taskfarmer.farmer.exchanges import Exchanges
from taskfarmer.farmer.walltime import Deadline
from taskfarmer.intake import QUIET, Intake
from taskfarmer.ledger.ledger import Ledger
from taskfarmer.options import Reporter

EVERY = 5.0
SHORTEST = 0.1
PATIENCE = 600.0
"""Seconds for which a farmer that has no other work tries to take in what the file system refuses."""
_PASSING = (ListUnavailable, StorageError, StaleView, Contended)


class Growth:
    """`trouble` is why the last look failed, None if it did not."""

    def __init__(self, reporter: Reporter, intake: Intake, ledger: Ledger, exchanges: Exchanges, tasklist: str) -> None:
        self.reporter = reporter
        self.intake = intake
        self.ledger = ledger
        self.exchanges = exchanges
        self.tasklist = tasklist
        self.trouble: str | None = None
        self._patience_ends = 0.0
        self._next = 0.0
        self._announced = False

    def look(self, now: float, at_once: bool = False) -> None:
        """Take in what the list has more, if the last look was a while ago or `at_once` is set."""
        if now < self._next and not at_once:
            return
        self._next = now + EVERY
        try:
            grown = self.intake.check(self.ledger, running=True)
        except Stopped:
            raise
        except TaskFarmerError as error:
            self._note(error, now)
            return
        self.trouble = None
        if grown:
            self.exchanges.again()
            self.reporter.info(f"{self.tasklist} has {grown} more tasks at its end; they were taken in")
        self.announce()
        if self.intake.last_line.pending:
            self._next = min(self._next, max(now + SHORTEST, self.intake.last_line.due))

    def _note(self, error: TaskFarmerError, now: float) -> None:
        if isinstance(error, TaskListError) and not isinstance(error, ListUnavailable):
            self.trouble = None
            self.reporter.warning(f"{error}; what was taken in before is run")
            return
        if self.trouble is None:
            self._patience_ends = now + PATIENCE
            self.reporter.warning(f"{error}; lines at the end of {self.tasklist} are not taken in before this is over")
        if not isinstance(error, _PASSING):
            self._patience_ends = now
        self.trouble = str(error)

    def announce(self) -> None:
        """Warn, once, that the last line waits."""
        if self.intake.last_line.pending and not self._announced:
            self._announced = True
            self.reporter.warning(
                f"{self.tasklist}: the last line has no newline and may be incomplete: it is run when the list has not "
                f"changed for {QUIET:.0f} s; end it with a newline to run it at once"
            )

    @property
    def untaken(self) -> bool:
        """Whether the list may have tasks that are not taken in."""
        return self.trouble is not None or self.intake.has_untaken

    @property
    def next_look(self) -> float:
        """When to look for such tasks again."""
        return self._next if self.untaken else math.inf

    def took_everything(self, now: float) -> bool:
        """Look at once, and say whether all tasks of the list are taken in."""
        self.look(now, at_once=True)
        return not self.untaken

    def waits(self, now: float, deadline: Deadline) -> bool:
        """Whether a farmer without other work is to stay for such tasks."""
        if not deadline.fits(now, self.ledger.state):
            return False
        return self.untaken if self.trouble is None else now < self._patience_ends

    def fatal(self, stopped_by: str | None) -> str | None:
        """Why tasks were not taken in after all; a farmer that was stopped leaves them to the next one."""
        return None if stopped_by else self.trouble
