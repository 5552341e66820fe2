"""Who lives: a farmer's own signs of life, and what it takes to call another one dead.

A farmer that left is dead, and so is one whose process on this very node is gone. Any other has the lease, unless its
scheduler, or its lock on a file system of this kernel alone, proves its end (farmer/neighbours.py).

Owns `farmers/`. `<id>.json` says who and where a farmer is. `<id>.alive` is locked for
as long as the farmer, its workers or their tasks have it open; its one line is the heartbeat: a number
that rises, and the tasks that run in each slot. `<id>.farewell` is the note of a farmer that left without
a commit: all its tasks have ended, and the note contains its journal and the length of it.

Silence is counted on the observer's own clock; clocks of two nodes are never compared. The clock runs as the file
system serves the observer: of the time between two of its pulses (`farmer/pulse.py`: after three file operations as a
rule) an eighth of the lease counts at most. So

* a file system that hangs for everybody, however long, counts an eighth of the lease; so does the time for which the
  observer itself was stopped. A farmer that beats when that is over is alive;
* if each operation takes seconds, the clock still runs: a dead farmer is expelled, after eight pulses of the observer
  at the latest if the lease is over by then;
* a living farmer beats at its own pulses. It is silent for a few of its operations at most, and is not taken for dead
  because they take as long as the observer's do.
"""

from __future__ import annotations

import errno
import os
import time
import zlib
from collections.abc import Iterable
from typing import Any

from taskfarmer import durable, locks, members, proc, scheduled
from taskfarmer.errors import StorageError, remedy
from taskfarmer.model import sealed, unsealed
from taskfarmer.plain import asdict, dataclass, field, names_of, replace
from taskfarmer.workdir import Workdir

_NO_HEARTBEAT = (errno.ENOENT, errno.EISDIR, errno.ELOOP, errno.EACCES, errno.EINVAL, errno.EFBIG)
"""Errors that say that there is nothing to see here, now or later; any other may be the file system's."""
_LATEST = 1e11
"""Seconds since the epoch that can still be written as a date."""
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
LOOKS_OF_SUSPICION = 2
"""Looks at a heartbeat, after the first one, that must find it unchanged: one may follow a moment of hanging."""


def beat_of(lease: float, farmers: int = 1) -> float:
    """Seconds between heartbeats where a farmer is taken for dead after `lease` seconds of silence.

    Those of many `farmers` beat less often each, but eight times in a lease in any case: so whoever is seen to be
    silent for a lease has missed many beats, also where two looks at it are late.
    """
    least = min(LONGEST_BEAT, max(SHORTEST_BEAT, lease / 20))
    return max(least, min(lease / BEATS_OF_A_LEASE, farmers * OPERATIONS / OPERATIONS_OF_BEATS))


@dataclass(frozen=True)
class Identity:
    """Who a farmer is. `boot`, `pid_namespace` and `pid_start` make the pid unique on its node."""

    farmer: str
    host: str
    boot: str
    pid: int
    pid_start: str
    pid_namespace: int
    slots: int
    started: float
    version: str
    job: dict[str, str] = field(default_factory=dict)

    @property
    def job_name(self) -> str | None:
        """The scheduler's number of our job, an element of an array as `123_4`; None for none."""
        return scheduled.job_name(self.job)

    @property
    def runs(self) -> bool | None:
        """Whether the process of a farmer that shares our processes runs; None if that cannot be known."""
        return proc.runs(self.pid, self.pid_start)

    def shares_processes_with(self, other: Identity) -> bool:
        """Whether a pid is the same process for both: their host, boot and pid namespace are the same.

        Virtual machines that were resumed from one snapshot have the same boot id, and every kernel gives its first pid
        namespace the same number, so only the host name tells them apart.
        """
        mine, theirs = self._node, other._node
        return mine == theirs and all(mine)

    def is_in_container_beside(self, other: Identity) -> bool:
        """Whether both are on one kernel, in different pid namespaces."""
        (_, mine, here), (_, theirs, there) = self._node, other._node
        return mine == theirs != "" and here != there and bool(here and there)

    @property
    def _node(self) -> tuple[str, str, int]:
        return self.host, self.boot, self.pid_namespace


