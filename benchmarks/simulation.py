"""Farms of thousands of farmers in simulated time: the real decisions and transitions over a model of a file system.

Real are `policy.py`, the transitions of `ledger/state.py` and how a revision is written, what a farmer tells, takes
and holds (`Ledger._change` and `_conclude`), its whole cadence (`Exchanges`: `pace`, `wants`, `due`, `if_due`,
`_out_of_turn`, `make`, `again`), and when views are due (`Views`): they are given a clock that is simulated. What
waits for files or processes cannot be driven like that. It stands here in lines of its own, for these functions:

    FarmLock.held, Turn.taken                  Simulated._lock, _unlock, _take_turn
    Commits.commit, _try                       Simulated._commit, _try
    epochs.make, close_journals, sweep         Simulated._turn
    Ledger.exchange                            SimulatedLedger.begin
    Farmer._work, _pause, _absorb              Simulated.life, _until, _absorb
    Farmer._done, _part, Leaving.leave         Simulated._done, _part, leave
    Neighbours.beat, look_around, farewell     Simulated._beat, _done, leave
    Views.show, finish                         Simulated._show, _part
    Pool, SegmentReader                        Slots

A metadata operation is what a client must ask a server for: open, create, link, unlink, rename, a look at what others
change, fsync, a lock. `strace` shows more calls: about what was just opened, or never changes, the client itself
knows. To write or read a revision also takes time by its size. Left out are deaths, deadlines, stale views, what it
takes to start a process, and batches of tasks for a worker: they are of one task where tasks take a second.
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
"""Operations before the first exchange: the list, the farm, two looks at the ledger, signs of life."""
TRY, RELEASE = 2, 1
JOURNAL, NEW_JOURNAL, OPEN_SEGMENT, SETTLE_IN = 1, 3, 2, 2
READ = 3
"""`HEAD`, the revision, and that there is no next one."""
PREPARE, LINK, READ_BACK, HINT, SYNC = 2, 1, 2, 1, 2
"""Create and sync; link; unlink and look who won; write the hint; sync the directory, without the lock."""
NEW_EPOCH, SWEEP = 6, 7
"""Two directories, made durable; the old epoch is listed and removed, and each of its revisions besides."""
CHECK, SHOW, FINISH = 1, 9, 4
"""`farm.json`; `views.json`, a size, two views with their sizes, `views.json` anew (three); what is looked at in the
end. After each write the newest revision is read."""
BEAT, LOOK, PROOF, PROOF_BEATS = 3, 2, 1, 6
"""The order to stop, our beat, and that it is there; a neighbour's farewell and beat; and once more for as many
beats as it takes to prove that locks are shared with its node."""
LOOK_AROUND, PARTING, FAREWELL = 4, 2, 1
TAKE, LOOK_WHOSE = 1, 1
"""The turn is taken, or left; and whose it is."""
LINE = 105
"""Bytes of a result."""
CODING = 20e-9
"""Seconds to write or to read a byte of a revision (and to compute it), as measured with a thousand farmers."""
SHOW_PATIENCE = inspect.signature(views.Views.show).parameters["patience"].default
FINISH_PATIENCE = 10.0
NOWHERE = Workdir("/nowhere")


class Ground:
    """What the farmers share: the newest revision, the lock (if `shared`), how long tasks take; and what is seen."""

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
        """The farm is in this state, however it came to that."""
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
    """A farmer."""

    def __init__(self, ground: Ground, cadence: type[SimulatedExchanges] = SimulatedExchanges) -> None:
        self.ground, self.world = ground, ground.world
        chance = self.world.chance
        self.name = f"nid{chance.randrange(10**6):06d}-{chance.randrange(10**5, 10**6)}-{chance.getrandbits(32):08x}"
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
        """Work until nothing is left to take, and go."""
        yield self.world.ask("starts", START + SETTLE_IN) + 3 * self.ground.coding
        self._next_beat = self.world.now + beat_interval(LEASE, len(self.ledger.state.farmers))
        while True:
            if self.world.now >= self._next_beat:
                yield from self._beat()
            if (yield from self._done()):
                break
            self.exchanges.if_due(self.world.now, True)
            yield from self._obey()
            self.pool.dispatch(self.world.now)
            yield self._until() - self.world.now
            self._absorb()
        yield from self.leave()

    def _until(self) -> float:
        """When something is due, or a slot finds nothing to do."""
        now = self.world.now
        due = self.exchanges.due(now, True)
        if self.pool.running and self.ledger.all_settled:
            # with the first task that ends there is something to tell
            due = min(due, max(self.exchanges.next, self.pool.running[0][0]))
        due = min(due, self._next_beat, self.views.due_at)
        if not self.pool.outstanding and not self.pool.queued:
            due = min(due, self._next_look)
        return self.pool.advance(now, max(now, due))

    def _absorb(self) -> None:
        """Hear which tasks have ended."""
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
        """Whether there is nothing left to run, to record or to take."""
        cadence, pool, world = self.exchanges, self.pool, self.world
        if cadence.exhausted and world.now >= self._next_growth:
            self._next_growth = world.now + growth.EVERY
            yield world.ask("others", 1)
        if pool.outstanding or pool.queued:
            return False
        if not cadence.exhausted or not self.ledger.all_settled:
            cadence.make(max(1, cadence.wants()))
            yield from self._obey()
            if pool.queued or not cadence.exhausted or not self.ledger.all_settled:
                return False
        if world.now < self._next_look:
            return False
        self._next_look = world.now + pacing.jittered(pacing.waiting(cadence.pace()), world.chance.random())
        yield world.ask("others", LOOK_AROUND + 2 * READ) + 2 * self.ground.coding
        self.commits.last_seen = self.ground.newest
        if self.commits.last_seen.has_unprocessed:
            cadence.again()
            return False
        return True

    def _obey(self) -> Process:
        """Do what the cadence has decided."""
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
        count = min(peers.watched(farmers, idle), max(0, farmers - 1))
        self._met[idle] += 1
        look = LOOK + PROOF * (self._met[idle] <= PROOF_BEATS) + (self._met[idle] == 1)
        yield self.world.ask("beats", BEAT + look * count)

    def _show(self, patience: float) -> Process:
        self.views._put_off()
        if not self.views._results:
            return
        got = yield from self._lock(patience)
        yield self.world.ask("views", CHECK + SHOW * got)
        if got:
            self.views._forget()
            yield from self._unlock()
            yield self.world.ask("views", READ) + self.ground.coding
            self.commits.last_seen = self.ground.newest

    # --- the ledger ----------------------------------------------------------------------------

    def _exchange(self, want: int, leave: bool = False, patience: float = math.inf) -> Process:
        """`Exchanges.make`, with the commit in the middle of it."""
        fresh = self.ledger._journal is None
        change = self.ledger.begin(want, leave)
        if self.ledger.sent.ended:
            yield self.world.ask("exchanges", JOURNAL + NEW_JOURNAL * fresh)
        yield from self._commit(change, patience)
        first = not self.ledger.registered
        self.exchanges.concluding = True
        self.exchanges.make(want, leave, patience)
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
            pause = commits.backoff(attempt, len(state.farmers))
            yield world.chance.uniform(0, min(pause, max(0.0, end - world.now)))

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
        patience = max(min(patience, locks.LEAST_PATIENCE), patience * 0.5**self._timeouts)
        pause = locks.FIRST_PAUSE
        yield world.ask("locks", TRY)
        while not (got := self._try_lock()) and world.now - start < patience:
            left = patience - (world.now - start)
            yield max(0.0, min(left, pause * world.chance.uniform(0.7, 1.3)))
            pause = min(pause * 1.5, locks.LONGEST_PAUSE)
            yield world.ask("locks", TRY)
        self._timeouts = 0 if got else self._timeouts + 1
        return got

    def _take_turn(self, patience: float) -> Generator[float, None, bool]:
        world = self.world
        start = world.now
        pause = turns.FIRST_PAUSE  # nobody dies with it here
        yield world.ask("turns", TAKE)
        while self.ground.taken:
            yield world.ask("turns", LOOK_WHOSE)
            left = patience - (world.now - start)
            if left <= 0:
                return False
            yield min(left, pause * world.chance.uniform(0.5, 1.5))
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
        """Tell the last news and go; where that is not to be had in time, say farewell. `waited` gets the seconds."""
        begin = self.world.now
        while not self.ledger.all_settled or self.ledger.registered:
            try:
                yield from self._exchange(0, True, leaving.STOPPED if waited is not None else leaving.PATIENCE)
            except Contended:
                yield self.world.ask("farewells", FAREWELL)
                break
        if waited is not None:
            waited.append(self.world.now - begin)
        if not self.ledger.registered:
            yield from self._part()

    def _part(self) -> Process:
        """Make the views exact where nobody else will, or where that is cheap; take our signs of life away."""
        yield from self._show(FINISH_PATIENCE)
        state = self.ground.newest
        if state.unprocessed <= views.CHEAP or not any(entry.claims for entry in state.farmers.values()):
            got = yield from self._lock(FINISH_PATIENCE)
            yield self.world.ask("views", 2 * READ + FINISH) + 2 * self.ground.coding
            if got:
                yield from self._unlock()
        yield self.world.ask("others", PARTING)


def driving(world: World) -> ExitStack:
    """As long as this is entered, what is driven reads the clock and throws the dice of `world`."""
    stack = ExitStack()
    for module, name, stand_in in (
        (exchanges, "time", world),
        (exchanges, "random", world.chance),
        (views, "time", world),
        (views, "random", world.chance),
    ):
        stack.enter_context(patch.object(module, name, stand_in))
    return stack


def simulate(
    ground: Ground, farmers: int, within: float = 1.0, cadence: type[SimulatedExchanges] = SimulatedExchanges
) -> Ground:
    """`farmers` start within so many seconds, and work until nothing is left; what has been seen."""
    world = ground.world
    with driving(world):
        for _ in range(farmers):
            world.start(Simulated(ground, cadence).life(), world.chance.uniform(0, within))
        world.run()
    return ground
