"""What an examination finds, as plain values; `judgement.py` says what they mean. Times are in seconds."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from taskfarmer.peers.lockproof import Verdict
from taskfarmer.storage.mountchecks import MountedPath

Exclusion = Literal["excludes", "fails", "unsupported"]
"""`fails` where two processes of one node had the lock at once."""
Agreement = Literal["agreed", "forked", "unknown"]
MOST_PARTNERS = 4
"""Other nodes that a doctor must have met, however many there are. With so many it talks on each side of the ring."""


@dataclass(frozen=True)
class Links:
    """A race of processes for names: each name must go to one, and stay with it.

    `forked` counts names that two were given or that changed hands, `unheard` names whose winner was told
    that it had lost (a lost reply, as NFS may have it: harmless, since winners are read).
    """

    names: int
    processes: int
    forked: int
    unheard: int
    unsupported: str | None = None


@dataclass(frozen=True)
class Renames:
    """A file that was replaced while another process read it: how often it was missing, or torn.

    `unseen` counts reads that did not find it at first, but a moment later: FUSE has that where the name was
    looked up before the exchange and opened after it, as NFS has stale handles.
    """

    replaced: int
    reads: int
    unseen: int
    missing: int
    torn: int


@dataclass(frozen=True)
class Times:
    """How long a thing took: the median and the longest of `count`."""

    count: int
    median: float
    longest: float


@dataclass(frozen=True)
class OneNode:
    """What one node can find out alone. `locks` is None where the lock directory cannot be used."""

    links: Links
    renames: Renames
    sync: Times
    directory_sync: bool
    commit: Times
    exclusion: Exclusion
    lock_exclusion: Exclusion | None
    lock_cycle: Times | None
    lock_trouble: str | None
    server_clock: float


@dataclass(frozen=True)
class Peer:
    """What was found out with one doctor on another node.

    `alive_lock` is the lock on a file of the work directory, `farm_lock` the one in the lock directory: None
    where that is the same directory. `contents` is how long after a write into a file the answer of the
    other node was read, there and back; `names` the same for a new file. `clock` is by how much the other
    node's clock is ahead, give or take `clock_error`. `same_machine` says that both have one kernel.
    """

    doctor: str
    host: str
    same_machine: bool
    alive_lock: Verdict
    farm_lock: Verdict | None
    farm_lock_seen: bool
    links: Agreement
    contents: Times | None
    names: float | None
    clock: float | None
    clock_error: float | None


@dataclass(frozen=True)
class Findings:
    """All that an examination found. `expected` is the number of nodes that were to take part."""

    doctor: str
    host: str
    directory: MountedPath
    lock_directory: MountedPath
    here: OneNode
    expected: int
    waited: float
    peers: tuple[Peer, ...]

    @property
    def separate_locks(self) -> bool:
        return self.lock_directory.path != self.directory.path