def _text(path: str) -> str:
    try:
        return durable.read(path).decode("ascii", "replace").strip()
    except OSError:
        return ""


def _namespace() -> int:
    try:
        return os.stat("/proc/self/ns/pid").st_ino
    except OSError:
        return 0


def short_name(host: str) -> str:
    """A host's name as it stands in a farmer's ID and in file names."""
    return "".join(letter if letter.isalnum() else "-" for letter in host.split(".")[0])[:32] or "host"


def introduce(slots: int, version: str, job: dict[str, str]) -> Identity:
    """The identity of this process as a new farmer."""
    host, pid = os.uname().nodename, os.getpid()
    return Identity(
        farmer=f"{short_name(host)}-{pid}-{durable.random_name()}",
        host=host,
        boot=_text("/proc/sys/kernel/random/boot_id"),
        pid=pid,
        pid_start=proc.start_of(pid) or "",
        pid_namespace=_namespace(),
        slots=slots,
        started=time.time(),
        version=version,
        job=job,
    )


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
            self._fd = durable.fresh(path, os.O_RDWR)
            if workdir.shared:
                durable.give(self._fd, durable.GROUP_WRITES)  # others try its lock, for which NFS wants that
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
    def shown(self) -> float | None:
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
            fd = durable.fresh(path, os.O_RDWR)
        except OSError:
            return  # it is there after all, or cannot be made now: the next heartbeat looks again
        if self.workdir.shared:
            durable.give(fd, durable.GROUP_WRITES)
        self.locked = locks.hold_alive(fd)
        os.dup2(fd, self._fd)  # it is the same open file, so the lock stays
        os.close(fd)
        self._size = 0
        self.beat()

    def learn(self, name: str, value: str) -> None:
        """Add something about our job to what others can read of us."""
        self.identity = replace(self.identity, job={**self.identity.job, name: value})
        try:
            durable.replace(
                self.workdir.identity(self.identity.farmer), sealed(asdict(self.identity)), self.workdir.shared
            )
        except OSError:
            pass  # it is for people

    def give_ballast(self) -> None:
        """Free the little room that was kept for the moment when the disk is full."""
        durable.forget(self.workdir.ballast(self.identity.farmer))

    def farewell(self, journal: str, size: int) -> None:
        """Leave the note that all our tasks have ended and our journal is complete: others settle `size` bytes of it.

        One file operation, and no sync: a note that is lost costs the others the time to find us dead.
        """
        path = self.workdir.farewell(self.identity.farmer)
        durable.write_new(path, sealed({"journal": journal, "bytes": size}), self.workdir.shared)

    def leave(self) -> None:
        """Take the signs of life away; who we were stays."""
        self.give_ballast()
        durable.forget(self.workdir.alive(self.identity.farmer))
        self.close()

    def close(self) -> None:
        if self._fd >= 0:
            fd, self._fd = self._fd, -1
            durable.let_go(fd)


def identity_of(workdir: Workdir, farmer: str) -> Identity | None:
    """Who a farmer is; None if its file is missing, damaged, or not as such files are."""
    try:
        document: dict[str, Any] = unsealed(durable.read(workdir.identity(farmer))) or {}
        # a later version may have more to say
        found = {name: document[name] for name in names_of(Identity) if name in document}
        return Identity(**found) if all(_may_be(name, value) for name, value in found.items()) else None
    except (OSError, TypeError):
        return None


def _may_be(name: str, value: object) -> bool:
    """Whether a member of an identity has its type and range."""
    if name in ("pid", "pid_namespace", "slots"):
        return members.is_whole(value)
    if name == "job":
        return members.is_texts(value)
    return members.is_number(value, most=_LATEST) if name == "started" else members.is_text(value)


def every_of(content: bytes) -> float:
    """The seconds between two beats that a heartbeat speaks of; 0 where it does not, or where it is torn."""
    every = (unsealed(content) or {}).get("every", 0.0)
    return float(every) if members.is_number(every) else 0.0  # type: ignore[arg-type]


@dataclass
class _Watched:
    content: bytes
    every: float
    silent: float = 0.0
    beats: bool = False
    looks: int = 0


