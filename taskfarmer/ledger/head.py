"""`ledger/HEAD`: a hint for finding the newest revision. It may be torn, old or missing; no decision depends on it."""

from __future__ import annotations

import os

from taskfarmer.formats import limits
from taskfarmer.storage import durable
from taskfarmer.storage.layout import Workdir, epoch_number


def read(workdir: Workdir) -> tuple[str, int]:
    """The epoch and number of a revision; ValueError or OSError if the hint is unusable."""
    epoch, number = durable.read(workdir.head).decode().split()
    if epoch_number(epoch) is None or len(number) > limits.DIGITS:
        raise ValueError(epoch)
    return epoch, int(number)


def write(workdir: Workdir, epoch: str, number: int) -> None:
    """Write the hint in place: 64 bytes, so that a reader needs one operation."""
    text = f"{epoch} {number}".ljust(63) + "\n"
    try:
        flags = os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
        fd = os.open(workdir.head, flags, durable.FILE_MODE)
        try:
            if workdir.shared:
                durable.grant_group(fd, durable.GROUP_WRITES)
            os.pwrite(fd, text.encode(), 0)
        finally:
            os.close(fd)
    except OSError:
        pass
