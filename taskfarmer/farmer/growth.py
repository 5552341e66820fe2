"""Imports tasks that are added to the end of the task list while a farmer runs.

The farmer checks the list when few tasks are left. It stays while lines of the list are not imported: a last line
without newline that may be incomplete, or lines that a file system error keeps it from importing.
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
from taskfarmer.farmer.walltime import Walltime
from taskfarmer.intake import QUIET, Intake
from taskfarmer.ledger.ledger import Ledger
from taskfarmer.options import Reporter

EVERY = 5.0
SHORTEST = 0.1
PATIENCE = 600.0
"""Seconds for which a farmer without other work retries an import that fails."""
_TRANSIENT = (ListUnavailable, StorageError, StaleView, Contended)


class Growth:
    """`error` is why the last check failed, None if it succeeded."""

    def __init__(self, reporter: Reporter, intake: Intake, ledger: Ledger, exchanges: Exchanges, tasklist: str) -> None:
        self.reporter = reporter
        self.intake = intake
        self.ledger = ledger
        self.exchanges = exchanges
        self.tasklist = tasklist
        self.error: str | None = None
        self._patience_ends = 0.0
        self._next = 0.0
        self._warned = False

    def check(self, now: float, force: bool = False) -> None:
        """Import new lines of the list, if a check is due (usually every 5 s) or `force` is set."""
        if now < self._next and not force:
            return
        self._next = now + EVERY
        try:
            grown = self.intake.check(self.ledger, running=True)
        except Stopped:
            raise
        except TaskFarmerError as error:
            self._note_error(error, now)
            return
        self.error = None
        if grown:
            self.exchanges.reset()
            self.reporter.info(f"{self.tasklist}: imported {grown} more task{'s' * (grown != 1)}")
        self.warn_of_last_line()
        if self.intake.last_line.pending:
            self._next = min(self._next, max(now + SHORTEST, self.intake.last_line.due))

    def _note_error(self, error: TaskFarmerError, now: float) -> None:
        if isinstance(error, TaskListError) and not isinstance(error, ListUnavailable):
            self.error = None
            self.reporter.warning(f"{error}; the tasks imported earlier still run")
            return
        if self.error is None:
            self._patience_ends = now + PATIENCE
            self.reporter.warning(f"{error}; cannot import new lines of {self.tasklist} until this is resolved")
        if not isinstance(error, _TRANSIENT):
            self._patience_ends = now
        self.error = str(error)

    def warn_of_last_line(self) -> None:
        """Warn once if the last line waits until it is complete."""
        if self.intake.last_line.pending and not self._warned:
            self._warned = True
            self.reporter.warning(
                f"{self.tasklist}: the last line has no newline and may be incomplete: it runs when the list has not "
                f"changed for {QUIET:.0f} s; end it with a newline to run it at once"
            )

    @property
    def incomplete(self) -> bool:
        """Whether the list may have tasks that are not imported."""
        return self.error is not None or self.intake.incomplete

    @property
    def next_check(self) -> float:
        """When to check for such tasks again; infinite without such tasks."""
        return self._next if self.incomplete else math.inf

    def check_now(self, now: float) -> bool:
        """Check at once; return whether all tasks of the list are imported."""
        self.check(now, force=True)
        return not self.incomplete

    def should_wait(self, now: float, walltime: Walltime) -> bool:
        """Whether a farmer without other work should stay for such tasks."""
        if not walltime.may_claim(now, self.ledger.state):
            return False
        return self.incomplete if self.error is None else now < self._patience_ends

    def fatal(self, stopped_by: str | None) -> str | None:
        """Why the last import failed for good; None for a farmer that was stopped, since the next one will retry."""
        return None if stopped_by else self.error
