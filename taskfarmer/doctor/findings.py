"""The results of an examination as plain values; `judgement.py` interprets them. Times are in seconds."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from taskfarmer.peers.lockproof import Verdict
from taskfarmer.storage.mountchecks import MountedPath

Exclusion = Literal["excludes", "fails", "unsupported"]
"""`fails`: two processes of one node held the lock at the same time."""
Agreement = Literal["agreed", "forked", "unknown"]
MOST_PARTNERS = 4
"""A doctor needs to meet at most this many other nodes. On each side of the ring, it talks to this many doctors."""


@dataclass(frozen=True)
class Links:
    """A race of processes for names: each name must have one winner, and keep it.

    `forked` counts names with two winners or with a winner that changed. `unheard` counts names whose winner got an
    error (a lost reply of an NFS server: harmless, because farmers read the winner's name from the file).
    """

    names: int
    processes: int
    forked: int
    unheard: int
    unsupported: str | None = None


@dataclass(frozen=True)
class Renames:
    """A file that was replaced while another process read it: how often it was missing or torn.

    `unseen` counts reads that found the file only after a retry: FUSE shows this if the name was looked up before the
    replacement and opened after it, like a stale handle of NFS.
    """

    replaced: int
    reads: int
    unseen: int
    missing: int
    torn: int


@dataclass(frozen=True)
class Times:
    """Durations of `count` operations: the median and the longest."""

    count: int
    median: float
    longest: float


@dataclass(frozen=True)
class OneNode:
    """The results of one node alone. `lock_exclusion` and `lock_cycle` need a usable lock directory, else None."""

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
    """The results of the tests with one doctor on another node.

    `alive_lock` is the lock on a file of the work directory, `farm_lock` the one in the lock directory, None if both
    are the same directory. `contents` is the round trip time of a write into a file, `names` that of a new file.
    The other node's clock is ahead by `clock`, plus or minus `clock_error`. `same_machine`: both run on one kernel.
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
    """All results of an examination. `expected` is the number of nodes that should take part."""

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
