"""A farmer among others: it shows that it lives, and expels those that do not.

Owns our signs of life. A farmer that finds that its own beats came late, because it was stopped or the
file system hung, first asks the ledger whether it is still in it.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterable
from contextlib import suppress

from taskfarmer.errors import StorageError
from taskfarmer.farm.control import stop_requested
from taskfarmer.farmer.exchanges import Exchanges
from taskfarmer.farmer.jobs import Jobs
from taskfarmer.ledger.ledger import Ledger
from taskfarmer.ledger.state import State
from taskfarmer.options import Reporter, Settings
from taskfarmer.peers import arrivals
from taskfarmer.peers.heartbeat import Presence, announced_interval, beat_interval
from taskfarmer.peers.identity import Identity
from taskfarmer.peers.lockproofs import LockProofs
from taskfarmer.peers.watch import Watch
from taskfarmer.proctree import STUCK_AFTER
from taskfarmer.storage import durable

WATCHED = 2
WATCHED_WHEN_IDLE = 64
"""Heartbeats that a farmer reads per beat: of its successors in the order of IDs, more where there is time."""
WATCHED_BY_ALL = 4096
"""Heartbeats that all read together, at most, where all are idle: with more than 64 farmers each reads fewer."""
EARLIER_RUNS = 256
"""Farmers among which a job that runs again looks for those of its earlier runs."""
SILENT_BEATS = 4
FIRST_BEATS = 2
"""Beats of a farmer whose file was made a moment ago."""
MISSED_BEATS = 2


def watched(farmers: int, idle: bool) -> int:
    """How many of so many farmers one looks at."""
    return max(WATCHED, min(WATCHED_WHEN_IDLE, WATCHED_BY_ALL // max(1, farmers))) if idle else WATCHED


class Neighbours:
    def __init__(self, reporter: Reporter, ledger: Ledger, identity: Identity, exchanges: Exchanges) -> None:
        self.reporter = reporter
        self.ledger = ledger
        self.identity = identity
        self.exchanges = exchanges
        self.workdir = ledger.workdir
        self.watch = Watch(self.workdir, identity, ledger.farm.lease)
        self.jobs = Jobs(identity.job)
        self.proofs = LockProofs(self.workdir, identity, ledger.farm.lease)
        self.presence: Presence | None = None
        self.next_beat = 0.0
        self.told_to: str | None = None
        self._last_beat = 0.0
        self._longest_gap = 0.0
        self._killed_since: float | None = None
        self._told: set[str] = set()

    def appear(self, now: float) -> None:
        """Show that we are there, from now on."""
        self.presence = Presence(self.workdir, self.identity)
        self._last_beat = now
        self.exchanges.on_trouble = self.presence.free_ballast

    def beat(self, now: float, running: list[list[int]]) -> None:
        """Show that we live; look whether others do; find out whether others think that we do not."""
        if now < self.next_beat:
            return
        self._note_beat(now)
        farmers = self.ledger.state.farmers
        beat = beat_interval(self.ledger.farm.lease, len(farmers))
        self.next_beat = now + beat
        assert self.presence is not None
        self.presence.every = beat
        self.show(running)
        # our alive file goes when the farm is deleted (and perhaps made anew), and when we are expelled
        gap, self._longest_gap = self._longest_gap, 0.0
        missing = self.presence.beats > FIRST_BEATS and not os.path.exists(self.workdir.alive(self.identity.farmer))
        if missing or gap > self.ledger.farm.lease / 2:
            try:
                self.ledger.commits.check_farm()
                state = self.ledger.refresh()
            except StorageError as error:
                self.exchanges.in_trouble(str(error))
                return
            if self.ledger.registered and self.identity.farmer not in state.farmers:
                self.exchanges.make(0)  # raises Expelled, in words
            if missing:
                self.presence.renew()
        farmers = self.ledger.state.farmers
        sample = self.watch.sample(farmers, watched(len(farmers), self.exchanges.exhausted))
        self.expel({*sample, *self._earlier_runs(farmers)})
        self.watch.beat = beat

    def pulse(self, now: float) -> None:
        """Between two file operations: show that we live if it is time to, and note that the file system serves us."""
        self.watch.serve(now)
        if self.presence is not None and now - self._last_beat >= self.watch.beat:
            self._note_beat(now)
            with suppress(OSError):  # the next beat is not between other work, and warns
                self.presence.beat()

    def _note_beat(self, now: float) -> None:
        self._longest_gap = max(self._longest_gap, now - self._last_beat)
        self._last_beat = now

    def show(self, running: list[list[int]], sync: bool = False) -> None:
        """Write a heartbeat, `sync` where it must be on the disk before something happens; see if we are to stop."""
        assert self.presence is not None
        self.told_to = stop_requested(self.workdir, self.identity.farmer)
        try:
            self.presence.beat(running, sync=sync)
        except OSError as error:
            self.reporter.warning(f"{self.workdir.alive(self.identity.farmer)}: {error.strerror}; no sign of life")

    def farewell(self, journal: str, size: int) -> None:
        """Leave a note: all our tasks have ended, and so many bytes of the journal are on the disk."""
        assert self.presence is not None
        self.presence.write_farewell(journal, size)

    def begin_to_watch(self) -> None:
        """Look at those that we are to watch, so that their silence counts from now on."""
        for farmer in self.watch.successors(self.ledger.state.farmers, WATCHED):
            self.watch.silence(farmer)

    def look_around(self, state: State) -> None:
        """Expel all farmers of a state whose death is seen without waiting."""
        farmers = state.farmers
        self.expel({*self.watch.suspects(farmers), *self._earlier_runs(farmers)})

    def _earlier_runs(self, farmers: Iterable[str]) -> list[str]:
        """Farmers of earlier runs of our own job. Only if there was one are files of farmers read."""
        if not self.jobs.restarted:
            return []
        found = []
        for farmer in self.watch.sample(farmers, EARLIER_RUNS):
            them = self.watch.identity(farmer)
            if them is not None and self.jobs.was_earlier_run(them.job):
                found.append(farmer)
        return found

    def worth_waiting(self, state: State, settings: Settings) -> bool:
        """Whether others hold tasks that may come to us: with --wait any, else those of a farmer that seems dead.

        One that was killed here has workers, which end its tasks within the grace time: as long as we wait for that.
        One of another node is waited for until it beats, or is expelled: at most for the lease. So is any of an earlier
        run of our own job.
        """
        holders = self._holders(state)
        unexpelled = self.ledger.unexpellable()
        if settings.wait:
            return any(farmer not in unexpelled for farmer in holders)
        if self._silent(holders, state) or not all(map(self.watch.seen_beating, self._earlier_runs(holders))):
            return True
        if not self.killed_here(state):
            self._killed_since = None
            return False
        now = time.monotonic()
        if self._killed_since is None:
            self._killed_since = now
        return now - self._killed_since < settings.grace + STUCK_AFTER

    def _silent(self, holders: list[str], state: State) -> bool:
        """Whether a farmer that we are to watch holds tasks, and seems to have been silent for long when we came.

        That is a hint only, by the times of files. Whoever is seen to beat is alive.
        """
        return any(
            farmer in holders and not self.watch.seen_beating(farmer) and self._seems_silent(farmer, SILENT_BEATS)
            for farmer in self.watch.successors(state.farmers, WATCHED)
        )

    def _seems_silent(self, farmer: str, beats: int) -> bool:
        try:
            theirs = os.stat(self.workdir.alive(farmer)).st_mtime
        except OSError:
            return True
        try:
            mine = os.stat(self.workdir.alive(self.identity.farmer)).st_mtime
        except OSError:
            mine = time.time()  # not there yet
        return mine - theirs > beats * max(self.watch.beat, self._beat_of(farmer))

    def _beat_of(self, farmer: str) -> float:
        """Seconds between two heartbeats of a farmer, as far as it says so."""
        try:
            return announced_interval(durable.read(self.workdir.alive(farmer)))
        except OSError:
            return 0.0

    def killed_here(self, state: State) -> bool:
        """Whether tasks are held by a farmer that was killed on this node, and are not free yet.

        One that left by itself is gone from this node, too, and since then from the ledger.
        """
        if not any(self._killed(farmer) for farmer in self.watch.suspects(self._holders(state))):
            return False
        return any(self._killed(farmer) for farmer in self.watch.suspects(self._holders(self.ledger.refresh())))

    def hold_tasks(self, state: State) -> bool:
        """Whether other farmers hold tasks."""
        return bool(self._holders(state))

    def _holders(self, state: State) -> list[str]:
        return [farmer for farmer, entry in state.farmers.items() if entry.claims and farmer != self.identity.farmer]

    def _killed(self, farmer: str) -> bool:
        """Whether a farmer's process is gone from this very node; its workers may still be there."""
        them = self.watch.identity(farmer)
        return them is not None and them.shares_processes_with(self.identity) and them.runs is False

    def expel(self, farmers: Iterable[str]) -> None:
        """Expel those of `farmers` that are dead."""
        dead = {}
        for farmer in farmers:
            if farmer != self.identity.farmer:
                self.ledger.commits.between()
                why = self.watch.verdict(farmer) or self._evidence(farmer)
                if why is not None:
                    dead[farmer] = why
        if not dead:
            return
        try:
            gone = self.ledger.expel(dead)
        except StorageError as error:
            self.exchanges.in_trouble(str(error))
            return
        for why in self.ledger.delayed_expulsions.values():
            if why not in self._told:
                self._told.add(why)
                self.reporter.warning(why)
        for farmer in gone:
            self.watch.forget(farmer)
            self.proofs.forget(farmer)
            self.reporter.info(f"{farmer} is dead ({dead[farmer]}); what it held goes to others")
        if gone:
            self.exchanges.again()

    def _evidence(self, farmer: str) -> str | None:
        """Why a farmer has ended although the lease has not; None if nothing proves that.

        Its free lock proves it between containers of one node, its scheduler's report between any two jobs and steps.
        """
        now = time.monotonic()
        them = self.watch.identity(farmer)
        if them is None:
            return None
        self.proofs.observe(them, now)
        silent = self.watch.suspicious(farmer)
        if silent is not None:
            if self.proofs.has_ended(them):
                return f"its lock is free, and {them.host} is a container of this node"
            return self.jobs.ended(them.job, now - silent, now)
        why = self.jobs.was_earlier_run(them.job)
        if why is None or self.presence is None or self.watch.seen_beating(farmer):
            return None
        # its file is compared with ours, which the same server has just stamped: it need not be watched for two beats
        return why if self._seems_silent(farmer, MISSED_BEATS) else None

    def sweep(self) -> None:
        """If nobody else is registered, remove what is left of farmers that died before their first commit."""
        state = self.ledger.state
        if not state.farmers:
            now = self.presence.last_beat if self.presence is not None else None
            lease, between = self.ledger.farm.lease, self.ledger.commits.between
            arrivals.sweep(self.workdir, self.identity, state.farmers, lease, now, between)

    def part(self) -> None:
        """Take our signs of life away; where the ledger still has us, others must find us dead by them."""
        if self.presence is not None:
            if self.ledger.registered:
                self.presence.close()
            else:
                self.presence.leave()
