"""The interface to the ledger: a farmer settles results, claims tasks and releases them.

A farmer has two reports. `_open` collects all events since the last exchange; `_sent` belongs to the exchange in
progress. An exchange first makes the results durable in the farmer's journal, then commits that they count. The tasks
that the farmer holds afterwards are read from the committed state alone. If an exchange fails, the next one first finds
out whether its commit landed. A journal that failed once is not written again, and all results that do not count yet
are written to a new one.
"""

from __future__ import annotations

import errno
import math
import os
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import replace

from taskfarmer.errors import AGAIN, FileTooLarge, StaleView, StorageError, remedy
from taskfarmer.formats.intervals import Interval, merge_adjacent, parse_intervals, subtract
from taskfarmer.ledger import expulsion, results
from taskfarmer.ledger import state as states
from taskfarmer.ledger.commits import Commits
from taskfarmer.ledger.exchange import FarmerReport as FarmerReport
from taskfarmer.ledger.farmfile import Farm
from taskfarmer.ledger.state import Segment, Settlement, State
from taskfarmer.storage import durable
from taskfarmer.storage.layout import Workdir
from taskfarmer.storage.locks import FarmLock


class Ledger:
    """A farm's ledger, as one farmer (or one command of the command line) uses it."""

    def __init__(self, workdir: Workdir, farm: Farm, me: str, slots: int = 0) -> None:
        self.workdir = workdir
        self.farm = farm
        self.me = me
        self.slots = slots
        self.lock = FarmLock(farm.lock or workdir.lock, private=farm.lock is not None, shared=workdir.shared)
        self.commits = Commits(workdir, farm.farm, self.lock, farm.epoch_length)
        self.held: list[Interval] = []
        self.registered = False
        self.seq = 0
        self._open = FarmerReport()
        self._sent: FarmerReport | None = None
        self._tried = 0
        self._applied = 0
        self._other_name = f"{me}-also-{durable.random_name()}"
        self._leaving = False
        self._journal: durable.Journal | None = None
        self._journals = 0
        self.limit = durable.largest_file()
        self._written: list[bytes] = []
        self._delayed: dict[str, tuple[float, str]] = {}

    def do_between(self, between: Callable[[], None]) -> None:
        """Call `between` between file operations; it may raise Stopped."""
        self.commits.between = self.lock.between = self.commits.turn.between = between

    @property
    def state(self) -> State:
        """The state that was read last."""
        return self.commits.last_seen or self.refresh()

    def refresh(self) -> State:
        """Read and return the newest state."""
        return self.commits.newest()

    @property
    def unsettled(self) -> int:
        """The number of results that no commit counts yet."""
        return self._open.ended + (self._sent.ended if self._sent else 0)

    @property
    def unsettled_bytes(self) -> int:
        """The length of the lines of those results."""
        return self._open.size + (self._sent.size if self._sent else 0)

    @property
    def all_settled(self) -> bool:
        """Whether a commit counts everything that was reported."""
        return self._open.is_empty and self._sent is None

    def is_last_farmer(self) -> bool:
        """Whether, in the last state, no task is unprocessed, no other farmer is there, and we release none."""
        state = self.state
        return (
            self.registered
            and not state.has_unprocessed
            and list(state.farmers) == [self.me]
            and not any(one.returned or one.died or one.overran for one in (self._open, self._sent) if one is not None)
        )

    # --- exchanges of a farmer -----------------------------------------------------------------

    def add_report(self, report: FarmerReport) -> None:
        """Add to the report for the next exchange. Nothing is written yet."""
        report.size = sum(map(len, report.lines))
        self._open.add(report)

    def exchange(
        self, want: int = 0, leave: bool = False, patience: float = math.inf, seconds_left: float = math.inf
    ) -> tuple[list[Interval], FarmerReport]:
        """Settle the reported results and claim up to `want` tasks, in one commit, or none if there is nothing to do.

        Tasks that are known to need more than `seconds_left` are not claimed. Returns the claimed tasks, and the report
        that is now settled. With `leave` the farmer leaves; it must not hold tasks other than those it reports. Raises
        Expelled, FarmGone, StorageError; after a StorageError a later exchange may succeed, since the report is kept.
        Contended after `patience` seconds: the same, and the whole report is in the journal.
        """
        if not self.seq:
            self._sync_farm()
        landed = self._finish_previous()
        if landed is not None:
            return landed
        sent = self._collect()
        self._leaving = leave
        self._write_journal()
        self.commits.between()
        change = self._change(sent, want, leave, seconds_left)
        if sent.is_empty and self.registered and not leave and not self.commits.uncertain:
            state = self.refresh()  # looking for tasks does not need the lock
            if change(state) is state:
                return self._conclude(state, sent)
        self.seq = self._tried = self.seq + 1
        state = self.commits.commit(change, self.me, self.seq, patience)
        return self._conclude(state, sent)

    def _collect(self) -> FarmerReport:
        """The report to settle: everything since the last exchange, and the report of an exchange that failed."""
        if self._sent is None:
            self._sent = self._open
        else:
            self._sent.add(self._open)
        self._open = FarmerReport()
        return self._sent

    def _sync_farm(self) -> None:
        """Make `farm.json` durable before its first use: its creator may have died before it did that."""
        try:
            durable.sync_directory(self.workdir.path)
        except FileNotFoundError:
            self.commits.check_farm()
        except OSError as error:
            raise StorageError(
                f"{self.workdir.path}: {error.strerror}; the farm may not be durable; {remedy(error, AGAIN)}"
            ) from error

    def _change(self, sent: FarmerReport, want: int, leave: bool, seconds_left: float) -> Callable[[State], State]:
        """The change of the state by an exchange."""
        journal = self._journal_name()
        settlement = Settlement(
            journal,
            self._journal.size if self._journal else 0,
            tuple(merge_adjacent(sent.done)),
            tuple(merge_adjacent(sent.returned)),
            tuple(merge_adjacent(sent.died)),
            tuple(merge_adjacent(sent.overran)),
            sent.finished,
            sent.failed,
            sent.seconds,
            sent.ended,
            sent.times,
        )

        def change(state: State) -> State:
            if self.registered and self.me not in state.farmers and leave and self._all_counted(state):
                # we left, although the reply was lost, or were expelled after all our results counted
                self.commits.make_durable(state)
                return state
            if self.registered:
                states.entry_of(state, self.me)
            if sent.is_empty and not leave and not (want > 0 and state.has_claimable(seconds_left)):
                return state
            new = state if self.registered else states.join(state, self.me, journal, self.slots)
            if not sent.is_empty:
                new = states.settle(new, self.me, settlement)
            new = states.claim(new, self.me, want, seconds_left)
            return states.leave(new, self.me) if leave else new

        return change

    def _conclude(self, state: State, sent: FarmerReport) -> tuple[list[Interval], FarmerReport]:
        """Read from the committed state what we hold; the tasks that we claimed, and the settled report."""
        entry = state.farmers.get(self.me)
        self.registered = entry is not None
        before = subtract(self.held, sent.no_longer_held)
        self.held = parse_intervals(entry.claims) if entry else []
        self._sent = None
        self._tried = 0
        self._written.clear()
        return subtract(self.held, before), sent

    def _finish_previous(self) -> tuple[list[Interval], FarmerReport] | None:
        """The result of an exchange whose outcome was unknown, if its commit landed; else None."""
        if self._sent is None or not self._tried:
            return None
        state = self.refresh()
        if not self._has_landed(state) and self.commits.uncertain:
            # this state may be old: our own commit for the next number shows the revision that has it
            self.seq += 1
            state = self.commits.commit(lambda new: new if self._has_landed(new) else replace(new), self.me, self.seq)
        if self._has_landed(state):
            self.commits.make_durable(state)
            return self._conclude(state, self._sent)
        self._tried = 0
        return None

    def _has_landed(self, state: State) -> bool:
        """Whether the commit of the last exchange is in this state."""
        entry = state.farmers.get(self.me)
        if entry is None:
            return self._leaving and self._all_counted(state)
        return entry.seq == self._tried

    def _all_counted(self, state: State) -> bool:
        """Whether all of our journal counts although we are not in the ledger: we left, or the effect is the same."""
        if self._journal is None:
            return True
        name, size = self._journal_name(), self._journal.size
        return state.departed.get(name) == size or os.path.exists(self.workdir.closed_journal(name, size))

    def _journal_name(self) -> str:
        return f"{self.me}-r{self._journals - 1}" if self._journals > 1 else self.me

    def _write_journal(self) -> None:
        """Append the lines of the report to the journal; to a new one if the last one failed or is full."""
        assert self._sent is not None
        lines = self._sent.lines
        full = self._journal is not None and self._journal.size + sum(map(len, lines)) > self.limit
        if self._journal is not None and (self._journal.failed or full):
            # keep it: a farmer that expels us may have counted its lines, although our write failed
            self._journal.close()
            self._journal = None
            lines, self._written = self._written + lines, []
            self._sent.lines = lines
        if not lines:
            return
        try:
            if self._journal is None:
                self._journal = self._new_journal()
            self._journal.append(lines)
        except OSError as error:
            if self._journal is not None:
                self._journal.failed = True
            where = f"{self.workdir.journal(self._journal_name())}: {durable.reason(error)}; {self.unsettled} results"
            if error.errno == errno.EFBIG and sum(map(len, self._written + lines)) > self.limit:
                raise FileTooLarge(f"{where} are not recorded; their tasks will run again") from error
            raise StorageError(f"{where} stay in memory until they can be recorded") from error
        # `_written` has the lines that are in the journal and do not count yet
        self._written += lines
        self._sent.lines = []

    def _new_journal(self) -> durable.Journal:
        self._journals += 1
        return durable.Journal(self.workdir.journal(self._journal_name()), self.workdir.shared)

    def open_journal(self) -> None:
        """Create the journal early if it is missing: that is three of the four file operations of the first write."""
        if self._journal is None and self.registered:
            with suppress(OSError):  # for instance a full disk: it is retried when there are results to write
                self._journal = self._new_journal()

    def flush_journal(self) -> tuple[str, int]:
        """Write all results to the journal, for a farmer that leaves without a commit.

        The journal's name and size, for the farewell note. StorageError as for an exchange. It does not matter whether
        an interrupted exchange has landed: the farmer that expels us determines which results count.
        """
        self._collect()
        self._write_journal()
        return self._journal_name(), self._journal.size if self._journal else 0

    def has_left(self) -> bool:
        """Whether our last commit landed, with which we leave, although it was interrupted before it was durable."""
        state = self.commits.last_seen
        if not self._leaving or self._sent is None or state is None or state.by != (self.me, self._tried):
            return False
        self._conclude(state, self._sent)
        return True

    def close(self) -> None:
        if self._journal is not None:
            self._journal.close()

    # --- other changes ---------------------------------------------------------------------------

    def apply(self, change: Callable[[State], State]) -> State:
        """Commit a change that does not settle our results.

        It uses another name than our exchanges, whose numbers in our entry must keep their meaning. A change that
        landed unseen is computed again, and then there is nothing left to do.
        """
        self._applied += 1
        return self.commits.commit(change, self._other_name, self._applied)

    def expel(self, dead: Iterable[str]) -> list[str]:
        """Expel dead farmers; the names of those that our commit removed."""
        gone: list[str] = []
        names = tuple(dead)

        def change(state: State) -> State:
            gone.clear()
            new = state
            for farmer in names:
                if farmer in new.farmers:
                    try:
                        settlement, died = expulsion.settlement_of(
                            self.workdir, new, farmer, farmer not in self.unexpellable()
                        )
                    except StaleView as error:
                        self._delayed.setdefault(farmer, (time.monotonic(), str(error)))
                        continue
                    self._delayed.pop(farmer, None)
                    new = states.expel(new, farmer, settlement, died)
                    gone.append(farmer)
            return new

        self.apply(change)
        for farmer in gone:
            self.commits.between()
            for sign in (self.workdir.alive, self.workdir.ballast, self.workdir.farewell):
                durable.unlink_quietly(sign(farmer))
        return gone

    @property
    def delayed_expulsions(self) -> dict[str, str]:
        """Dead farmers whose journals could not be read when they were to be expelled, and the reason."""
        return {name: why for name, (_, why) in self._delayed.items()}

    def unexpellable(self) -> dict[str, str]:
        """Dead farmers whose journals were unreadable for longer than a file system may show old contents, and the
        reason.
        """
        now = time.monotonic()
        return {name: why for name, (since, why) in self._delayed.items() if now - since > self.commits.patience}

    def grow(self, segment: Segment) -> bool:
        """Add new tasks of the list; False if another farmer was faster."""
        state = self.apply(lambda state: states.grow(state, segment))
        return any(one.file == segment.file for one in state.segments)

    def retry(self, ids: Iterable[int] | None = None) -> int:
        """Make recorded tasks unprocessed again: all failed ones, or those in `ids`; the number of tasks.

        ValueError with the first ID that is not recorded (unprocessed, held, or not in the farm).
        """
        wanted = None if ids is None else sorted(set(ids))
        count = 0
        cached: tuple[State, State] | None = None

        def change(state: State) -> State:
            nonlocal count, cached
            if cached is not None and cached[0].revision == state.revision:
                return cached[1]
            found = results.survey(self.workdir, state, agrees_within=results.STATE_IS_NEW_FOR)
            chosen = range(len(found.place)) if wanted is None else wanted
            retried = []
            finished = failed = 0
            for task_id in chosen:
                place = found.place[task_id] if 0 <= task_id < len(found.place) else -1
                if place == results.IS_FAILED or (wanted is not None and place == results.IS_FINISHED):
                    retried.append(state.interval_of(task_id, found.attempt[task_id] + 1))
                    finished += place == results.IS_FINISHED
                    failed += place == results.IS_FAILED
                elif wanted is not None:
                    raise ValueError(task_id)
            count = len(retried)
            cached = state, states.retry(state, tuple(merge_adjacent(retried)), finished, failed) if retried else state
            return cached[1]

        def nothing_to_do() -> bool:
            state = self.refresh()
            return change(state) is state

        if results.with_newer_states(nothing_to_do):
            return 0  # no change: the views stay, as they do after an error
        # the views `finished` and `failed` are wrong from here on; without views.json they are rebuilt even if we are
        # killed before that
        durable.unlink_quietly(self.workdir.views)
        results.with_newer_states(lambda: self.apply(change))
        durable.unlink_quietly(self.workdir.views)
        return count
