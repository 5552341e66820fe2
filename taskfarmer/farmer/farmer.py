"""The loop of a farmer.

    wait for workers, signals, timers -> note results -> exchange with the ledger -> feed the pool

States: working; stopping (a signal, the timeout, or a fatal error: tasks are ended); gone. Results that
are not committed are only in memory and in the journal, so a farmer that is killed loses at most the
work since its last exchange, and never a task.
"""

from __future__ import annotations

import random
import signal
import time

from taskfarmer.errors import Expelled, Stopped, StorageError, TaskFarmerError
from taskfarmer.farmer import pacing
from taskfarmer.farmer.backoff import Hold
from taskfarmer.farmer.events import Speech, progress_of
from taskfarmer.farmer.exchanges import Exchanges
from taskfarmer.farmer.growth import Growth
from taskfarmer.farmer.leaving import Leaving
from taskfarmer.farmer.peers import Neighbours
from taskfarmer.farmer.places import first_place
from taskfarmer.farmer.pulse import VIEWS, Pulse
from taskfarmer.farmer.walltime import Deadline
from taskfarmer.formats.intervals import Interval, count_tasks
from taskfarmer.intake import Intake
from taskfarmer.ledger.ledger import FarmerReport, Ledger
from taskfarmer.options import Ending, Reporter, Settings
from taskfarmer.peers.identity import Identity
from taskfarmer.pool.handles import PoolReport
from taskfarmer.pool.pool import Pool
from taskfarmer.runners.base import Runner
from taskfarmer.storage import durable
from taskfarmer.views.views import Views
from taskfarmer.worker.batch import FRESH
from taskfarmer.worker.context import SlotContext

TROUBLE_FOR = 600.0
"""Seconds for which a farmer without running tasks tries to record what it has."""
STOPPED_PATIENCE = 10.0
RISKY_ATTEMPT = 3
"""From this attempt on a start is written down, synced, before it happens: the task may kill its node."""


