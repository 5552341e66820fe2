"""A farmer's own signs of life: who it is, its heartbeat, and the note that it leaves.

Owns `farmers/`. `<id>.json` says who and where a farmer is. `<id>.alive` is locked for as long as the farmer, its
workers or their tasks have it open; its one line is the heartbeat: a number that rises, and the tasks that run in each
slot. `<id>.farewell` is the note of a farmer that left without a commit: all its tasks have ended, and the note
contains the name of its journal and the length of it.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import asdict, replace
from typing import Any

from taskfarmer.errors import StorageError, remedy
from taskfarmer.formats import members
from taskfarmer.formats.sealed import sealed, unsealed
from taskfarmer.peers.identity import Identity
from taskfarmer.storage import durable, locks
from taskfarmer.storage.layout import Workdir

LONGEST_BEAT = 30.0
SHORTEST_BEAT = 0.2
BALLAST = 64 * 1024
OPERATIONS = 7.0
"""File operations of a beat: our own, and a look at two neighbours."""
OPERATIONS_OF_BEATS = 100.0
"""File operations per second for the beats of the whole farm, as far as the lease allows."""
BEATS_OF_A_LEASE = 8.0
PAD = len(b',"pad":""')
"""Bytes that an empty padding takes in a heartbeat, which never gets shorter."""


def beat_interval(lease: float, farmers: int = 1) -> float:
    """Seconds between heartbeats where a farmer is taken for dead after `lease` seconds of silence.

    Those of many `farmers` beat less often each, but eight times in a lease in any case: so whoever is seen to be
    silent for a lease has missed many beats, also where two looks at it are late.
    """
    least = min(LONGEST_BEAT, max(SHORTEST_BEAT, lease / 20))
    return max(least, min(lease / BEATS_OF_A_LEASE, farmers * OPERATIONS / OPERATIONS_OF_BEATS))


class Presence:
    """Our own signs of life. `every` is how many seconds there are between two of them, 0 where that is not known."""

    def __init__(self, workdir: Workdir, identity: Identity, ballast: bool = True) -> None:
        self.workdir = workdir
        self.identity = identity
        self.beats = 0
        self.every = 0.0
        self._size = 0
        self._fd = -1
        self._running: list[list[Any]] = []
        path = workdir.alive(identity.farmer)
        try:
            durable.prepare(workdir.identity(identity.farmer), sealed(asdict(identity)), workdir.shared)
            self._fd = durable.open_exclusive(path, os.O_RDWR)
            if workdir.shared:
                durable.grant_group(self._fd, durable.GROUP_WRITES)  # others try its lock, for which NFS wants that
            self.locked = locks.hold_alive(self._fd)
            self.beat()
            if ballast:
                size = int(min(BALLAST, durable.largest_file()))
                durable.prepare(workdir.ballast(identity.farmer), bytes(size), workdir.shared)
        except OSError as error:
            self.leave()
            raise StorageError(
                f"{error.filename or path}: {error.strerror}; a farmer cannot start here; "
                + remedy(error, "restore the folder: an empty folder will do")
            ) from error

    @property
    def descriptor(self) -> int:
        return self._fd

    @property
    def last_beat(self) -> float | None:
        """When we beat last, by the clock of the file server; None if that cannot be seen."""
        try:
            return os.fstat(self._fd).st_mtime
        except OSError:
            return None

    def beat(self, running: Iterable[list[Any]] | None = None, *, sync: bool = False) -> None:
        """Show that we live, and which tasks run: `[slot, task ID, attempt]` for each."""
        if running is not None:
            self._running = list(running)
        self.beats += 1
        members = {"beat": self.beats, "every": self.every, "held": self.locked, "running": self._running}
        data = sealed(members)
        if len(data) < self._size:  # to cut the file off would be a file operation more
            data = sealed({**members, "pad": " " * max(0, self._size - len(data) - PAD)})
        os.pwrite(self._fd, data, 0)
        self._size = len(data)
        if sync:
            durable.sync(self._fd)

    def renew(self) -> None:
        """Show ourselves again: our signs were removed, since we slept for long before our first commit."""
        path = self.workdir.alive(self.identity.farmer)
        try:
            fd = durable.open_exclusive(path, os.O_RDWR)
        except OSError:
            return  # it is there after all, or cannot be made now: the next heartbeat looks again
        if self.workdir.shared:
            durable.grant_group(fd, durable.GROUP_WRITES)
        self.locked = locks.hold_alive(fd)
        os.dup2(fd, self._fd)  # it is the same open file, so the lock stays
        os.close(fd)
        self._size = 0
        self.beat()

    def add_job_info(self, name: str, value: str) -> None:
        """Add something about our job to what others can read of us."""
        self.identity = replace(self.identity, job={**self.identity.job, name: value})
        try:
            durable.replace(
                self.workdir.identity(self.identity.farmer), sealed(asdict(self.identity)), self.workdir.shared
            )
        except OSError:
            pass  # it is for people

    def free_ballast(self) -> None:
        """Free the little room that was kept for the moment when the disk is full."""
        durable.unlink_quietly(self.workdir.ballast(self.identity.farmer))

    def write_farewell(self, journal: str, size: int) -> None:
        """Leave the note that all our tasks have ended and our journal is complete: others settle `size` bytes of it.

        One file operation, and no sync: a note that is lost costs the others the time to find us dead.
        """
        path = self.workdir.farewell(self.identity.farmer)
        durable.write_new(path, sealed({"journal": journal, "bytes": size}), self.workdir.shared)

    def leave(self) -> None:
        """Take the signs of life away; who we were stays."""
        self.free_ballast()
        durable.unlink_quietly(self.workdir.alive(self.identity.farmer))
        self.close()

    def close(self) -> None:
        if self._fd >= 0:
            fd, self._fd = self._fd, -1
            durable.close_quietly(fd)


def running_of(workdir: Workdir, farmer: str) -> list[tuple[int, int]]:
    """(task ID, attempt) of what a farmer said last that it runs."""
    try:
        document = unsealed(durable.read(workdir.alive(farmer)))
    except OSError:
        return []
    slots = document.get("running") if document else None
    if not isinstance(slots, list):
        return []
    return [
        (slot[1], slot[2])
        for slot in slots
        if isinstance(slot, list) and list(map(members.is_whole, slot[1:3])) == [True, True]
    ]


def announced_interval(content: bytes) -> float:
    """The seconds between two beats that a heartbeat speaks of; 0 where it does not, or where it is torn."""
    every = (unsealed(content) or {}).get("every", 0.0)
    return float(every) if members.is_number(every) else 0.0  # type: ignore[arg-type]