class Watch:
    """What we have seen of other farmers' heartbeats, and for how long nothing changed."""

    def __init__(self, workdir: Workdir, me: Identity, lease: float) -> None:
        self.workdir = workdir
        self.me = me
        self.lease = lease
        self.beat = beat_of(lease)
        self._seen: dict[str, _Watched] = {}
        self._identities: dict[str, Identity | None] = {}
        self._looked: dict[str, float] = {}
        self._served = 0.0
        self._served_at = time.monotonic()

    def serve(self, now: float) -> None:
        """Count the time since the last call, after file operations of ours: an eighth of the lease at most."""
        self._served += min(now - self._served_at, max(self.lease / BEATS_OF_A_LEASE, self.beat))
        self._served_at = now

    def successors(self, farmers: Iterable[str], count: int = 2) -> list[str]:
        """The farmers after us in the order of IDs, around the ring."""
        others = sorted(farmer for farmer in farmers if farmer != self.me.farmer)
        after = [farmer for farmer in others if farmer > self.me.farmer]
        return (after + others)[: min(count, len(others))]

    def sample(self, farmers: Iterable[str], count: int) -> list[str]:
        """Our two successors and others from all over the ring: `count` in all, mostly the same as the last time.

        Each farmer has another sample, so that where many of one job are dead, next to each other in the ring, they
        are seen by all others together, and not one after the other by the one before them.
        """
        if count <= 2:
            return self.successors(farmers, count)
        near = self.successors(farmers)
        far = [farmer for farmer in farmers if farmer not in (*near, self.me.farmer)]
        far.sort(key=lambda farmer: zlib.crc32(f"{farmer} {self.me.farmer} {farmer}".encode()))
        return [*near, *far][:count]

    def suspects(self, farmers: Iterable[str]) -> list[str]:
        """Those whose death can be seen at once: on our own node, or with a farewell. One directory is listed."""
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
        """Look at a farmer's heartbeat; the seconds for which the file system served us since it changed."""
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
            every = every_of(content) or (seen.every if seen is not None else 0.0)
            self._seen[farmer] = _Watched(content, every, beats=seen is not None)
            return 0.0
        seen.looks += 1
        seen.silent += elapsed
        return seen.silent

    def identity(self, farmer: str) -> Identity | None:
        """Who a farmer is; None if its file cannot be read (yet)."""
        if self._identities.get(farmer) is None:
            self._identities[farmer] = identity_of(self.workdir, farmer)
        return self._identities[farmer]

    def seen_beating(self, farmer: str) -> bool:
        """Whether a farmer's heartbeat has changed while we looked."""
        seen = self._seen.get(farmer)
        return seen is not None and seen.beats

    def suspicious(self, farmer: str) -> float | None:
        """For how many seconds a farmer has been silent, if it has missed two beats; else None."""
        seen = self._seen.get(farmer)
        if seen is None or seen.looks < LOOKS_OF_SUSPICION or seen.silent < 2 * self._beat_of(seen):
            return None
        return seen.silent

    def _beat_of(self, seen: _Watched) -> float:
        """Seconds between two beats of theirs, which may know of more farmers, or of fewer, than we do."""
        return max(self.beat, min(seen.every, self.lease / BEATS_OF_A_LEASE))

    def verdict(self, farmer: str) -> str | None:
        """Why a farmer is dead, in words, or None while it may live."""
        if os.path.exists(self.workdir.farewell(farmer)):
            return "it said farewell"
        them = self.identity(farmer)
        silent = self.silence(farmer)
        if them is not None and self._gone_here(them):
            return f"its process {them.pid} on {them.host} is gone"
        if silent >= self.lease:
            return f"no sign of life for {silent:.0f} s"
        return None

    def _gone_here(self, them: Identity) -> bool:
        """Whether a farmer of this very node and pid namespace is gone, tasks and all."""
        if not them.shares_processes_with(self.me) or them.runs is not False:
            return False
        return locks.alive_is_free(self.workdir.alive(them.farmer))

    def forget(self, farmer: str) -> None:
        for known in (self._seen, self._identities, self._looked):
            known.pop(farmer, None)
