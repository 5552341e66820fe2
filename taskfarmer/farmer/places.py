"""The context that all slots of a farmer share, made of its settings and its farm."""

from __future__ import annotations

import os

from taskfarmer.errors import StorageError, remedy
from taskfarmer.ledger import logowner
from taskfarmer.ledger.ledger import Ledger
from taskfarmer.options import Reporter, Settings
from taskfarmer.peers import scheduled
from taskfarmer.peers.identity import Identity
from taskfarmer.storage.layout import Workdir
from taskfarmer.worker.context import SlotContext


def first_slot_context(
    settings: Settings, reporter: Reporter, workdir: Workdir, ledger: Ledger, identity: Identity
) -> SlotContext:
    """The context of slot 0; those of other slots differ only in `slot` and `deadline`. Opens the log directory."""
    try:
        logs_fd = os.open(workdir.logs, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        advice = remedy(error, "create an empty directory there")
        raise StorageError(f"{workdir.logs}: {error.strerror}; logs cannot be written; {advice}") from error
    owner = logowner.claim(workdir, ledger.farm.farm)
    if not owner:
        reporter.warning(
            f"--logs-dir: {workdir.logs} contains logs of another farm: they are kept, and each task's output "
            "starts with a header line; `taskfarmer logs` shows the output of this farm only"
        )
    return SlotContext(
        slot=0,
        farmer=identity.farmer,
        host=identity.host,
        workdir=workdir.path,
        logs=workdir.logs,
        logs_fd=logs_fd,
        hidden=scheduled.of_a_step(os.environb) if settings.clean_env else frozenset(),
        shared=workdir.shared,
        log_mode=settings.logs,
        log_limit=settings.log_limit,
        farm=ledger.farm.farm,
        own_logs=workdir.has_own_logs,
        all_headers=not owner,
        lease=ledger.farm.lease,
    )
