"""The stop request: one file, `stop`, with the names of the farmers that are to stop.

`taskfarmer stop` writes it, and each farmer reads it at its heartbeats. Since it names farmers, it does not stop those
that start later.
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
    """Farmers in the ledger, and those that have not claimed tasks yet, unless they are known to be dead."""
    me = new_identity(0, "", {})
    arriving = arrivals.unregistered(workdir, state.farmers, (".alive",))
    return sorted({*state.farmers, *(one for one in arriving if not arrivals.is_gone(workdir, me, one))})


def request_stop(workdir: Workdir, farmers: Iterable[str], now: bool) -> None:
    """Ask `farmers` to stop; with `now` their tasks get no grace time. Earlier requests stay in the file."""
    before, at_once = _read_request(workdir)
    named = sorted({*farmers, *(before if at_once == now else ())})
    try:
        durable.replace(workdir.stop, sealed({"farmers": named, "now": now}), workdir.shared)
    except OSError as error:
        raise StorageError(
            f"{workdir.stop}: {error.strerror}; stop request not written; {remedy(error, AGAIN)}"
        ) from error


def stop_requested(workdir: Workdir, farmer: str) -> str | None:
    """`stop` or `stop --now` if this farmer is to stop, else None."""
    farmers, now = _read_request(workdir)
    if farmer not in farmers:
        return None
    return "stop --now" if now else "stop"


def _read_request(workdir: Workdir) -> tuple[list[str], bool]:
    """The farmers in the stop file, and whether they are to stop at once."""
    try:
        document = unsealed(durable.read(workdir.stop))
    except OSError:
        document = None
    farmers = document.get("farmers") if document else None
    if not isinstance(farmers, list) or not all(map(members.is_name, farmers)):
        return [], False
    return farmers, bool(document and document.get("now"))
