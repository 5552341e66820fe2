"""Epochs: the directories that contain the revisions. They are created and removed as a whole.

A new epoch is complete and durable before a revision names it. The last but one is removed when a new epoch is named:
`tmp/` first, so that a farmer that slept since has no file left to link, then its revisions from the lowest number on,
then the directory. Files that appear meanwhile stay for the next sweep.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping

from taskfarmer.formats.sealed import unsealed
from taskfarmer.ledger.state import Entry
from taskfarmer.storage import durable
from taskfarmer.storage.layout import Workdir, epoch_name, epoch_number, is_revision

CLOSED_AT_ONCE = 256


def after(epoch: str) -> int:
    return (epoch_number(epoch) or 0) + 1


def make(workdir: Workdir, number: int) -> str:
    """Create a new, empty, durable epoch; its name."""
    name = epoch_name(number, durable.random_name())
    durable.make_directory(workdir.epoch(name), workdir.shared)
    durable.make_directory(workdir.prepared(name), workdir.shared)
    return name


def drop(workdir: Workdir, name: str) -> None:
    """Remove an epoch that no revision names, if it is empty."""
    for path in (workdir.prepared(name), workdir.epoch(name)):
        try:
            os.rmdir(path)
        except OSError:
            return


def _nothing() -> None:
    """The default for `between`."""


def sweep(workdir: Workdir, current: str, farm: str, between: Callable[[], None] = _nothing) -> None:
    """Remove the epochs of this farm that are two or more before `current`. Errors are left to the next sweep.

    If we slept before this, the directory may contain another farm: epochs that may not be ours are left alone.
    `between` is called between file operations.
    """
    limit = after(current) - 2
    try:
        names = os.listdir(workdir.ledger)
    except OSError:
        return
    for name in names:
        number = epoch_number(name)
        if number is not None and number < limit and _is_of(workdir, name, farm):
            remove(workdir, name, between)


def _is_of(workdir: Workdir, name: str, farm: str) -> bool:
    """Whether an epoch belongs to this farm, by a revision in it; if it has no revision, by `farm.json`."""
    try:
        numbers = [int(entry) for entry in os.listdir(workdir.epoch(name)) if is_revision(entry)]
        path = workdir.revision(name, max(numbers)) if numbers else workdir.farm
        document = unsealed(durable.read(path))
    except OSError:
        return False
    return document is not None and document.get("farm") == farm


def remove(workdir: Workdir, name: str, between: Callable[[], None] = _nothing) -> None:
    """Remove an epoch with its revisions; the rest stays after the first error."""
    prepared = workdir.prepared(name)
    try:
        for entry in os.listdir(prepared):
            between()
            durable.unlink_quietly(os.path.join(prepared, entry))
        os.rmdir(prepared)
    except FileNotFoundError:
        pass
    except OSError:
        return
    try:
        entries = os.listdir(workdir.epoch(name))
        for revision in sorted(filter(is_revision, entries), key=int):
            between()
            os.unlink(os.path.join(workdir.epoch(name), revision))
        os.rmdir(workdir.epoch(name))
    except OSError:
        pass


def close_journals(
    workdir: Workdir,
    departed: Mapping[str, int],
    farmers: Mapping[str, Entry],
    between: Callable[[], None] = _nothing,
) -> dict[str, int]:
    """Add the counted length to the names of journals of departed farmers; the lengths of those that are done.

    This happens before a revision forgets these lengths. Doing it twice, or for a commit that is lost, has no effect,
    since the counted length of a departed journal never changes.
    """
    in_use = {entry.journal for entry in farmers.values()}
    closed: dict[str, int] = {}
    for name, size in list(departed.items())[:CLOSED_AT_ONCE]:
        if name in in_use:
            continue
        between()
        target = workdir.closed_journal(name, size)
        try:
            os.rename(workdir.journal(name), target)
        except FileNotFoundError:
            if not os.path.exists(target):
                continue
        except OSError:
            continue
        closed[name] = size
    if closed:
        durable.sync_directory(workdir.results)
    return closed
