"""Farms of thousands of farmers in simulated time: the real decisions and transitions on a model of a file system.

Real are `pacing.py`, the transitions of `ledger/state.py` and how a revision is written, what a farmer tells, takes
and holds (`Ledger._change` and `_conclude`), its whole cadence (`Exchanges`: `pace`, `tasks_to_claim`, `next_check`,
`exchange_if_due`, `_may_exchange_early`, `exchange`, `reset`), and when views are due (`Views`): they are given a clock
that is simulated. What waits for files or processes cannot be driven like that. It stands here in lines of its own,
for these functions:

    FarmLock.held, Turn.taken                  Simulated._lock, _unlock, _take_turn
    Commits.commit, _try                       Simulated._commit, _try
    epochs.make, close_journals, sweep         Simulated._turn
    Ledger.exchange                            SimulatedLedger.begin
    Farmer._work, _seconds_to_wait, _process   Simulated.life, _until, _absorb
    Farmer._done, _leave, Leaving.leave        Simulated._done, _part, leave
    PeerMonitor.beat, expel_dead, leave_note   Simulated._beat, _done, leave
    Views.update, finish                         Simulated._show, _part
    Pool, SegmentReader                        Slots

A metadata operation is a request of a client to a server: open, create, link, unlink, rename, reading a file that
others change, fsync, a lock. `strace` shows more calls: the client itself answers those about files that were just
opened or never change. Writing or reading a revision also takes time that depends on its size. The simulation omits
deaths, deadlines, stale views, the start of processes, and batches of tasks for a worker: they contain one task if
tasks take a second.
"""

from __future__ import annotations

import inspect
import math
from collections import Counter
from collections.abc import Callable, Generator, Sequence
from contextlib import ExitStack
from dataclasses import replace
from typing import Any, cast
from unittest.mock import patch

from benchmarks.events import Diary, Process, World
from benchmarks.standins import NoDeadline, SimulatedExchanges, SimulatedLedger, Slots
from taskfarmer.errors import Contended
from taskfarmer.farmer import exchanges, growth, leaving, pacing, peers
from taskfarmer.formats.durations import time_class
from taskfarmer.formats.intervals import Interval
from taskfarmer.intake.intake import EPOCH_LENGTH, LEASE
from taskfarmer.ledger.commits import encode
from taskfarmer.ledger.epochs import CLOSED_AT_ONCE, after
from taskfarmer.ledger.farmfile import Farm
from taskfarmer.ledger.ledger import FarmerReport
from taskfarmer.ledger.state import Segment, State, begin_epoch, stamp
from taskfarmer.peers.heartbeat import beat_interval
from taskfarmer.storage import locks, turns
from taskfarmer.storage.layout import Workdir, epoch_name
from taskfarmer.views import views

START = 50
"""Operations before the first exchange: the list, the farm, two reads of the ledger, the files of a farmer."""
TRY, RELEASE = 2, 1
JOURNAL, NEW_JOURNAL, OPEN_SEGMENT, SETTLE_IN = 1, 3, 2, 2
READ = 3
"""`HEAD`, the revision, and the check that there is no next one."""
PREPARE, LINK, READ_BACK, HINT, SYNC = 2, 1, 2, 1, 2
"""Create and sync; link; unlink and check which commit won; write the hint; sync the directory, without the lock."""
NEW_EPOCH, SWEEP = 6, 7
"""Two durable directories; list and remove the old epoch, and each of its revisions."""
CHECK, SHOW, FINISH = 1, 9, 4
"""`farm.json`; `views.json`, a size, two views with their sizes, and a new `views.json` (three); the final checks.

After each write the newest revision is read.
"""
BEAT, LOOK, PROOF, PROOF_BEATS = 3, 2, 1, 6
"""The stop request, our heartbeat, and the check that it exists.

A neighbour's farewell note and heartbeat; and one more for as many heartbeats as it takes to prove that locks are
shared with its node.
"""
LOOK_AROUND, PARTING, FAREWELL = 4, 2, 1
TAKE, LOOK_WHOSE = 1, 1
"""Take or release the turn; and check which farmer has it."""
LINE = 105
"""Bytes of a result."""
CODING = 20e-9
"""Seconds to write or to read (and compute) a byte of a revision, as measured with a thousand farmers."""
SHOW_PATIENCE = inspect.signature(views.Views.update).parameters["patience"].default
FINISH_PATIENCE = 10.0
NOWHERE = Workdir("/nowhere")


