"""What a farmer can find out beside its work: what the mounts say, and whether a neighbour's lock is shared.

A farmer holds the lock on its alive file all its life, and its heartbeat says so. One of another node that
reads the heartbeat anyway proves the lock with one try and some more readings, and waits for nothing.
"""

from __future__ import annotations

import os

from taskfarmer import durable
from taskfarmer.doctor.findings import Place
from taskfarmer.doctor.judgement import Check, judge_places
from taskfarmer.doctor.lockproof import LockProof, Sign, Verdict
from taskfarmer.doctor.mounts import mount_of
from taskfarmer.doctor.trial import try_lock
from taskfarmer.model import unsealed


def glance(directory: str, locks: str) -> list[Check]:
    """What can be said of work directory and lock directory without writing anything: type, options, place."""
    directory, locks = os.path.abspath(directory), os.path.abspath(locks)
    mount = mount_of(directory)
    return judge_places(Place(directory, mount), Place(locks, mount if locks == directory else mount_of(locks)))


def prove_lock(proof: LockProof, alive: str, now: float) -> Verdict:
    """One step of the proof with the alive file of a farmer on another node; to be called at every look at it.

    `now` is on our own steady clock. A heartbeat without `"held": true` proves nothing, ever.
    """
    try:
        document = unsealed(durable.read(alive))
        sign = _sign(document) if document is not None else None
        proof.look(sign, now)
        if proof.ready:
            proof.tried(try_lock(alive), now)
    except OSError:
        pass  # gone, or not to be read now
    return proof.verdict


def _sign(document: dict[str, object]) -> Sign | None:
    beat = document.get("beat")
    return Sign(beat, document.get("held") is True) if isinstance(beat, int) else None
