"""A farmer's heartbeat, and its watch over the other farmers: it expels the dead ones.

Owns this farmer's heartbeat. If heartbeats were late, because the process was suspended or the file system hung, the
farmer first checks whether the ledger still lists it.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterable
from contextlib import suppress

from taskfarmer.errors import StorageError
from taskfarmer.farm.control import stop_requested
from taskfarmer.farmer.exchanges import Exchanges
from taskfarmer.farmer.jobs import SchedulerReports
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
"""Heartbeats that a farmer reads per beat: those of its successors in the order of IDs, and others when idle."""
WATCHED_BY_ALL = 4096
"""Heartbeats that all idle farmers read together per beat: if there are more than 64 farmers, each reads fewer."""
EARLIER_RUNS = 256
"""Farmers that a requeued job examines to find those of its earlier runs."""
SILENT_BEATS = 4
FIRST_BEATS = 2
"""Beats of a farmer whose heartbeat file is too new to be missing."""
MISSED_BEATS = 2


def watched_count(farmers: int, idle: bool) -> int:
    """How many other farmers to watch in a farm of `farmers`."""
    return max(WATCHED, min(WATCHED_WHEN_IDLE, WATCHED_BY_ALL // max(1, farmers))) if idle else WATCHED


class PeerMonitor:
    """Writes the heartbeat and expels dead farmers. `stop_request` is the command that asks this farmer to stop."""

    def __init__(self, reporter: Reporter, ledger: Ledger, identity: Identity, exchanges: Exchanges) -> None:
        self.reporter = reporter
        self.ledger = ledger
        self.identity = identity
        self.exchanges = exchanges
        self.workdir = ledger.workdir
        self.watch = Watch(self.workdir, identity, ledger.farm.lease)
        self.jobs = SchedulerReports(identity.job)
        self.proofs = LockProofs(self.workdir, identity, ledger.farm.lease)
        self.presence: Presence | None = None
        self.next_beat = 0.0
        self.stop_request: str | None = None
        self._last_beat = 0.0
        self._longest_gap = 0.0
        self._killed_since: float | None = None
        self._reported: set[str] = set()

    def start_heartbeat(self, now: float) -> None:
        self.presence = Presence(self.workdir, self.identity)
        self._last_beat = now
        self.exchanges.on_storage_error = self.presence.free_ballast

    def beat(self, now: float, running: list[list[int]]) -> None:
        """Write a heartbeat if one is due, check whether this farmer was expelled, and expel dead farmers."""
        if now < self.next_beat:
            return
        self._note_beat(now)
        farmers = self.ledger.state.farmers
        beat = beat_interval(self.ledger.farm.lease, len(farmers))
        self.next_beat = now + beat
        assert self.presence is not None
        self.presence.every = beat
        self.write_heartbeat(running)
        # our heartbeat file vanishes if the farm is deleted (and perhaps created again), or if we are expelled
        gap, self._longest_gap = self._longest_gap, 0.0
        missing = self.presence.beats > FIRST_BEATS and not os.path.exists(self.workdir.alive(self.identity.farmer))
        if missing or gap > self.ledger.farm.lease / 2:
            try:
                self.ledger.commits.check_farm()
                state = self.ledger.refresh()
            except StorageError as error:
                self.exchanges.note_storage_error(str(error))
                return
            if self.ledger.registered and self.identity.farmer not in state.farmers:
                self.exchanges.exchange(0)  # raises Expelled with an explanation
            if missing:
                self.presence.renew()
        farmers = self.ledger.state.farmers
        sample = self.watch.sample(farmers, watched_count(len(farmers), self.exchanges.exhausted))
        self.expel({*sample, *self._earlier_runs(farmers)})
        self.watch.beat = beat

    def on_pulse(self, now: float) -> None:
        """Between two file operations: write a heartbeat if one is due, and note that the file system responds."""
        self.watch.serve(now)
        if self.presence is not None and now - self._last_beat >= self.watch.beat:
            self._note_beat(now)
            with suppress(OSError):  # the next regular heartbeat warns
                self.presence.beat()

    def _note_beat(self, now: float) -> None:
        self._longest_gap = max(self._longest_gap, now - self._last_beat)
        self._last_beat = now

    def write_heartbeat(self, running: list[list[int]], sync: bool = False) -> None:
        """Write a heartbeat, with `sync` durably, and read the request to stop if there is one."""
        assert self.presence is not None
        self.stop_request = stop_requested(self.workdir, self.identity.farmer)
        try:
            self.presence.beat(running, sync=sync)
        except OSError as error:
            path = self.workdir.alive(self.identity.farmer)
            self.reporter.warning(f"cannot write heartbeat: {path}: {error.strerror}")

    def leave_note(self, journal: str, size: int) -> None:
        """Leave a farewell note: all our tasks have ended, and `size` bytes of the journal are on disk."""
        assert self.presence is not None
        self.presence.write_farewell(journal, size)

    def start_watching(self) -> None:
        """Read the heartbeats of the farmers to watch, so that their silence counts from now on."""
        for farmer in self.watch.successors(self.ledger.state.farmers, WATCHED):
            self.watch.silence(farmer)

    def expel_dead(self, state: State) -> None:
        """Expel all farmers in `state` whose death is evident without waiting."""
        farmers = state.farmers
        self.expel({*self.watch.suspects(farmers), *self._earlier_runs(farmers)})

    def _earlier_runs(self, farmers: Iterable[str]) -> list[str]:
        """Farmers of earlier runs of this job. Their files are read only if the job was restarted."""
        if not self.jobs.restarted:
            return []
        found = []
        for farmer in self.watch.sample(farmers, EARLIER_RUNS):
            them = self.watch.identity(farmer)
            if them is not None and self.jobs.requeue_reason(them.job):
                found.append(farmer)
        return found

    def should_wait(self, state: State, settings: Settings) -> bool:
        """Whether to wait for tasks that other farmers hold: with --wait for any, else for those of a dead farmer.

        The workers of a farmer killed on this node end its tasks within the grace time: wait that long. A farmer of
        another node that seems dead, or one of an earlier run of this job, is awaited until it beats or is expelled:
        at most for the lease.
        """
        holders = self._holders(state)
        unexpelled = self.ledger.unexpellable()
        if settings.wait:
            return any(farmer not in unexpelled for farmer in holders)
        if self._any_silent(holders, state) or not all(map(self.watch.seen_beating, self._earlier_runs(holders))):
            return True
        if not self.killed_peer_holds_tasks(state):
            self._killed_since = None
            return False
        now = time.monotonic()
        if self._killed_since is None:
            self._killed_since = now
        return now - self._killed_since < settings.grace + STUCK_AFTER

    def _any_silent(self, holders: list[str], state: State) -> bool:
        """Whether a farmer that we watch holds tasks, and had been silent for long when we started.

        File times suggest this but do not prove it. A farmer that was seen to beat is alive.
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
            mine = time.time()  # not written yet
        return mine - theirs > beats * max(self.watch.beat, self._beat_of(farmer))

    def _beat_of(self, farmer: str) -> float:
        """Seconds between two heartbeats of a farmer, according to its heartbeat file; 0 if it cannot be read."""
        try:
            return announced_interval(durable.read(self.workdir.alive(farmer)))
        except OSError:
            return 0.0

    def killed_peer_holds_tasks(self, state: State) -> bool:
        """Whether a farmer that was killed on this node still holds tasks.

        The process of a farmer that left cleanly is gone, too, so the newest state must confirm it.
        """
        if not any(self._killed(farmer) for farmer in self.watch.suspects(self._holders(state))):
            return False
        return any(self._killed(farmer) for farmer in self.watch.suspects(self._holders(self.ledger.refresh())))

    def others_hold_tasks(self, state: State) -> bool:
        return bool(self._holders(state))

    def _holders(self, state: State) -> list[str]:
        return [farmer for farmer, entry in state.farmers.items() if entry.claims and farmer != self.identity.farmer]

    def _killed(self, farmer: str) -> bool:
        """Whether a farmer ran on this node and its process is gone; its workers may still run."""
        them = self.watch.identity(farmer)
        return them is not None and them.shares_processes_with(self.identity) and them.runs is False

    def expel(self, farmers: Iterable[str]) -> None:
        """Expel those of `farmers` that are dead."""
        dead = {}
        for farmer in farmers:
            if farmer != self.identity.farmer:
                self.ledger.commits.between()
                why = self.watch.verdict(farmer) or self._proof_of_death(farmer)
                if why is not None:
                    dead[farmer] = why
        if not dead:
            return
        try:
            gone = self.ledger.expel(dead)
        except StorageError as error:
            self.exchanges.note_storage_error(str(error))
            return
        for why in self.ledger.delayed_expulsions.values():
            if why not in self._reported:
                self._reported.add(why)
                self.reporter.warning(why)
        for farmer in gone:
            self.watch.forget(farmer)
            self.proofs.forget(farmer)
            self.reporter.info(f"{farmer} is dead ({dead[farmer]}); released its tasks")
        if gone:
            self.exchanges.reset()

    def _proof_of_death(self, farmer: str) -> str | None:
        """Why a farmer is dead although its lease has not ended; None without proof.

        Between containers of one node its free lock is proof, between any two jobs or steps the scheduler's report.
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
            return self.jobs.end_reason(them.job, now - silent, now)
        why = self.jobs.requeue_reason(them.job)
        if why is None or self.presence is None or self.watch.seen_beating(farmer):
            return None
        # both file times are from the same server, so it need not be watched for two beats first
        return why if self._seems_silent(farmer, MISSED_BEATS) else None

    def remove_remains(self) -> None:
        """If no farmer is registered, remove the files of farmers that died before their first commit."""
        state = self.ledger.state
        if not state.farmers:
            now = self.presence.last_beat if self.presence is not None else None
            lease, between = self.ledger.farm.lease, self.ledger.commits.between
            arrivals.sweep(self.workdir, self.identity, state.farmers, lease, now, between)

    def stop_heartbeat(self) -> None:
        """Remove our heartbeat file, unless the ledger still lists us: then others need it to find us dead."""
        if self.presence is not None:
            if self.ledger.registered:
                self.presence.close()
            else:
                self.presence.leave()
