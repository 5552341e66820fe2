"""The farmer: one loop around the ledger, the pool and the signals.

    wait for workers, signals, timers -> note results -> exchange with the ledger -> feed the pool

States: working; in trouble (results cannot be recorded: running tasks go on, nothing new is begun, the
journal is tried again in a fresh file); stopping (a signal, the timeout, or a fatal error: tasks are
ended); gone. Results that are not committed are only in memory and in the journal, so a farmer that is
killed loses at most the work since its last exchange, and never a task.
"""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Iterable

from taskfarmer import __version__, policy, slurm
from taskfarmer.errors import Damaged, Expelled, FarmGone, Forked, StaleView, StorageError, TaskFarmerError
from taskfarmer.intake import Intake
from taskfarmer.ledger.ledger import Ledger, Tidings
from taskfarmer.ledger.liveness import Presence, Watch, introduce
from taskfarmer.ledger.segments import SegmentReader
from taskfarmer.ledger.state import State
from taskfarmer.model import FAILED, LOST, Interval, parse_task, result_line
from taskfarmer.pool.attempt import Place
from taskfarmer.pool.pool import Happened, Pool
from taskfarmer.runners.base import Runner
from taskfarmer.runners.shell import BasicRunner
from taskfarmer.settings import Ending, Progress, Reporter, Settings
from taskfarmer.signals import Signals
from taskfarmer.trace import farmer_number, time_slice
from taskfarmer.views.views import Views

PROGRESS_EVERY = 10.0
GROWTH_EVERY = 5.0
TROUBLE_FOR = 600.0
"""Seconds for which a farmer without running tasks tries to record what it has."""
LOG_TROUBLE_FOR = 60.0
RISKY_ATTEMPT = 3
"""From this attempt on a start is written down, synced, before it happens: the task may kill its node."""
SHOWN_FAILURES = 20


def find_runner(settings: Settings, reporter: Reporter) -> Runner:
    """The runner that the user asked for; for the default one no configuration is read."""
    if settings.runner == "default":
        return BasicRunner()
    from taskfarmer.config import Configuration

    found = Configuration.search(settings.config, beside=os.path.dirname(os.path.abspath(settings.tasklist)))
    for warning in found.warnings:
        reporter.warning(warning)
    runner = found.runner(settings.runner)
    assert isinstance(runner, Runner) or hasattr(runner, "run")
    return runner  # type: ignore[no-any-return]


def run(settings: Settings, reporter: Reporter, signals: Signals) -> Ending:
    """Run a task list until there is nothing left to take, or a signal or the timeout ends it.

    UsageError, TaskListError, ConfigError, NotAFarm and others are raised before the first task starts;
    later ones end the tasks, and are told in the Ending.
    """
    begin = time.monotonic()
    runner = find_runner(settings, reporter)
    intake = Intake(settings, reporter)
    farm = intake.open()
    identity = introduce(settings.slots, __version__, slurm.job(os.environ))
    ledger = Ledger(intake.workdir, farm, identity.farmer, settings.slots)
    grown = intake.check(ledger)
    intake.watch()
    if grown:
        reporter.info(f"{settings.tasklist} has {grown} more tasks at its end; they were taken in")
    farmer = Farmer(settings, reporter, signals, runner, intake, ledger, identity, begin)
    return farmer.run()


