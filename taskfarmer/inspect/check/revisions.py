"""The farm's identity and its revisions: the check reads all revisions and relies on the newest."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import replace
from typing import NamedTuple

from taskfarmer.errors import Damaged, NotAFarm, StorageError
from taskfarmer.formats.sealed import unsealed
from taskfarmer.inspect.check.report import FindingLog, Unreadable, names_in, refuse_if_limited
from taskfarmer.ledger import farmfile, head
from taskfarmer.ledger.document import decode
from taskfarmer.ledger.state import State
from taskfarmer.storage import durable
from taskfarmer.storage.layout import Workdir, epoch_number, is_revision


class Newest(NamedTuple):
    """The newest revision; `path` is for messages."""

    path: str
    state: State


def read_farm(workdir: Workdir, findings: FindingLog) -> farmfile.Farm:
    """The farm that `farm.json` describes; NotAFarm if the directory does not contain a farm."""
    try:
        return farmfile.require(workdir)
    except (Damaged, StorageError, NotAFarm) as error:
        if isinstance(error, NotAFarm) and not isinstance(error.__cause__, PermissionError):
            raise
        findings.add_error(error)
        raise Unreadable from error


def newest_revision(workdir: Workdir, farm: str, findings: FindingLog) -> Newest:
    """Read all revisions; return the newest intact one."""
    found: dict[int, list[str]] = {}
    newest: Newest | None = None
    foreign = False
    corrupt = -1
    for epoch, number in _names(workdir, findings):
        path = workdir.revision(epoch, number)
        try:
            document = unsealed(durable.read(path))
        except FileNotFoundError:
            if not os.path.islink(path):
                continue  # removed together with its epoch after the names were read
            document = None
        except OSError as error:
            refuse_if_limited(path, error)
            found.setdefault(number, []).append(epoch)
            findings.add(path, f"{error.strerror}; cannot read this revision")
            continue
        if document is not None and document.get("farm") != farm:
            foreign = True
            findings.add(path, "belongs to another farm; nothing refers to it", note=True)
            continue
        found.setdefault(number, []).append(epoch)
        if document is None:
            findings.add(path, "corrupt revision (checksum mismatch)")
            continue
        try:
            state = decode(path, document)
        except Damaged as error:
            findings.add_error(error)
            corrupt = max(corrupt, number)
            continue
        if state.revision != number:
            findings.add(path, f"contains revision {state.revision} instead of {number}")
            state = replace(state, revision=number)
        if newest is None or number >= newest.state.revision:
            newest = Newest(path, state)
    if corrupt > (newest.state.revision if newest else -1):
        raise Unreadable
    if newest is None and foreign:
        raise findings.fatal(workdir.farm, "belongs to another farm than the ledger")
    if newest is None:
        raise findings.fatal(workdir.ledger, "no intact revision of this farm found")
    _check_newest(workdir, newest.state, max(found), findings)
    _check_chain(workdir, newest.state, found, findings)
    return newest


def _names(workdir: Workdir, findings: FindingLog) -> Iterator[tuple[str, int]]:
    """Epoch and number of each revision."""
    try:
        epochs = sorted(name for name in names_in(workdir.ledger) if epoch_number(name) is not None)
    except OSError as error:
        raise findings.fatal(workdir.ledger, f"{error.strerror}; cannot read the ledger") from error
    for epoch in epochs:
        try:
            numbers = [int(name) for name in names_in(workdir.epoch(epoch)) if is_revision(name)]
        except FileNotFoundError:
            if os.path.islink(workdir.epoch(epoch)):
                findings.add(workdir.epoch(epoch), "a dangling symbolic link")
            continue  # otherwise the epoch was removed after the names were read
        except OSError as error:
            findings.add(workdir.epoch(epoch), f"{error.strerror}; cannot read its revisions")
            continue
        for number in sorted(numbers):
            yield epoch, number


def _check_newest(workdir: Workdir, state: State, highest: int, findings: FindingLog) -> None:
    """Check that the newest revision is the last one written, and that another one can follow it."""
    for folder in (workdir.epoch(state.epoch), workdir.prepared(state.epoch)):
        try:
            names_in(folder)
        except OSError as error:
            findings.add(folder, f"{error.strerror}; no farmer can commit")
            break
    try:
        epoch, number = head.read(workdir)
    except (OSError, ValueError):
        return  # HEAD is only a hint
    path = workdir.revision(epoch, number)
    # a revision that exists now was committed after the names were read
    if number > highest and os.path.isdir(workdir.epoch(epoch)) and not os.path.lexists(path):
        findings.add(path, f"missing, but {workdir.head} refers to it: the newest revision is lost")


def _check_chain(workdir: Workdir, state: State, found: dict[int, list[str]], findings: FindingLog) -> None:
    """Check that revisions have no gaps, except in an old epoch that is being removed."""
    lowest = max(found)
    while lowest - 1 in found:
        lowest -= 1
    oldest = (epoch_number(state.epoch) or 0) - 1
    for number, epochs in sorted(found.items()):
        path = workdir.revision(epochs[-1], number)
        if len(epochs) > 1:
            findings.add(path, f"this revision exists twice, also in epoch {epochs[0]}")
        elif number < lowest and (epoch_number(epochs[0]) or 0) < oldest:
            findings.add(path, "left over from an old epoch", f"left over in epoch {epochs[0]}", note=True)
        elif number < lowest:
            findings.add(path, f"a revision between this one and {lowest} is missing")
