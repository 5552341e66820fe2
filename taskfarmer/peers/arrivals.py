"""Farmers with a heartbeat that are not in the ledger: about to join, or about to leave.

If such a farmer is killed, no farmer expels it, since the ledger does not list it. So the last farmer of a farm removes
its files if there is evidence that it is dead, or if they are older than those of any living farmer. A farmer that
slept for that long before its first commit finds its own file missing at its next heartbeat, and creates it again.
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
"""Maximum number of such farmers to check at once: thousands may leave together."""
_ENDS = (".alive", ".ballast", ".farewell")
_SLACK = 600.0
"""Maximum difference in seconds between the clocks of a node and the file server."""


def unregistered(workdir: Workdir, registered: Container[str], ends: tuple[str, ...] = _ENDS) -> list[str]:
    """Farmers with files in `farmers/` that are not registered. One directory is listed."""
    try:
        names = os.listdir(workdir.farmers)
    except OSError as error:
        if hit_a_limit(error):
            raise
        return []
    found = {name.removesuffix(end) for name in names for end in ends if name.endswith(end)}
    return sorted(farmer for farmer in found if farmer not in registered and not farmer.startswith("."))


def is_gone(workdir: Workdir, me: Identity, farmer: str, lease: float = math.inf, now: float | None = None) -> bool:
    """Whether such a farmer is dead: by evidence on this node, or since its files are older than two leases.

    `now` is the time of the file server, if known.
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
    """The time of the last write to a file, by the clock of its server; minus infinity if it is missing."""
    try:
        return os.stat(path).st_mtime
    except OSError:
        return -math.inf


def forget(workdir: Workdir, farmer: str) -> None:
    """Remove a farmer's files, except its identity."""
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
    """Remove the files of unregistered farmers that are dead; their names.

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