class FarmModel:
    """The shared state of farmers: newest revision, lock (if `shared`), durations of tasks; and the measurements."""

    def __init__(self, world: World, lengths: Sequence[float], slots: int, width: float, shared: bool = True) -> None:
        self.world = world
        self.lengths = lengths
        self.slots = slots
        self.shared = shared
        self.locked = self.taken = False
        segment = Segment("f" * 12, 0, len(lengths), 0, 48 * len(lengths), "e" * 64)
        self.newest = State("c" * 16, 1, ("nobody-1-00000000", 1), epoch_name(1, "0123abcd"), 1, (segment,))
        self.diary = Diary(width)
        self._sized = 0
        self.largest = 0
        self._measure()
        self.lost = 0
        self.oldest = 0.0
        self.empty_at = self.recorded_at = math.inf
        self.until_empty: Counter[str] = Counter()
        self.joined: list[float] = []

    def committed(self, state: State, since: float) -> None:
        """`state` is the newest one; the oldest result that it counts ended at `since`."""
        now = self.world.now
        self.newest = state
        self.oldest = max(self.oldest, now - since)
        if self.empty_at == math.inf and not state.has_unprocessed:
            self.empty_at = now
            self.until_empty = Counter(commits=state.revision - 1, lost=self.lost, **self.world.operations)
        if state.finished == len(self.lengths) and self.recorded_at == math.inf:
            self.recorded_at = now
        if state.revision - self._sized > len(state.farmers) // 4:
            self._measure()

    def become(self, state: State) -> None:
        """Make this the state of the farm."""
        self.newest = state
        self._measure()

    def _measure(self) -> None:
        self._sized = self.newest.revision
        self.size = len(encode(self.newest))
        self.largest = max(self.largest, self.size)

    @property
    def coding(self) -> float:
        """Seconds to write or to read the newest revision."""
        return self.size * CODING


