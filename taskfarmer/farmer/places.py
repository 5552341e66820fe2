"""What all slots of a farmer have in common, from its settings and its farm; the directory of the logs is opened."""

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


def first_place(
    settings: Settings, reporter: Reporter, workdir: Workdir, ledger: Ledger, identity: Identity
) -> SlotContext:
    """The place of slot 0; those of other slots differ in the slot and in when the farmer ends."""
    try:
        logs_fd = os.open(workdir.logs, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        what = f"logs cannot be written; {remedy(error, 'an empty folder will do')}"
        raise StorageError(f"{workdir.logs}: {error.strerror}; {what}") from error
    owner = logowner.claim(workdir, ledger.farm.farm)
    if not owner:
        reporter.warning(
            f"--logs-dir: {workdir.logs} has logs that are not this farm's: they are kept, and each task's output "
            "begins with a header line; `taskfarmer logs` shows the parts of this farm"
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
