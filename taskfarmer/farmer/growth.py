"""A task list that grows at its end while it is run: a farmer looks when little is left of it."""

from __future__ import annotations

from taskfarmer.errors import Stopped, StorageError, TaskFarmerError
from taskfarmer.farmer.exchanges import Exchanges
from taskfarmer.intake import Intake
from taskfarmer.ledger.ledger import Ledger
from taskfarmer.settings import Reporter

EVERY = 5.0


class Growth:
    def __init__(self, reporter: Reporter, intake: Intake, ledger: Ledger, exchanges: Exchanges, tasklist: str) -> None:
        self.reporter = reporter
        self.intake = intake
        self.ledger = ledger
        self.exchanges = exchanges
        self.tasklist = tasklist
        self._next = 0.0

    def look(self, now: float, at_once: bool = False) -> None:
        """Take in what the list has more, if we looked a while ago or are to look `at_once`."""
        if now < self._next and not at_once:
            return
        self._next = now + EVERY
        try:
            grown = self.intake.check(self.ledger, running=True)
        except StorageError as error:
            self.exchanges.in_trouble(str(error))
        except Stopped:
            raise
        except TaskFarmerError as error:
            self.reporter.warning(f"{error}; what was taken in before is run")
        else:
            if grown:
                self.exchanges.again()
                self.reporter.info(f"{self.tasklist} has {grown} more tasks at its end; they were taken in")
