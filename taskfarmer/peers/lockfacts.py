"""`locks.json`: the result of the lock proofs, stored in the farm for people."""

from __future__ import annotations

from taskfarmer.formats import members
from taskfarmer.formats.sealed import sealed, unsealed
from taskfarmer.peers.lockproof import Verdict
from taskfarmer.storage import durable
from taskfarmer.storage.layout import Workdir


def save(workdir: Workdir, verdict: Verdict, here: str, there: str) -> None:
    """Store a result. A result that locks are not shared between two nodes replaces one that they are."""
    before = load(workdir)
    if before is not None and (before[0] != "shared" or verdict == "shared"):
        return
    try:
        durable.replace(workdir.locks, sealed({"locks": verdict, "between": [here, there]}), workdir.shared)
    except OSError:
        pass  # only people read it


def load(workdir: Workdir) -> tuple[str, list[str]] | None:
    """`shared`, `local` or `unsupported`, and the two hosts; None if nothing was proven yet."""
    try:
        document = unsealed(durable.read(workdir.locks)) or {}
    except OSError:
        return None
    verdict, between = document.get("locks"), document.get("between")
    if verdict not in ("shared", "local", "unsupported") or not isinstance(between, list):
        return None
    return str(verdict), [host for host in between[:2] if members.is_text(host)]