class Farmer:
    def __init__(
        self,
        settings: Settings,
        reporter: Reporter,
        signals: Signals,
        runner: Runner,
        intake: Intake,
        ledger: Ledger,
        identity: object,
        begin: float,
    ) -> None:
        from taskfarmer.ledger.liveness import Identity

        assert isinstance(identity, Identity)
        self.settings = settings
        self.reporter = reporter
        self.signals = signals
        self.intake = intake
        self.ledger = ledger
        self.identity = identity
        self.workdir = intake.workdir
        self.begin = begin
        self.reader = SegmentReader(self.workdir)
        self.watch = Watch(self.workdir, identity, ledger.farm.lease)
        self.presence: Presence | None = None
        self.views = Views(self.workdir, ledger, identity)
        self.logs_fd = os.open(self.workdir.logs, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        self.pool = Pool(settings.slots, self._place, runner, settings.grace, signals.wakeup)
        self.finished = self.failed = self.returned = 0
        self.stopped_by: str | None = None
        self.trouble: str | None = None
        self.fatal: str | None = None
        self.survivors: list[int] = []
        self._grace_used = settings.grace
        self._interrupts = 0
        self._handled = 0
        self._bucket = policy.Bucket(3.0, time.monotonic())
        self._next_exchange = 0.0
        self._next_beat = 0.0
        self._last_beat = time.monotonic()
        self._next_progress = time.monotonic() + PROGRESS_EVERY
        self._next_growth = 0.0
        self._trouble_since = 0.0
        self._retry_at = 0.0
        self._log_trouble_since: float | None = None
        self._log_trouble = ""
        self._hold_until = 0.0
        self._lost_seen = 0
        self._shown_failures = 0
        self._exhausted = False

    def _place(self, slot: int) -> Place:
        return Place(slot, self.identity.farmer, self.identity.host, self.workdir.path, self.workdir.logs, self.logs_fd)

    # --- life ----------------------------------------------------------------------------------

    def run(self) -> Ending:
        """Work, stop if need be, and go; whatever happens, no process is left."""
        try:
            try:
                self._work()
            except (Expelled, FarmGone, Forked, Damaged, StaleView, StorageError) as error:
                self._die(str(error))
            self._end_pool()
            self._part()
        finally:
            self._abandon()
        return self._ending()

    def _work(self) -> None:
        if not self._anything_to_do():
            return
        self.presence = Presence(self.workdir, self.identity)
        self.pool.start()
        while not self.stopped_by and not self.fatal:
            now = time.monotonic()
            self._hear_signals(now)
            self._beat(now)
            if self._done(now):
                return
            self._exchange_if_due(now)
            self._dispatch(now)
            self._absorb(self.pool.wait(self._pause(time.monotonic())))
            self._show_progress(time.monotonic())

    def _anything_to_do(self) -> bool:
        """Whether there is anything to take now, dead peers' tasks included; no worker is started otherwise."""
        state = self.ledger.look()
        if not state.left:
            self._expel(state.farmers, everybody=True)
            state = self.ledger.look()
        return state.left or (self.settings.wait and bool(state.farmers))

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
                    self._grace_used = 0.0
                    if self.pool.stopping:
                        self.pool.stop(0.0)
        timeout = self.settings.timeout
        if timeout is not None and self.stopped_by is None and now - self.begin >= timeout:
            self.stopped_by = "--timeout"
            self.reporter.info(f"--timeout: {timeout:g} s are over; ending the running tasks, giving back the rest")

    def _pause(self, now: float) -> float:
        """Seconds until something is due; workers and signals end a pause early."""
        due = [self._next_beat, self._next_progress]
        if self.trouble:
            due.append(self._retry_at)
        elif not self.ledger.told_everything or self._wants():
            due.append(self._next_exchange)
        if self._hold_until > now:
            due.append(self._hold_until)
        if self.settings.timeout is not None:
            due.append(self.begin + self.settings.timeout)
        if self.views.due(now):
            return 0.0
        pause = min(due) - now
        if self.pool.idle and self._exhausted and self.pool.outstanding > self.pool.busy:
            pause = min(pause, 0.1)
        if not self.pool.outstanding and not self.pool.queued:
            pause = min(pause, 1.0)
        return max(0.0, min(pause, 60.0))

    # --- results and exchanges -----------------------------------------------------------------

    def _absorb(self, happened: Happened) -> None:
        tidings = happened.tidings
        if not tidings.nothing:
            self.finished += tidings.finished
            self.failed += tidings.failed
            self.returned += sum(one.count for one in (*tidings.returned, *tidings.died))
            if tidings.failed:
                self._tell_failures(tidings.lines)
            self.ledger.note(tidings)
            if tidings.ended:
                self._log_trouble_since = None
        self.survivors += happened.survivors
        for text in happened.deaths:
            self.reporter.warning(text)
        for text in happened.troubles:
            self._cannot_start(text)

    def _tell_failures(self, blobs: Iterable[bytes]) -> None:
        for line in b"".join(blobs).split(b"\n"):
            words = line.split(b" ")
            if len(words) < 8 or words[5] not in (FAILED, LOST) or self._shown_failures > SHOWN_FAILURES:
                continue
            self._shown_failures += 1
            if self._shown_failures > SHOWN_FAILURES:
                self.reporter.info("more tasks failed; they are in the file `failed`")
                return
            how = f"signal {int(words[7])}" if words[7] != b"0" else f"exit status {int(words[6])}"
            self.reporter.info(f"task {int(words[0])} failed ({how}): {self.workdir.log(int(words[0]))}")

    def _cannot_start(self, text: str) -> None:
        """A task could not be started for reasons that are not its own: wait a little, and give up in the end."""
        now = time.monotonic()
        self.ledger.commits.check_farm()
        if self._log_trouble_since is None:
            self._log_trouble_since = now
            self.reporter.warning(f"{text}; no task is started until this is over")
        self._log_trouble = text
        self._hold_until = now + min(5.0, 0.5 + (now - self._log_trouble_since) / 4)
        if now - self._log_trouble_since > LOG_TROUBLE_FOR:
            self._die(text)

    def _pace(self) -> policy.Pace:
        state = self.ledger.state
        duration = state.seconds / state.ended if state.ended else None
        lost = self.ledger.commits.lost > self._lost_seen
        farmers = max(1, len(state.farmers) + (not self.ledger.registered))
        return policy.Pace(farmers, self.settings.slots, state.slots, self.ledger.commits.exclusive, duration, lost)

    def _wants(self) -> int:
        """Tasks to take in an exchange now."""
        if self.trouble or self._hold_until > time.monotonic():
            return 0
        state = self.ledger.state
        left = state.unprocessed if len(state.returned) < 4096 else state.tasks
        if self._exhausted and not left:
            left = self.pool.idle  # somebody may have given something back since
        queued = self.pool.queued + self.pool.outstanding - self.pool.busy
        return policy.want(self._pace(), self.pool.idle, queued, left)

    def _exchange_if_due(self, now: float) -> None:
        if self.trouble and now < self._retry_at:
            return
        want = self._wants()
        if not want and self.ledger.told_everything:
            return
        if now < self._next_exchange and not self._out_of_turn(now, want):
            return
        self._exchange(want)

    def _out_of_turn(self, now: float, want: int) -> bool:
        """Whether idle slots may be filled before the next exchange is due."""
        if not want or not self.pool.idle or self.pool.queued or self._exhausted:
            return False
        bucket = self._bucket.take(now, 1.0 / policy.period(self._pace()))
        if bucket is None:
            return False
        self._bucket = bucket
        return True

    def _exchange(self, want: int, leave: bool = False) -> None:
        """One exchange; a disk that takes nothing is trouble, not the end."""
        lost = self.ledger.commits.lost
        try:
            gained, told = self.ledger.exchange(want, leave)
        except StorageError as error:
            self._in_trouble(str(error))
            return
        self._lost_seen = lost
        if self.trouble:
            self.reporter.info("results can be recorded again")
            self.trouble = None
        self.views.add(told.views, told.size)
        for interval in gained:
            self._take(interval)
        self._exhausted = not gained and not self.ledger.state.left
        now = time.monotonic()
        self._next_exchange = now + policy.jittered(policy.period(self._pace()), random.random())
        self.pool.batch_size = policy.batch_size(self._pace().duration)
        if self.views.due(now):
            self._show_views()

    def _show_views(self) -> None:
        try:
            self.views.show()
        except OSError as error:
            self.reporter.warning(f"{error.filename}: {error.strerror}; the views are brought up to date later")

    def _in_trouble(self, text: str) -> None:
        now = time.monotonic()
        if self.trouble is None:
            self._trouble_since = now
            self.reporter.warning(f"{text}; running tasks go on, no new ones are started")
            if self.presence:
                self.presence.give_ballast()
        self.trouble = text
        self._retry_at = now + min(5.0, 0.2 + (now - self._trouble_since) / 2)

    def _take(self, interval: Interval) -> None:
        """Put gained tasks into the queue; those that killed too many farmers are recorded as lost."""
        state = self.ledger.state
        lines = self.reader.lines(state.segments[interval.segment], interval.start, interval.count)
        if self.settings.max_deaths and interval.deaths > self.settings.max_deaths:
            self._give_up(interval, lines)
        else:
            self.pool.add(interval, lines)

    def _give_up(self, interval: Interval, lines: list[bytes]) -> None:
        now = time.time()
        tidings = Tidings(done=[interval], failed=interval.count)
        number = farmer_number(self.identity.farmer)
        for line in lines:
            task_id, command = parse_task(line)
            tidings.lines.append(result_line(task_id, interval.attempt, 0, now, now, LOST, log=b"none"))
            event = time_slice(number, 0, task_id, interval.attempt, command, now, now, LOST, 0, 0, 0.0, 0.0, 0)
            tidings.views.append((b"", line, event))
            self.reporter.warning(
                f"task {task_id} is failed as lost: {interval.deaths} farmers died while it ran (--max-deaths)"
            )
        self.failed += interval.count
        self.ledger.note(tidings)

    def _dispatch(self, now: float) -> None:
        if self.trouble or now < self._hold_until or not self.pool.queued:
            if self._exhausted and self.pool.idle:
                self.pool.rebalance()
            return
        following = self.pool.next_interval()
        if following is not None and following.attempt >= RISKY_ATTEMPT and self.pool.idle:
            first = self.ledger.state.first_id(following)
            begun = [[-1, first + n, following.attempt] for n in range(min(self.pool.idle, following.count))]
            self._write_beat([*self.pool.running(), *begun], sync=True)
            self.pool.dispatch(limit=1)
        else:
            self.pool.dispatch()

    # --- others --------------------------------------------------------------------------------

    def _beat(self, now: float) -> None:
        """Show that we live; look whether others do; find out whether others think that we do not."""
        if now < self._next_beat:
            return
        gap, self._last_beat = now - self._last_beat, now
        self._next_beat = now + self.watch.beat
        self._write_beat(self.pool.running())
        if gap > self.ledger.farm.lease / 2:
            state = self.ledger.look()
            if self.ledger.registered and self.identity.farmer not in state.farmers:
                self._exchange(0)  # raises Expelled, in words
        elif not os.path.exists(self.workdir.farm):
            self.ledger.commits.check_farm()
        farmers = self.ledger.state.farmers
        self._expel(farmers if self._exhausted else self.watch.successors(farmers), everybody=False)

    def _write_beat(self, running: list[list[int]], sync: bool = False) -> None:
        assert self.presence is not None
        try:
            self.presence.beat(running, sync=sync)
        except OSError as error:
            self.reporter.warning(f"{self.workdir.alive(self.identity.farmer)}: {error.strerror}; no sign of life")

    def _expel(self, farmers: Iterable[str], everybody: bool) -> None:
        """Expel those of `farmers` that are dead on evidence."""
        dead = {}
        for farmer in farmers:
            if farmer != self.identity.farmer:
                why = self.watch.verdict(farmer)
                if why is not None:
                    dead[farmer] = why
        if not dead:
            return
        try:
            gone = self.ledger.expel(dead)
        except StorageError as error:
            self._in_trouble(str(error))
            return
        for farmer in gone:
            self.watch.forget(farmer)
            self.reporter.info(f"{farmer} is dead ({dead[farmer]}); what it held goes to others")
        if gone:
            self._exhausted = False
            self._next_exchange = 0.0

    def _grow(self, now: float) -> None:
        """Look whether the list has more tasks, when little is left of it."""
        if now < self._next_growth:
            return
        self._next_growth = now + GROWTH_EVERY
        try:
            grown = self.intake.check(self.ledger, running=True)
        except StorageError as error:
            self._in_trouble(str(error))
        except TaskFarmerError as error:
            self.reporter.warning(f"{error}; what was taken in before is run")
        else:
            if grown:
                self._exhausted = False
                self.reporter.info(f"{self.settings.tasklist} has {grown} more tasks at its end; they were taken in")

    def _done(self, now: float) -> bool:
        """Whether there is nothing left to run, to record or (with --wait) to wait for."""
        if self._exhausted:
            self._grow(now)
        if self.pool.outstanding or self.pool.queued:
            return False
        if self.trouble:
            if now - self._trouble_since > TROUBLE_FOR:
                self._die(self.trouble)
            return False
        if not self._exhausted or not self.ledger.told_everything:
            self._exchange(max(1, self._wants()))
            if self.pool.queued or not self._exhausted or not self.ledger.told_everything:
                return False
        self._next_growth = 0.0
        self._grow(now)
        state = self.ledger.look()
        self._expel(state.farmers, everybody=True)
        state = self.ledger.look()
        if state.left:
            self._exhausted = False
            return False
        others = any(farmer != self.identity.farmer for farmer in state.farmers)
        return not (self.settings.wait and others)

    # --- the end -------------------------------------------------------------------------------

    def _die(self, text: str) -> None:
        """Something that cannot be mended here: end the tasks, tell why, exit non-zero."""
        if self.fatal is None:
            self.fatal = text
            self.reporter.warning(text)

    def _end_pool(self) -> None:
        """End all workers and their tasks; what they still tell is noted."""
        if not self.pool.members:
            return
        if self.stopped_by or self.fatal:
            self.pool.stop(self._grace_used)
        else:
            self.pool.quit()
        while self.pool.members:
            self._absorb_quietly(self.pool.wait(0.2))
            self._hear_signals(time.monotonic())
            now = time.monotonic()
            if now >= self._next_beat and not self.fatal:
                self._next_beat = now + self.watch.beat
                self._write_beat(self.pool.running())
        self.survivors += self.pool.sweep()
        back = Tidings(returned=self.pool.take_back())
        self.returned += sum(one.count for one in back.returned)
        if not back.nothing:
            self.ledger.note(back)

    def _absorb_quietly(self, happened: Happened) -> None:
        happened.troubles.clear()
        self._absorb(happened)

    def _part(self) -> None:
        """Record, give back, leave the ledger, make the views exact."""
        if self.survivors:
            pids = " ".join(map(str, self.survivors))
            self.reporter.warning(f"processes that even SIGKILL does not end were left behind: {pids}")
        if self.fatal and not self._may_record():
            return
        patience = time.monotonic() + (10.0 if self.stopped_by or self.fatal else TROUBLE_FOR)
        try:
            while not self.ledger.told_everything or self.ledger.registered:
                self._exchange(0, leave=True)
                if not self.trouble:
                    break
                if time.monotonic() > patience:
                    self._die(self.trouble)
                    return
                time.sleep(0.5)
            self.views.finish(self.ledger.look())
        except OSError as error:
            self.reporter.warning(f"{error.filename}: {error.strerror}; the views are not exact, the ledger is")
        except TaskFarmerError as error:
            self._die(str(error))

    def _may_record(self) -> bool:
        """Whether a fatal error leaves the ledger usable: only where starting tasks was the trouble."""
        return self._log_trouble_since is not None and self.fatal == self._log_trouble

    def _abandon(self) -> None:
        """Let go of everything, also where an unexpected error has come through."""
        if self.pool.members:
            self.pool.stop(0.0)
            end = time.monotonic() + 10.0
            while self.pool.members and time.monotonic() < end:
                self.pool.wait(0.2)
        self.pool.sweep()
        self.reader.close()
        self.ledger.close()
        os.close(self.logs_fd)
        if self.presence is not None:
            if self.ledger.registered:
                self.presence.close()  # others find the process gone, and count what is in the journal
            else:
                self.presence.leave()

    def _progress(self, state: State) -> Progress:
        return Progress(
            state.tasks,
            state.finished,
            state.failed,
            state.unprocessed,
            state.held,
            self.pool.busy if self.pool.members else 0,
            len(state.farmers),
        )

    def _show_progress(self, now: float) -> None:
        if now >= self._next_progress:
            self._next_progress = now + PROGRESS_EVERY
            self.reporter.progress(self._progress(self.ledger.state))

    def _ending(self) -> Ending:
        return Ending(
            self.finished,
            self.failed,
            self.returned,
            self.ledger.untold,
            self._progress(self.ledger.state),
            self.stopped_by,
            self.fatal,
            tuple(self.survivors),
            time.monotonic() - self.begin,
        )
