"""The files that show that a farmer is alive: its identity, its heartbeat, and its farewell note.

Owns `farmers/`. `<id>.json` contains the identity of a farmer. `<id>.alive` is locked for as long as the farmer, its
workers or their tasks have it open. Its one line is the heartbeat: a number that rises, and the task that runs in each
slot. `<id>.farewell` is the note of a farmer that left without a commit: all its tasks have ended, and the note
contains the name and length of its journal.
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
"""File operations per heartbeat: our own, and a look at two other farmers."""
OPERATIONS_OF_BEATS = 100.0
"""File operations per second for the heartbeats of the whole farm, if the lease is long enough."""
BEATS_OF_A_LEASE = 8.0
PAD = len(b',"pad":""')
"""Bytes of an empty padding in a heartbeat. A heartbeat never gets shorter."""


def beat_interval(lease: float, farmers: int = 1) -> float:
    """Seconds between heartbeats if a farmer counts as dead after `lease` seconds of silence.

    With many `farmers` the interval grows, up to an eighth of the lease. So a farmer that is silent for a lease has
    missed many heartbeats, even if two looks at it were late.
    """
    least = min(LONGEST_BEAT, max(SHORTEST_BEAT, lease / 20))
    return max(least, min(lease / BEATS_OF_A_LEASE, farmers * OPERATIONS / OPERATIONS_OF_BEATS))


class Presence:
    """Our files in `farmers/`. `every` is the number of seconds between our heartbeats, 0 if unknown."""

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
                durable.grant_group(self._fd, durable.GROUP_WRITES)  # others try its lock, and NFS requires this
            self.locked = locks.hold_alive(self._fd)
            self.beat()
            if ballast:
                size = int(min(BALLAST, durable.largest_file()))
                durable.prepare(workdir.ballast(identity.farmer), bytes(size), workdir.shared)
        except OSError as error:
            self.leave()
            raise StorageError(
                f"{error.filename or path}: {error.strerror}; a farmer cannot start here; "
                + remedy(error, "restore the directory; it may be empty")
            ) from error

    @property
    def descriptor(self) -> int:
        return self._fd

    @property
    def last_beat(self) -> float | None:
        """The time of our last heartbeat, by the clock of the file server; None if unknown."""
        try:
            return os.fstat(self._fd).st_mtime
        except OSError:
            return None

    def beat(self, running: Iterable[list[Any]] | None = None, *, sync: bool = False) -> None:
        """Write a heartbeat with the running tasks: `[slot, task ID, attempt]` for each."""
        if running is not None:
            self._running = list(running)
        self.beats += 1
        document = {"beat": self.beats, "every": self.every, "held": self.locked, "running": self._running}
        data = sealed(document)
        if len(data) < self._size:  # truncating the file would be one more file operation
            data = sealed({**document, "pad": " " * max(0, self._size - len(data) - PAD)})
        os.pwrite(self._fd, data, 0)
        self._size = len(data)
        if sync:
            durable.sync(self._fd)

    def renew(self) -> None:
        """Create our heartbeat file again: it was removed, since we slept for long before our first commit."""
        path = self.workdir.alive(self.identity.farmer)
        try:
            fd = durable.open_exclusive(path, os.O_RDWR)
        except OSError:
            return  # it exists, or cannot be created now: the next heartbeat retries
        if self.workdir.shared:
            durable.grant_group(fd, durable.GROUP_WRITES)
        self.locked = locks.hold_alive(fd)
        os.dup2(fd, self._fd)  # the same open file description, so the lock stays
        os.close(fd)
        self._size = 0
        self.beat()

    def add_job_info(self, name: str, value: str) -> None:
        """Add a property of our job to our identity file."""
        self.identity = replace(self.identity, job={**self.identity.job, name: value})
        try:
            durable.replace(
                self.workdir.identity(self.identity.farmer), sealed(asdict(self.identity)), self.workdir.shared
            )
        except OSError:
            pass  # only people read it

    def free_ballast(self) -> None:
        """Free the space that was reserved for a full disk."""
        durable.unlink_quietly(self.workdir.ballast(self.identity.farmer))

    def write_farewell(self, journal: str, size: int) -> None:
        """Leave the note that all our tasks have ended and our journal is complete: other farmers settle `size` bytes
        of it.

        One file operation, without a sync: if the note is lost, other farmers need longer to find out that we left.
        """
        path = self.workdir.farewell(self.identity.farmer)
        durable.write_new(path, sealed({"journal": journal, "bytes": size}), self.workdir.shared)

    def leave(self) -> None:
        """Remove our files, except our identity."""
        self.free_ballast()
        durable.unlink_quietly(self.workdir.alive(self.identity.farmer))
        self.close()

    def close(self) -> None:
        if self._fd >= 0:
            fd, self._fd = self._fd, -1
            durable.close_quietly(fd)


def running_of(workdir: Workdir, farmer: str) -> list[tuple[int, int]]:
    """(task ID, attempt) of the running tasks in the last heartbeat of a farmer."""
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
    """The seconds between two heartbeats that a heartbeat announces; 0 if it is missing or torn."""
    every = (unsealed(content) or {}).get("every", 0.0)
    return float(every) if members.is_number(every) else 0.0  # type: ignore[arg-type]
