"""The order to stop: one file, `stop`, that names the farmers it is for.

It is written by `taskfarmer stop` and read by each farmer at its heartbeats. It names farmers, so that those
that are started later do not stop of it.
"""

from __future__ import annotations

from collections.abc import Iterable

from taskfarmer.errors import AGAIN, StorageError, remedy
from taskfarmer.formats import members
from taskfarmer.formats.sealed import sealed, unsealed
from taskfarmer.ledger.state import State
from taskfarmer.peers import arrivals
from taskfarmer.peers.identity import new_identity
from taskfarmer.storage import durable
from taskfarmer.storage.layout import Workdir


def farmers_at_work(workdir: Workdir, state: State) -> list[str]:
    """Those that the ledger knows, and those that have come and taken nothing yet, unless they are known to be dead."""
    me = new_identity(0, "", {})
    arriving = arrivals.unregistered(workdir, state.farmers, (".alive",))
    return sorted({*state.farmers, *(one for one in arriving if not arrivals.is_gone(workdir, me, one))})


def request_stop(workdir: Workdir, farmers: Iterable[str], now: bool) -> None:
    """Tell `farmers` to stop; `now` leaves their tasks no time. Those that an earlier order named are named again."""
    before, at_once = _order(workdir)
    named = sorted({*farmers, *(before if at_once == now else ())})
    try:
        durable.replace(workdir.stop, sealed({"farmers": named, "now": now}), workdir.shared)
    except OSError as error:
        raise StorageError(
            f"{workdir.stop}: {error.strerror}; the farmers were not told to stop; {remedy(error, AGAIN)}"
        ) from error


def stop_requested(workdir: Workdir, farmer: str) -> str | None:
    """`stop` or `stop --now` where this farmer was told so."""
    farmers, now = _order(workdir)
    if farmer not in farmers:
        return None
    return "stop --now" if now else "stop"


def _order(workdir: Workdir) -> tuple[list[str], bool]:
    try:
        document = unsealed(durable.read(workdir.stop))
    except OSError:
        document = None
    farmers = document.get("farmers") if document else None
    if not isinstance(farmers, list) or not all(map(members.is_name, farmers)):
        return [], False
    return farmers, bool(document and document.get("now"))