class Farmer:
    def __init__(
        self,
        settings: Settings,
        reporter: Reporter,
        pulse: Pulse,
        runner: Runner,
        intake: Intake,
        ledger: Ledger,
        identity: Identity,
        begin: float,
    ) -> None:
        self.settings = settings
        self.reporter = reporter
        self.pulse = pulse
        self.signals = pulse.signals
        self.intake = intake
        self.ledger = ledger
        self.identity = identity
        self.workdir = intake.workdir
        self.begin = begin
        self._first_place = first_place(settings, reporter, self.workdir, ledger, identity)
        self.logs_fd = self._first_place.logs_fd
        self.hold = Hold(reporter, self.logs_fd)
        self.deadline = Deadline(settings, reporter, intake.workdir, begin)
        wakeup, unfinished, leftovers = pulse.signals.wakeup, settings.unfinished_status, settings.leftovers
        self.pool = Pool(settings.slots, self._place, runner, settings.grace, wakeup, unfinished, leftovers)
        self.views = Views(self.workdir, ledger, identity)
        self.exchanges = Exchanges(reporter, ledger, self.pool, self.views, self.deadline, settings.max_deaths)
        self.neighbours = Neighbours(reporter, ledger, identity, self.exchanges)
        self.growth = Growth(reporter, intake, ledger, self.exchanges, settings.tasklist)
        self.speech = Speech(reporter, self.workdir)
        self.leaving = Leaving(ledger, self.exchanges, self.neighbours, pulse)
        self.finished = self.failed = self.returned = 0
        self.again = self.expelled = False
        self.stopped_by: str | None = None
        self.fatal: str | None = None
        self.survivors: list[int] = []
        self._grace = settings.grace
        self._interrupts = self._handled = 0
        self._next_look = 0.0
        pulse.beat, pulse.hear = self.neighbours.pulse, self._hear_at_once

    def _place(self, slot: int) -> SlotContext:
        return self._first_place._replace(slot=slot, deadline=self.deadline.epoch_end)

    # --- life ----------------------------------------------------------------------------------

    def run(self) -> Ending:
        """Work, stop if need be, and go; whatever happens, no process is left."""
        try:
            try:
                self._work()
            except Stopped:
                pass  # what was broken off is done as we leave, or by others
            except TaskFarmerError as error:
                self._fail(error)
            self._end_pool()
            self._part()
            if self.expelled:
                self.exchanges.mend_views()
        finally:
            self._abandon()
        return self._ending()

    def _work(self) -> None:
        self._hear_signals(time.monotonic())
        if self.stopped_by or not self._anything_to_do():
            return
        self.neighbours.appear(time.monotonic())
        self._await_end()
        while True:
            now = time.monotonic()
            self._hear_signals(now)
            if self.stopped_by or self.fatal:
                return
            self.deadline.mind(now, self.pool, self.neighbours.presence)
            if now >= self.neighbours.next_beat:
                self.neighbours.beat(now, self.pool.running())
            if self._done(now):
                return
            self.exchanges.if_due(now, self._taking(now))
            if self.stopped_by:
                return
            self._dispatch(now)
            self._absorb(self.pool.wait(self._pause(time.monotonic())))
            self.speech.progress(time.monotonic(), self.ledger.state, self.pool)

    def _await_end(self) -> None:
        """Give Slurm a moment to tell when the allocation ends: what cannot end before that is not to be begun."""
        while until := self.deadline.awaited(now := time.monotonic(), self.ledger.state):
            self._hear_signals(now)
            if self.stopped_by:
                return
            self.deadline.mind(now, self.pool, self.neighbours.presence)
            self._absorb(self.pool.wait(max(0.0, min(until, self.deadline.due) - now)))

    def _anything_to_do(self) -> bool:
        """Whether there is anything to take now, dead peers' tasks included; no worker is started otherwise."""
        self.neighbours.look_around(self.ledger.state)  # seen when the list was compared
        self.growth.announce()
        self.neighbours.begin_to_watch()
        state = self.ledger.state
        return state.has_unprocessed or self.growth.untaken or self.neighbours.worth_waiting(state, self.settings)

    def _taking(self, now: float) -> bool:
        return now >= self.hold.until and not self.stopped_by and self.deadline.fits(now, self.ledger.state)

    def _hear_signals(self, now: float) -> None:
        self.signals.drain()
        for number in self.signals.arrived[self._handled :]:
            self._handled += 1
            if self.stopped_by is None:
                self.stopped_by = number.name
                self.reporter.info(f"{number.name}: ending the running tasks, giving back the rest")
            if number == signal.SIGINT:
                self._interrupts += 1
                if self._interrupts == 2:
                    self.reporter.info("second SIGINT: killing the running tasks")
                    self._hurry()
        if self.stopped_by is None and self.neighbours.told_to is not None:
            self.stopped_by = f"taskfarmer {self.neighbours.told_to}"
            self.reporter.info(f"{self.stopped_by}: ending the running tasks, giving back the rest")
        if self.neighbours.told_to == "stop --now" and self._grace:
            self._hurry()
        if self.stopped_by is None and self.deadline.over(now):
            self.stopped_by = self.deadline.why
            self.reporter.info(f"{self.deadline.why}: ending the running tasks, giving back the rest")

    def _hear_at_once(self, now: float) -> None:
        """A stop signal has come between two file operations, which may take long: the tasks get it now."""
        self._hear_signals(now)
        if self.pool.members and not self.pool.stopping:
            self.pool.stop(self._grace)

    def _hurry(self) -> None:
        """Leave the running tasks no time."""
        self._grace = 0.0
        if self.pool.stopping:
            self.pool.stop(0.0, self.pool.out_of_time)

    def _pause(self, now: float) -> float:
        """Seconds until something is due; workers and signals end a pause early."""
        due = [
            self.views.due_at,
            self.neighbours.next_beat,
            self.speech.next_progress,
            self.exchanges.due(now, self._taking(now)),
            self.deadline.due,
        ]
        if self.hold.until > now:
            due.append(self.hold.until)
        if self.pool.queued and self.pool.start_after > now:
            due.append(self.pool.start_after)
        if self.pool.idle and self.exchanges.exhausted and self.pool.outstanding > self.pool.busy:
            due.append(now + 0.1)
        if not self.pool.outstanding and not self.pool.queued and not self.exchanges.trouble:
            due.append(self._next_look)
        if self._has_room():
            due.append(self.growth.next_look)
        return max(0.0, min(due) - now)

    def _has_room(self) -> bool:
        """Whether there is a slot for a new task, and none in the farm."""
        return self.exchanges.exhausted or (self.pool.idle > 0 and not self.ledger.state.has_unprocessed)

    # --- what workers tell ---------------------------------------------------------------------

    def _absorb(self, happened: PoolReport, ending: bool = False) -> None:
        tidings = happened.tidings
        if not tidings.is_empty:
            self.finished += tidings.finished
            self.failed += tidings.failed
            self.returned += sum(one.count for one in (*tidings.returned, *tidings.died, *tidings.overran))
            self.deadline.say_what_is_too_long(tidings.overran, self.ledger.state)
            if tidings.failed:
                self.speech.failures(tidings.lines)
            self.ledger.add_report(tidings)
            if tidings.finished:
                self.hold.over()
        self.survivors += happened.survivors
        self.speech.leftovers(happened.leftovers)
        for text in happened.warnings:
            self.reporter.warning(text)
        for text in () if ending else happened.troubles:
            self._cannot_start(text)
        if happened.hopeless and not ending:
            self.hold.text = happened.hopeless
            self._die(happened.hopeless)

    def _cannot_start(self, text: str) -> None:
        """A task could not be started for reasons that are not its own: wait, and give up in the end."""
        now = time.monotonic()
        try:
            self.ledger.commits.check_farm()
        except StorageError as error:
            self.exchanges.in_trouble(str(error))
        self.hold.renew(now, text)
        if self.hold.lasts_too_long(now) and not self.pool.busy and not self.exchanges.trouble:
            self._die(text)

    def _dispatch(self, now: float) -> None:
        if time.monotonic() - now > FRESH * self.ledger.farm.lease:
            return  # we slept, and others may have our tasks: the next exchange finds out
        if self.pool.queued and self.pool.idle and self.hold.full(now):
            self._cannot_start(self.hold.text)
        state = self.ledger.state
        self._give_back(self.exchanges.no_longer_fits(now))
        if self.exchanges.trouble or now < self.hold.until or not self.pool.queued:
            if self.exchanges.exhausted and self.pool.idle:
                self.pool.rebalance()
            return
        following = self.pool.following(self.pool.idle)
        if any(one.attempt >= RISKY_ATTEMPT for one in following):
            begun = [[-1, state.first_id(one) + n, one.attempt] for one in following for n in range(one.count)]
            self.neighbours.show([*self.pool.running(), *begun], sync=True)
            self.pool.dispatch(limit=1)
        else:
            self.pool.dispatch(below=RISKY_ATTEMPT)

    def _done(self, now: float) -> bool:
        """Whether there is nothing left to run, to record or (with --wait) to wait for."""
        exchanges = self.exchanges
        if self._has_room():
            self.growth.look(now)
        if self.pool.outstanding or (self.pool.queued and not exchanges.trouble):
            return False
        if exchanges.trouble:
            if now - exchanges.trouble_since > TROUBLE_FOR:
                self._die(exchanges.trouble)
            return False
        if not exchanges.exhausted or not self.ledger.all_settled:
            if not self.settings.wait and exchanges.ends_here(lambda: self.growth.took_everything(now)):
                return True
            exchanges.make(max(1, exchanges.wants()))
            if self.pool.queued or not exchanges.exhausted or not self.ledger.all_settled:
                return False
        if now < self._next_look:
            return False
        self._next_look = now + pacing.jittered(pacing.waiting(exchanges.pace()), random.random())
        self.growth.look(now, at_once=True)
        self.neighbours.look_around(self.ledger.refresh())
        state = self.ledger.state
        if self.deadline.anything_fits(now, state):
            exchanges.again()
            return False
        if state.has_unprocessed:
            self.deadline.say_what_is_left(now, state)
        elif self.neighbours.worth_waiting(state, self.settings) or self.growth.waits(now, self.deadline):
            return False
        self.again = self.neighbours.killed_here(state)
        return True

    # --- the end -------------------------------------------------------------------------------

    def _die(self, text: str) -> None:
        """Something that cannot be mended here: end the tasks, tell why, exit non-zero."""
        if self.fatal is None:
            self.fatal = text
            self.reporter.warning(text)

    def _fail(self, error: TaskFarmerError) -> None:
        self.expelled = self.expelled or isinstance(error, Expelled)
        self._die(str(error))

    def _end_pool(self) -> None:
        """End all workers and their tasks; what they still tell is noted."""
        if not self.pool.members:
            return
        if not self.pool.stopping and (self.stopped_by or self.fatal):
            self.pool.stop(self._grace, self.stopped_by == self.deadline.why)
        elif not self.pool.stopping:
            self.pool.quit()
        if self.signals.since is not None:
            self.ledger.open_journal()
        while self.pool.members:
            self._absorb(self.pool.wait(0.2), ending=True)
            now = time.monotonic()
            self._hear_signals(now)
            if self.leaving.too_slow:
                self.neighbours.pulse(now)
            elif now >= self.neighbours.next_beat and not self.fatal:
                self.neighbours.next_beat = now + self.neighbours.watch.beat
                self.neighbours.show(self.pool.running())
        self.survivors += self.pool.sweep()
        self._give_back(self.exchanges.give_up())

    def _give_back(self, intervals: list[Interval]) -> None:
        if intervals:
            self.returned += count_tasks(intervals)
            self.ledger.add_report(FarmerReport(returned=intervals))

    def _part(self) -> None:
        """Record, give back, leave the ledger, make the views exact."""
        self.speech.end_of_leftovers()
        self.speech.survivors(self.survivors)
        if self.fatal and self.fatal != self.hold.text:
            return  # only where starting tasks was the trouble can the ledger still be used
        try:
            left = self.leaving.leave(self._give_back, self._patience, self.stopped_by is not None)
            if left and not self.leaving.too_slow:
                self.pulse.allow(VIEWS)
                self.views.finish(self.ledger.state)
                self.neighbours.sweep()
        except Stopped:
            pass  # the views are made anew by the farmer that ends next
        except OSError as error:
            self.reporter.warning(f"{error.filename}: {durable.reason(error)}; the views are not exact, the ledger is")
        except TaskFarmerError as error:
            self._fail(error)

    def _patience(self) -> float:
        """Seconds for which the last news are tried to be told on a disk that does not take them."""
        if self._interrupts > 1:
            return 0.0
        return STOPPED_PATIENCE if self.stopped_by or self.fatal else TROUBLE_FOR

    def _abandon(self) -> None:
        """Let go of everything, also where an unexpected error has come through."""
        if self.pool.members:
            self.pool.stop(0.0)
            end = time.monotonic() + 10.0
            while self.pool.members and time.monotonic() < end:
                self.pool.wait(0.2)
        self.pool.sweep()
        self.exchanges.reader.close()
        self.ledger.close()
        durable.close_quietly(self.logs_fd)
        self.neighbours.part()

    def _ending(self) -> Ending:
        return Ending(
            self.finished,
            self.failed + self.exchanges.lost_here,
            self.returned,
            0 if self.leaving.note_left else self.ledger.unsettled,
            progress_of(self.ledger.state, self.pool),
            self.stopped_by,
            self.fatal or self.growth.fatal(self.stopped_by) or "; ".join(self.ledger.unexpellable().values()) or None,
            tuple(self.survivors),
            time.monotonic() - self.begin,
            self.again
            or (self.leaving.note_left and bool(self.returned or (self.stopped_by and self.ledger.unsettled))),
            self.growth.untaken,
            self.neighbours.hold_tasks(self.ledger.state),
        )
