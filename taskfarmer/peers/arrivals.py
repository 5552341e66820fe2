"""Farmers that show themselves and are in no revision: about to join, or about to go after they left the ledger.

One that is killed then is expelled by nobody, since the ledger does not know it. So the last farmer of a farm removes
the signs of life of those that are dead: on evidence, or if they are so old that no living farmer's are. A farmer that
slept for that long before its first commit finds its own missing at its next heartbeat, and makes them again.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Container

from taskfarmer.errors import hit_a_limit
from taskfarmer.peers.identity import Identity
from taskfarmer.peers.watch import Watch
from taskfarmer.storage import durable
from taskfarmer.storage.layout import Workdir

MOST = 256
"""Such farmers that are looked at in one go: thousands may leave at once."""
_ENDS = (".alive", ".ballast", ".farewell")
_SLACK = 600.0
"""Seconds by which the clocks of a node and of the file server may differ."""


def unregistered(workdir: Workdir, registered: Container[str], ends: tuple[str, ...] = _ENDS) -> list[str]:
    """Farmers with a sign of life that are not registered. One directory is listed."""
    try:
        names = os.listdir(workdir.farmers)
    except OSError as error:
        if hit_a_limit(error):
            raise
        return []
    found = {name.removesuffix(end) for name in names for end in ends if name.endswith(end)}
    return sorted(farmer for farmer in found if farmer not in registered and not farmer.startswith("."))


def is_gone(workdir: Workdir, me: Identity, farmer: str, lease: float = math.inf, now: float | None = None) -> bool:
    """Whether such a farmer is dead: by evidence on this node, or as its signs are older than two leases.

    `now` is the time of the file server, as far as it is known.
    """
    watch = Watch(workdir, me, lease)
    if watch.verdict(farmer) is not None:
        return True
    them = watch.identity(farmer)
    if now is None or (them is not None and them.shares_processes_with(me) and them.runs is not False):
        return False
    times = [_changed(sign(farmer)) for sign in (workdir.alive, workdir.ballast, workdir.farewell)]
    return now - max(times) > 2 * lease + _SLACK


def _changed(path: str) -> float:
    """When a file was written last, by the clock of its server; never if there is none."""
    try:
        return os.stat(path).st_mtime
    except OSError:
        return -math.inf


def forget(workdir: Workdir, farmer: str) -> None:
    """Remove the signs of life of a farmer; who it was stays."""
    for sign in (workdir.ballast, workdir.farewell, workdir.alive):
        durable.unlink_quietly(sign(farmer))


def sweep(
    workdir: Workdir,
    me: Identity,
    registered: Container[str],
    lease: float,
    now: float | None,
    between: Callable[[], None] = lambda: None,
) -> list[str]:
    """Remove the signs of life of unregistered farmers that are dead; their names.

    `between` is called between file operations.
    """
    others = [farmer for farmer in unregistered(workdir, registered) if farmer != me.farmer]
    gone = []
    for farmer in others[:MOST]:
        between()
        if is_gone(workdir, me, farmer, lease, now):
            forget(workdir, farmer)
            gone.append(farmer)
    return gone
