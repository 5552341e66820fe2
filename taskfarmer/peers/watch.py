"""Detecting dead farmers by watching their heartbeats.

A farmer is dead if it left, or if its process on this node is gone. Otherwise it is dead after a lease of silence,
unless its scheduler, or its lock on a file system of this kernel alone, proves its end earlier (farmer/peers.py).

Silence is measured with the observer's own clock; clocks of two nodes are never compared. The clock advances only while
the file system serves the observer: of the time between two of its pulses (`farmer/pulse.py`: usually after three file
operations) at most an eighth of the lease counts. So

* if a file system hangs for all nodes, for any time, this counts as an eighth of the lease, and so does the time for
  which the observer itself was stopped. A farmer that sends a heartbeat afterwards is alive;
* if each operation takes seconds, the clock still advances: a dead farmer is expelled after eight pulses of the
  observer
  at the latest, if its lease has expired by then;
* a living farmer sends heartbeats at its own pulses. It is silent for at most a few of its operations, and is not
  considered dead because they take as long as the observer's.
"""

from __future__ import annotations

import errno
import os
import time
import zlib
from collections.abc import Iterable
from dataclasses import dataclass

from taskfarmer.peers.heartbeat import BEATS_OF_A_LEASE, announced_interval, beat_interval
from taskfarmer.peers.identity import Identity, load_identity, short_name
from taskfarmer.storage import durable, locks
from taskfarmer.storage.layout import Workdir

_NO_HEARTBEAT = (errno.ENOENT, errno.EISDIR, errno.ELOOP, errno.EACCES, errno.EINVAL, errno.EOVERFLOW)
"""Errors that mean that the heartbeat is missing; any other error may be one of the file system."""
LOOKS_OF_SUSPICION = 2
"""Looks after the first one that must find a heartbeat unchanged: one alone may follow a hang."""


@dataclass
class _Watched:
    content: bytes
    every: float
    silent: float = 0.0
    beats: bool = False
    looks: int = 0


class Watch:
    """Observations of other farmers' heartbeats, and for how long each has not changed."""

    def __init__(self, workdir: Workdir, me: Identity, lease: float) -> None:
        self.workdir = workdir
        self.me = me
        self.lease = lease
        self.beat = beat_interval(lease)
        self._seen: dict[str, _Watched] = {}
        self._identities: dict[str, Identity | None] = {}
        self._looked: dict[str, float] = {}
        self._served = 0.0
        self._served_at = time.monotonic()

    def serve(self, now: float) -> None:
        """Count the time since the last call, after our file operations: at most an eighth of the lease."""
        self._served += min(now - self._served_at, max(self.lease / BEATS_OF_A_LEASE, self.beat))
        self._served_at = now

    def successors(self, farmers: Iterable[str], count: int = 2) -> list[str]:
        """The farmers after us in the order of IDs, around the ring."""
        others = sorted(farmer for farmer in farmers if farmer != self.me.farmer)
        after = [farmer for farmer in others if farmer > self.me.farmer]
        return (after + others)[: min(count, len(others))]

    def sample(self, farmers: Iterable[str], count: int) -> list[str]:
        """Our two successors and others from the whole ring: `count` in all, mostly the same as the last time.

        Each farmer has another sample. So if many farmers of one job are dead, next to each other in the ring, all
        others together detect them, not one after the other.
        """
        if count <= 2:
            return self.successors(farmers, count)
        near = self.successors(farmers)
        far = [farmer for farmer in farmers if farmer not in (*near, self.me.farmer)]
        far.sort(key=lambda farmer: zlib.crc32(f"{farmer} {self.me.farmer} {farmer}".encode()))
        return [*near, *far][:count]

    def suspects(self, farmers: Iterable[str]) -> list[str]:
        """Farmers whose death is visible at once: on our node, or with a farewell note. One directory is listed."""
        others = [farmer for farmer in farmers if farmer != self.me.farmer]
        if not others:
            return []
        try:
            names = set(os.listdir(self.workdir.farmers))
        except OSError:
            names = set()
        here = short_name(self.me.host) + "-"
        return [farmer for farmer in others if farmer.startswith(here) or f"{farmer}.farewell" in names]

    def silence(self, farmer: str) -> float:
        """Read a farmer's heartbeat; the seconds for which the file system served us since it changed."""
        try:
            content = durable.read(self.workdir.alive(farmer))
        except OSError as error:
            if error.errno not in _NO_HEARTBEAT:
                return 0.0
            content = b""
        self.serve(time.monotonic())
        elapsed = self._served - self._looked.get(farmer, self._served)
        self._looked[farmer] = self._served
        seen = self._seen.get(farmer)
        if seen is None or seen.content != content:
            every = announced_interval(content) or (seen.every if seen is not None else 0.0)
            self._seen[farmer] = _Watched(content, every, beats=seen is not None)
            return 0.0
        seen.looks += 1
        seen.silent += elapsed
        return seen.silent

    def identity(self, farmer: str) -> Identity | None:
        """The identity of a farmer; None if its file cannot be read (yet)."""
        if self._identities.get(farmer) is None:
            self._identities[farmer] = load_identity(self.workdir, farmer)
        return self._identities[farmer]

    def seen_beating(self, farmer: str) -> bool:
        """Whether a farmer's heartbeat has changed since our first look."""
        seen = self._seen.get(farmer)
        return seen is not None and seen.beats

    def suspicious(self, farmer: str) -> float | None:
        """The seconds for which a farmer has been silent, if it has missed two heartbeats; else None."""
        seen = self._seen.get(farmer)
        enough = seen is not None and seen.looks >= LOOKS_OF_SUSPICION
        return seen.silent if seen is not None and enough and seen.silent >= 2 * self._beat_of(seen) else None

    def _beat_of(self, seen: _Watched) -> float:
        """Seconds between two heartbeats of a farmer, which may know of more or fewer farmers than we do."""
        return max(self.beat, min(seen.every, self.lease / BEATS_OF_A_LEASE))

    def verdict(self, farmer: str) -> str | None:
        """The reason why a farmer is dead, for people; None if it may be alive."""
        if os.path.exists(self.workdir.farewell(farmer)):
            return "it left cleanly"
        them = self.identity(farmer)
        silent = self.silence(farmer)
        if them is not None and self._gone_here(them):
            return f"its process {them.pid} on {them.host} is gone"
        if silent >= self.lease:
            return f"no heartbeat for {silent:.0f} s"
        return None

    def _gone_here(self, them: Identity) -> bool:
        """Whether a farmer in our pid namespace is gone, with all its tasks."""
        if not them.shares_processes_with(self.me) or them.runs is not False:
            return False
        return locks.alive_is_free(self.workdir.alive(them.farmer))

    def forget(self, farmer: str) -> None:
        for known in (self._seen, self._identities, self._looked):
            known.pop(farmer, None)
