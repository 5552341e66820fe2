"""Proofs that a farmer makes during its work: whether locks exclude between it and each node that it meets.

The result is stored in the farm for people (`locks.json`). It is evidence only between containers of one node: if the
file system belongs to this kernel alone, a farmer in another pid namespace whose lock is free has ended, with all its
tasks. Between two kernels a free lock proves nothing: servers drop the locks of silent clients, NFSv4 and Ceph after a
minute or two, and such a client may only be disconnected.
"""

from __future__ import annotations

import os

from taskfarmer.formats.sealed import unsealed
from taskfarmer.options import Reporter
from taskfarmer.peers.identity import Identity
from taskfarmer.peers.lockfacts import save
from taskfarmer.peers.lockproof import STALENESS, LockProof, Sign, Verdict
from taskfarmer.peers.trylock import try_lock
from taskfarmer.storage import durable, locks
from taskfarmer.storage.filesystems import fs_facts
from taskfarmer.storage.layout import Workdir
from taskfarmer.storage.mountchecks import quick_checks
from taskfarmer.storage.mounts import mount_of

_Node = tuple[str, str, int]


def report_mounts(reporter: Reporter, directory: str, lock: str) -> None:
    """Warn of known problems of the mounts of a farm and its lock; other facts are details."""
    for check in quick_checks(directory, lock):
        log = reporter.warning if check.state in ("slow", "unsafe") else reporter.detail
        log(f"{check.name}: {check.found}: {check.means}")


def prove_lock(proof: LockProof, alive: str, now: float) -> Verdict:
    """One step of the proof with the alive file of a farmer on another node; to be called at each look at it.

    `now` is on our monotonic clock. A heartbeat without `"held": true` proves nothing.
    """
    try:
        document = unsealed(durable.read(alive))
        sign = _sign(document) if document is not None else None
        proof.observe(sign, now)
        if proof.ready:
            proof.record_answer(try_lock(alive), now)
    except OSError:
        pass  # gone, or not readable now
    return proof.verdict


def _sign(document: dict[str, object]) -> Sign | None:
    beat = document.get("beat")
    return Sign(beat, document.get("held") is True) if isinstance(beat, int) else None


def node_of(identity: Identity) -> _Node:
    return identity.host, identity.boot, identity.pid_namespace


class LockProofs:
    """A proof for each node that we meet, with the alive file of one of its farmers at a time."""

    def __init__(self, workdir: Workdir, me: Identity, lease: float) -> None:
        self.workdir = workdir
        self.me = me
        self._staleness = min(STALENESS, lease / 5)
        self.verdicts: dict[_Node, Verdict] = {}
        self._proofs: dict[str, LockProof] = {}
        self._of_one_kernel: bool | None = None

    def observe(self, them: Identity, now: float) -> None:
        """One step of the proof with a farmer of another node."""
        node = node_of(them)
        if node == node_of(self.me) or node in self.verdicts:
            return
        proof = self._proofs.setdefault(them.farmer, LockProof(self._staleness))
        verdict = prove_lock(proof, self.workdir.alive(them.farmer), now)
        if verdict != "unknown":
            self.verdicts[node] = verdict
            self._proofs.clear()
            save(self.workdir, verdict, self.me.host, them.host)

    def forget(self, farmer: str) -> None:
        self._proofs.pop(farmer, None)

    def has_ended(self, them: Identity) -> bool:
        """Whether a farmer in another container of this node has ended with all its tasks, as its free lock proves."""
        if not them.is_in_container_beside(self.me) or self.verdicts.get(node_of(them)) != "shared":
            return False
        if self._of_one_kernel is None:
            self._of_one_kernel = fs_facts(mount_of(self.workdir.farmers)).shared is False
        alive = self.workdir.alive(them.farmer)
        # if a purge has removed the file, its lock is not free
        return self._of_one_kernel and os.path.exists(alive) and locks.alive_is_free(alive)