class Simulated:
    """A simulated farmer."""

    def __init__(self, ground: FarmModel, cadence: type[SimulatedExchanges] = SimulatedExchanges) -> None:
        self.ground, self.world = ground, ground.world
        rng = self.world.rng
        self.name = f"nid{rng.randrange(10**6):06d}-{rng.randrange(10**5, 10**6)}-{rng.getrandbits(32):08x}"
        farm = Farm(ground.newest.farm, "list", "default", {}, None, LEASE, EPOCH_LENGTH, 0.0)
        self.ledger = SimulatedLedger(NOWHERE, farm, self.name, ground.slots)
        self.commits = self.ledger.commits
        self.commits.last_seen = ground.newest
        self.pool = Slots(ground.slots, ground.lengths, ground.diary)
        none, pool, deadline = cast(Any, None), cast(Any, self.pool), cast(Any, NoDeadline())
        self.views = views.Views(NOWHERE, self.ledger, none)
        self.exchanges = cadence(none, self.ledger, pool, self.views, deadline, 10)
        self.exchanges.reader = pool
        self._since = math.inf
        self._timeouts = 0
        self._next_beat = self._next_look = self._next_growth = 0.0
        self._met: Counter[bool] = Counter()

    # --- the loop ------------------------------------------------------------------------------

    def life(self) -> Process:
        """Work until no task is left to claim, and leave."""
        yield self.world.ask("starts", START + SETTLE_IN) + 3 * self.ground.coding
        self._next_beat = self.world.now + beat_interval(LEASE, len(self.ledger.state.farmers))
        while True:
            if self.world.now >= self._next_beat:
                yield from self._beat()
            if (yield from self._done()):
                break
            self.exchanges.exchange_if_due(self.world.now, True)
            yield from self._obey()
            self.pool.dispatch(self.world.now)
            yield self._until() - self.world.now
            self._absorb()
        yield from self.leave()

    def _until(self) -> float:
        """The time when an action is due, or a slot runs out of tasks."""
        now = self.world.now
        due = self.exchanges.next_check(now, True)
        if self.pool.running and self.ledger.all_settled:
            # with the first task that ends there is something to tell
            due = min(due, max(self.exchanges.next_exchange, self.pool.running[0][0]))
        due = min(due, self._next_beat, self.views.due_at)
        if not self.pool.outstanding and not self.pool.queued:
            due = min(due, self._next_look)
        return self.pool.advance(now, max(now, due))

    def _absorb(self) -> None:
        """Read the reports of finished tasks."""
        self.pool.absorb(self.world.now)
        ended, self.pool.ended = self.pool.ended, []
        if not ended:
            return
        times = [self.ground.lengths[place] for _, place in ended]
        news = FarmerReport([bytes(LINE * len(ended))], [Interval(0, place, 1) for _, place in ended])
        news.finished = news.ended = len(ended)
        news.seconds = sum(times)
        news.times = Counter(map(time_class, times))
        self.ledger.add_report(news)
        self._since = min(self._since, ended[0][0])

    def _done(self) -> Generator[float, None, bool]:
        """Whether no task is left to run, to record or to claim."""
        cadence, pool, world = self.exchanges, self.pool, self.world
        if cadence.exhausted and world.now >= self._next_growth:
            self._next_growth = world.now + growth.EVERY
            yield world.ask("others", 1)
        if pool.outstanding or pool.queued:
            return False
        if not cadence.exhausted or not self.ledger.all_settled:
            cadence.exchange(max(1, cadence.tasks_to_claim()))
            yield from self._obey()
            if pool.queued or not cadence.exhausted or not self.ledger.all_settled:
                return False
        if world.now < self._next_look:
            return False
        self._next_look = world.now + pacing.jittered(pacing.idle_period(cadence.pace()), world.rng.random())
        yield world.ask("others", LOOK_AROUND + 2 * READ) + 2 * self.ground.coding
        self.commits.last_seen = self.ground.newest
        if self.commits.last_seen.has_unprocessed:
            cadence.reset()
            return False
        return True

    def _obey(self) -> Process:
        """Do the actions that the cadence has decided."""
        cadence = self.exchanges
        while cadence.to_show or cadence.asked is not None:
            if cadence.to_show:
                cadence.to_show = False
                yield from self._show(SHOW_PATIENCE)
            elif cadence.asked is not None:
                want, cadence.asked = cadence.asked, None
                yield from self._exchange(want)

    def _beat(self) -> Process:
        farmers = len(self.ledger.state.farmers)
        self._next_beat = self.world.now + beat_interval(LEASE, farmers)
        idle = self.exchanges.exhausted
        count = min(peers.watched_count(farmers, idle), max(0, farmers - 1))
        self._met[idle] += 1
        look = LOOK + PROOF * (self._met[idle] <= PROOF_BEATS) + (self._met[idle] == 1)
        yield self.world.ask("beats", BEAT + look * count)

    def _show(self, patience: float) -> Process:
        self.views._schedule_next()
        if not self.views._results:
            return
        got = yield from self._lock(patience)
        yield self.world.ask("views", CHECK + SHOW * got)
        if got:
            self.views._drop_pending()
            yield from self._unlock()
            yield self.world.ask("views", READ) + self.ground.coding
            self.commits.last_seen = self.ground.newest

    # --- the ledger ----------------------------------------------------------------------------

    def _exchange(self, want: int, leave: bool = False, patience: float = math.inf) -> Process:
        """`Exchanges.exchange`, with the commit in the middle of it."""
        fresh = self.ledger._journal is None
        change = self.ledger.begin(want, leave)
        if self.ledger.sent.ended:
            yield self.world.ask("exchanges", JOURNAL + NEW_JOURNAL * fresh)
        yield from self._commit(change, patience)
        first = not self.ledger.registered
        self.exchanges.concluding = True
        self.exchanges.exchange(want, leave, patience)
        self.exchanges.concluding = False
        self._since = math.inf
        if first and self.ledger.registered:
            self.ground.joined.append(self.world.now)
            yield self.world.ask("starts", OPEN_SEGMENT)

    def _commit(self, change: Callable[[State], State], patience: float) -> Process:
        ground, world, commits = self.ground, self.world, self.commits
        attempt = 0
        end = world.now + patience
        while True:
            got = yield from self._lock(min(locks.PATIENCE, max(0.0, end - world.now)))
            if not commits.commits:
                yield world.ask("turns", LOOK_WHOSE)
                commits.turn.careful = turns.CAREFUL if ground.taken else commits.turn.careful
            left = min(turns.PATIENCE, max(0.0, end - world.now))
            turn = commits.turn.careful > 0 and (yield from self._take_turn(left))
            start = world.now
            yield world.ask("exchanges", READ) + ground.coding
            state = ground.newest
            wanted = change(state)
            won = state if wanted is state else (yield from self._try(state, wanted))
            if wanted is not state:
                commits.exclusive += 0.3 * (world.now - start - commits.exclusive)
            if turn:
                yield world.ask("turns", TAKE)
                ground.taken = False
            if got:
                yield from self._unlock()
            if won is not None:
                if wanted is not state:
                    commits.turn.won()
                    commits.commits += 1
                yield world.ask("exchanges", SYNC * (wanted is not state))
                commits.last_seen = self.ledger.won = won
                return
            ground.lost += 1
            commits.lost += 1
            commits.turn.lost()
            attempt += 1
            if world.now > end:
                raise Contended(f"{attempt} commits of others came first")
            backoff = commits.backoff(attempt, len(state.farmers))
            yield world.rng.uniform(0, min(backoff, max(0.0, end - world.now)))

    def _try(self, state: State, wanted: State) -> Generator[float, None, State | None]:
        ground, world, by = self.ground, self.world, (self.name, self.ledger.seq)
        following = replace(stamp(wanted, *by), revision=state.revision + 1, by=by)
        if state.revision < state.epoch_from:
            yield world.ask("exchanges", 2)
        full = following.revision - state.epoch_from + 1 >= EPOCH_LENGTH
        if full:
            following = yield from self._begin_epoch(following)
        yield world.ask("exchanges", PREPARE + LINK) + ground.coding
        won = ground.newest is state
        if won:
            ground.committed(following, self._since)
        yield world.ask("exchanges", READ_BACK + HINT * won) + ground.coding
        if full:
            yield world.ask("epochs", SWEEP + EPOCH_LENGTH if won else 2)
        return following if won else None

    def _begin_epoch(self, state: State) -> Generator[float, None, State]:
        in_use = {entry.journal for entry in state.farmers.values()}
        departed = list(state.departed.items())[:CLOSED_AT_ONCE]
        closed = {name: size for name, size in departed if name not in in_use}
        yield self.world.ask("epochs", NEW_EPOCH + len(closed) + 2 * bool(closed))
        return begin_epoch(state, epoch_name(after(state.epoch), "0123abcd"), closed)

    def _lock(self, patience: float) -> Generator[float, None, bool]:
        world = self.world
        start = world.now
        pause = locks.FIRST_PAUSE  # no lock is stuck here, so that patience stays constant
        yield world.ask("locks", TRY)
        while not (got := self._try_lock()) and world.now - start < patience:
            left = patience - (world.now - start)
            yield max(0.0, min(left, pause * world.rng.uniform(0.7, 1.3)))
            pause = min(pause * 1.5, locks.LONGEST_PAUSE)
            yield world.ask("locks", TRY)
        self._timeouts = 0 if got else self._timeouts + 1
        return got

    def _take_turn(self, patience: float) -> Generator[float, None, bool]:
        world = self.world
        start = world.now
        pause = turns.FIRST_PAUSE  # no farmer dies with it here
        yield world.ask("turns", TAKE)
        while self.ground.taken:
            yield world.ask("turns", LOOK_WHOSE)
            left = patience - (world.now - start)
            if left <= 0:
                return False
            yield min(left, pause * world.rng.uniform(0.5, 1.5))
            pause = min(pause * 1.5, turns.MOST_PAUSE)
            yield world.ask("turns", TAKE)
        self.ground.taken = True
        return True

    def _try_lock(self) -> bool:
        if self.ground.shared and self.ground.locked:
            return False
        self.ground.locked = True
        return True

    def _unlock(self) -> Process:
        yield self.world.ask("locks", RELEASE)
        self.ground.locked = False

    # --- the end -------------------------------------------------------------------------------

    def leave(self, waited: list[float] | None = None) -> Process:
        """Report the last results and leave; if that takes too long, write a farewell note.

        `waited` gets the seconds.
        """
        begin = self.world.now
        while not self.ledger.all_settled or self.ledger.registered:
            try:
                yield from self._exchange(0, True, leaving.PATIENCE_STOPPED if waited is not None else leaving.PATIENCE)
            except Contended:
                yield self.world.ask("farewells", FAREWELL)
                break
        if waited is not None:
            waited.append(self.world.now - begin)
        if not self.ledger.registered:
            yield from self._part()

    def _part(self) -> Process:
        """Make the views exact if no other farmer will, or if that is cheap; remove our files."""
        yield from self._show(FINISH_PATIENCE)
        state = self.ground.newest
        if state.unprocessed <= views.CHEAP or not any(entry.claims for entry in state.farmers.values()):
            got = yield from self._lock(FINISH_PATIENCE)
            yield self.world.ask("views", 2 * READ + FINISH) + 2 * self.ground.coding
            if got:
                yield from self._unlock()
        yield self.world.ask("others", PARTING)


def driving(world: World) -> ExitStack:
    """Inside the block the real parts read the clock and the random generator of `world`."""
    stack = ExitStack()
    for module, name, stand_in in (
        (exchanges, "time", world),
        (exchanges, "random", world.rng),
        (views, "time", world),
        (views, "random", world.rng),
    ):
        stack.enter_context(patch.object(module, name, stand_in))
    return stack


def simulate(
    ground: FarmModel, farmers: int, within: float = 1.0, cadence: type[SimulatedExchanges] = SimulatedExchanges
) -> FarmModel:
    """`farmers` start within this many seconds, and work until no task is left; the measurements."""
    world = ground.world
    with driving(world):
        for _ in range(farmers):
            world.start(Simulated(ground, cadence).life(), world.rng.uniform(0, within))
        world.run()
    return ground
