"""The main loop of a farmer.

    wait for workers, signals, timers -> note results -> exchange with the ledger -> feed the pool

States: working; stopping (after a signal, the timeout or a fatal error, while the running tasks are stopped); gone.
Results that are not committed yet exist only in memory and in the journal. A farmer that is killed therefore loses at
most the work since its last exchange, and never a task.
"""

from __future__ import annotations

import random
import signal
import time

from taskfarmer.errors import Expelled, Stopped, StorageError, TaskFarmerError
from taskfarmer.farmer import pacing
from taskfarmer.farmer.backoff import Backoff
from taskfarmer.farmer.events import EventLog, progress_of
from taskfarmer.farmer.exchanges import Exchanges
from taskfarmer.farmer.growth import Growth
from taskfarmer.farmer.leaving import Leaving
from taskfarmer.farmer.peers import PeerMonitor
from taskfarmer.farmer.places import first_slot_context
from taskfarmer.farmer.pulse import VIEWS, Pulse
from taskfarmer.farmer.walltime import Walltime
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

RECORD_TIMEOUT = 600.0
"""Seconds for which a farmer without running tasks retries to record its results."""
RECORD_TIMEOUT_STOPPED = 10.0
"""The same after a stop signal or a fatal error."""
RISKY_ATTEMPT = 3
"""From this attempt on, a start is recorded and synced before it happens, because the task may crash its node."""


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
        started: float,
    ) -> None:
        self.settings = settings
        self.reporter = reporter
        self.pulse = pulse
        self.signals = pulse.signals
        self.intake = intake
        self.ledger = ledger
        self.identity = identity
        self.workdir = intake.workdir
        self.started = started
        self._first_context = first_slot_context(settings, reporter, self.workdir, ledger, identity)
        self.logs_fd = self._first_context.logs_fd
        self.backoff = Backoff(reporter, self.logs_fd)
        self.walltime = Walltime(settings, reporter, intake.workdir, started)
        wakeup, unfinished, leftovers = pulse.signals.wakeup, settings.unfinished_status, settings.leftovers
        self.pool = Pool(settings.slots, self._slot_context, runner, settings.grace, wakeup, unfinished, leftovers)
        self.views = Views(self.workdir, ledger, identity)
        self.exchanges = Exchanges(reporter, ledger, self.pool, self.views, self.walltime, settings.max_deaths)
        self.peers = PeerMonitor(reporter, ledger, identity, self.exchanges)
        self.growth = Growth(reporter, intake, ledger, self.exchanges, settings.tasklist)
        self.events = EventLog(reporter, self.workdir)
        self.leaving = Leaving(ledger, self.exchanges, self.peers, pulse)
        self.finished = self.failed = self.returned = 0
        self.stale_claims = self.expelled = False
        self.stopped_by: str | None = None
        self.fatal: str | None = None
        self.survivors: list[int] = []
        self._grace = settings.grace
        self._interrupts = self._handled = 0
        self._next_check = 0.0
        pulse.beat, pulse.on_signal = self.peers.on_pulse, self._stop_tasks_now

    def _slot_context(self, slot: int) -> SlotContext:
        return self._first_context._replace(slot=slot, deadline=self.walltime.epoch_end)

    # --- life cycle ----------------------------------------------------------------------------

    def run(self) -> Ending:
        """Work, stop if necessary, and leave the farm. No process of a task survives, whatever happens."""
        try:
            try:
                self._work()
            except Stopped:
                pass  # the interrupted work is finished while leaving, or by other farmers
            except TaskFarmerError as error:
                self._fail(error)
            self._stop_pool()
            self._leave()
            if self.expelled:
                self.exchanges.repair_views()
        finally:
            self._clean_up()
        return self._ending()

    def _work(self) -> None:
        self._handle_signals(time.monotonic())
        if self.stopped_by or not self._has_work():
            return
        self.peers.start_heartbeat(time.monotonic())
        self._wait_for_end_time()
        while True:
            now = time.monotonic()
            self._handle_signals(now)
            if self.stopped_by or self.fatal:
                return
            self.walltime.update(now, self.pool, self.peers.presence)
            if now >= self.peers.next_beat:
                self.peers.beat(now, self.pool.running())
            if self._done(now):
                return
            self.exchanges.exchange_if_due(now, self._may_claim(now))
            if self.stopped_by:
                return
            self._dispatch(now)
            self._process(self.pool.wait(self._seconds_to_wait(time.monotonic())))
            self.events.progress(time.monotonic(), self.ledger.state, self.pool)

    def _wait_for_end_time(self) -> None:
        """Give Slurm a moment to report when the allocation ends, so that no task starts that cannot finish in time."""
        while until := self.walltime.wait_for_end_time(now := time.monotonic(), self.ledger.state):
            self._handle_signals(now)
            if self.stopped_by:
                return
            self.walltime.update(now, self.pool, self.peers.presence)
            self._process(self.pool.wait(max(0.0, min(until, self.walltime.next_check) - now)))

    def _has_work(self) -> bool:
        """Whether there is a task to claim now, including those of dead peers. If not, no worker is started."""
        self.peers.expel_dead(self.ledger.state)  # read when the list was compared
        self.growth.warn_of_last_line()
        self.peers.start_watching()
        state = self.ledger.state
        return state.has_unprocessed or self.growth.incomplete or self.peers.should_wait(state, self.settings)

    def _may_claim(self, now: float) -> bool:
        return now >= self.backoff.until and not self.stopped_by and self.walltime.may_claim(now, self.ledger.state)

    def _handle_signals(self, now: float) -> None:
        self.signals.drain()
        for number in self.signals.arrived[self._handled :]:
            self._handled += 1
            if self.stopped_by is None:
                self._note_stop(number.name)
            if number == signal.SIGINT:
                self._interrupts += 1
                if self._interrupts == 2:
                    self.reporter.info("second SIGINT: killing the running tasks")
                    self._skip_grace()
        if self.stopped_by is None and self.peers.stop_request is not None:
            self._note_stop(f"taskfarmer {self.peers.stop_request}")
        if self.peers.stop_request == "stop --now" and self._grace:
            self._skip_grace()
        if self.stopped_by is None and self.walltime.has_expired(now):
            self._note_stop(self.walltime.stop_reason)

    def _note_stop(self, reason: str) -> None:
        self.stopped_by = reason
        self.reporter.info(f"{reason}: stopping: terminating running tasks, releasing the others")

    def _stop_tasks_now(self, now: float) -> None:
        """Stop the tasks at once if a signal arrives between two file operations, which may take long."""
        self._handle_signals(now)
        if self.pool.workers and not self.pool.stopping:
            self.pool.stop(self._grace)

    def _skip_grace(self) -> None:
        """Kill the running tasks without any further grace time."""
        self._grace = 0.0
        if self.pool.stopping:
            self.pool.stop(0.0, self.pool.out_of_time)

    def _seconds_to_wait(self, now: float) -> float:
        """Seconds until the next thing is due. Workers and signals end the wait earlier."""
        due = [
            self.views.due_at,
            self.peers.next_beat,
            self.events.next_progress,
            self.exchanges.next_check(now, self._may_claim(now)),
            self.walltime.next_check,
        ]
        if self.backoff.until > now:
            due.append(self.backoff.until)
        if self.pool.queued and self.pool.start_after > now:
            due.append(self.pool.start_after)
        if self.pool.idle and self.exchanges.exhausted and self.pool.outstanding > self.pool.busy:
            due.append(now + 0.1)
        if not self.pool.outstanding and not self.pool.queued and not self.exchanges.storage_error:
            due.append(self._next_check)
        if self._needs_new_tasks():
            due.append(self.growth.next_check)
        return max(0.0, min(due) - now)

    def _needs_new_tasks(self) -> bool:
        """Whether a slot is free and the farm has no task for it."""
        return self.exchanges.exhausted or (self.pool.idle > 0 and not self.ledger.state.has_unprocessed)

    # --- reports of workers --------------------------------------------------------------------

    def _process(self, report: PoolReport, stopping: bool = False) -> None:
        outcomes = report.outcomes
        if not outcomes.is_empty:
            self.finished += outcomes.finished
            self.failed += outcomes.failed
            self.returned += sum(one.count for one in (*outcomes.returned, *outcomes.died, *outcomes.overran))
            self.walltime.warn_of_overruns(outcomes.overran, self.ledger.state)
            if outcomes.failed:
                self.events.failures(outcomes.lines)
            self.ledger.add_report(outcomes)
            if outcomes.finished:
                self.backoff.reset()
        self.survivors += report.survivors
        self.events.leftovers(report.leftovers)
        for text in report.warnings:
            self.reporter.warning(text)
        for text in () if stopping else report.troubles:
            self._back_off(text)
        if report.hopeless and not stopping:
            self.backoff.reason = report.hopeless
            self._set_fatal(report.hopeless)

    def _back_off(self, reason: str) -> None:
        """Wait because a task could not be started through no fault of the task; give up after a minute."""
        now = time.monotonic()
        try:
            self.ledger.commits.check_farm()
        except StorageError as error:
            self.exchanges.note_storage_error(str(error))
        self.backoff.extend(now, reason)
        if self.backoff.has_timed_out(now) and not self.pool.busy and not self.exchanges.storage_error:
            self._set_fatal(reason)

    def _dispatch(self, now: float) -> None:
        if time.monotonic() - now > FRESH * self.ledger.farm.lease:
            return  # this process was suspended and others may have claimed its tasks: the next exchange finds out
        if self.pool.queued and self.pool.idle and self.backoff.disk_still_full(now):
            self._back_off(self.backoff.reason)
        state = self.ledger.state
        self._release(self.exchanges.remove_too_long(now))
        if self.exchanges.storage_error or now < self.backoff.until or not self.pool.queued:
            if self.exchanges.exhausted and self.pool.idle:
                self.pool.rebalance()
            return
        following = self.pool.following(self.pool.idle)
        if any(one.attempt >= RISKY_ATTEMPT for one in following):
            begun = [[-1, state.first_id(one) + n, one.attempt] for one in following for n in range(one.count)]
            self.peers.write_heartbeat([*self.pool.running(), *begun], sync=True)
            self.pool.dispatch(limit=1)
        else:
            self.pool.dispatch(below=RISKY_ATTEMPT)

    def _done(self, now: float) -> bool:
        """Whether nothing remains to run, to record or (with --wait) to wait for."""
        exchanges = self.exchanges
        if self._needs_new_tasks():
            self.growth.check(now)
        if self.pool.outstanding or (self.pool.queued and not exchanges.storage_error):
            return False
        if exchanges.storage_error:
            if now - exchanges.storage_error_since > RECORD_TIMEOUT:
                self._set_fatal(exchanges.storage_error)
            return False
        if not exchanges.exhausted or not self.ledger.all_settled:
            if not self.settings.wait and exchanges.is_last(lambda: self.growth.check_now(now)):
                return True
            exchanges.exchange(max(1, exchanges.tasks_to_claim()))
            if self.pool.queued or not exchanges.exhausted or not self.ledger.all_settled:
                return False
        if now < self._next_check:
            return False
        self._next_check = now + pacing.jittered(pacing.idle_period(exchanges.pace()), random.random())
        self.growth.check(now, force=True)
        self.peers.expel_dead(self.ledger.refresh())
        state = self.ledger.state
        if self.walltime.anything_fits(now, state):
            exchanges.reset()
            return False
        if state.has_unprocessed:
            self.walltime.report_skipped(now, state)
        elif self.peers.should_wait(state, self.settings) or self.growth.should_wait(now, self.walltime):
            return False
        self.stale_claims = self.peers.killed_peer_holds_tasks(state)
        return True

    # --- shutdown ------------------------------------------------------------------------------

    def _set_fatal(self, reason: str) -> None:
        """Stop because of an error that this farmer cannot recover from: warn now, exit with an error later."""
        if self.fatal is None:
            self.fatal = reason
            self.reporter.warning(reason)

    def _fail(self, error: TaskFarmerError) -> None:
        self.expelled = self.expelled or isinstance(error, Expelled)
        self._set_fatal(str(error))

    def _stop_pool(self) -> None:
        """Stop all workers and their tasks, and note their last reports."""
        if not self.pool.workers:
            return
        if not self.pool.stopping and (self.stopped_by or self.fatal):
            self.pool.stop(self._grace, self.stopped_by == self.walltime.stop_reason)
        elif not self.pool.stopping:
            self.pool.quit()
        if self.signals.since is not None:
            self.ledger.open_journal()
        while self.pool.workers:
            self._process(self.pool.wait(0.2), stopping=True)
            now = time.monotonic()
            self._handle_signals(now)
            if self.leaving.too_slow:
                self.peers.on_pulse(now)
            elif now >= self.peers.next_beat and not self.fatal:
                self.peers.next_beat = now + self.peers.watch.beat
                self.peers.write_heartbeat(self.pool.running())
        self.survivors += self.pool.sweep()
        self._release(self.exchanges.remove_unstarted())

    def _release(self, intervals: list[Interval]) -> None:
        if intervals:
            self.returned += count_tasks(intervals)
            self.ledger.add_report(FarmerReport(returned=intervals))

    def _leave(self) -> None:
        """Record results, release tasks, leave the ledger, and make the views exact."""
        self.events.leftovers_summary()
        self.events.warn_of_survivors(self.survivors)
        if self.fatal and self.fatal != self.backoff.reason:
            return  # the ledger is usable only if the fatal error was that tasks could not be started
        try:
            left = self.leaving.leave(self._release, self._record_timeout, self.stopped_by is not None)
            if left and not self.leaving.too_slow:
                self.pulse.allow(VIEWS)
                self.views.finish(self.ledger.state)
                self.peers.remove_remains()
        except Stopped:
            pass  # the next farmer that exits rebuilds the views
        except OSError as error:
            self.reporter.warning(
                f"{error.filename}: {durable.reason(error)}; the views may be stale, the ledger is complete"
            )
        except TaskFarmerError as error:
            self._fail(error)

    def _record_timeout(self) -> float:
        """Seconds for which the farmer retries to record its last results when the disk rejects them."""
        if self._interrupts > 1:
            return 0.0
        return RECORD_TIMEOUT_STOPPED if self.stopped_by or self.fatal else RECORD_TIMEOUT

    def _clean_up(self) -> None:
        """Stop all processes and close all files, even after an unexpected error."""
        if self.pool.workers:
            self.pool.stop(0.0)
            end = time.monotonic() + 10.0
            while self.pool.workers and time.monotonic() < end:
                self.pool.wait(0.2)
        self.pool.sweep()
        self.exchanges.reader.close()
        self.ledger.close()
        durable.close_quietly(self.logs_fd)
        self.peers.stop_heartbeat()

    def _ending(self) -> Ending:
        noted, unsettled = self.leaving.note_left, self.ledger.unsettled
        return Ending(
            self.finished,
            self.failed + self.exchanges.lost_here,
            self.returned,
            0 if noted else unsettled,
            progress_of(self.ledger.state, self.pool),
            self.stopped_by,
            self.fatal or self.growth.fatal(self.stopped_by) or "; ".join(self.ledger.unexpellable().values()) or None,
            tuple(self.survivors),
            time.monotonic() - self.started,
            self.stale_claims or (noted and bool(self.returned or (self.stopped_by and unsettled))),
            self.growth.incomplete,
            self.peers.others_hold_tasks(self.ledger.state),
        )
