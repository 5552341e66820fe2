"""The farm's identity, and its revisions: all that are there are read, and the newest is believed."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any, NamedTuple

from taskfarmer.errors import NotAFarm
from taskfarmer.formats import members
from taskfarmer.formats.sealed import unsealed
from taskfarmer.inspect.check.documents import FARM, wrong_in_revision, wrong_members
from taskfarmer.inspect.check.report import MOST, ProblemLog, Unreadable, names_in, read
from taskfarmer.storage.layout import Workdir, epoch_number, is_revision

FORMAT = 1


class Span(NamedTuple):
    """A segment as the ledger names it: `tasks` tasks from ID `first` on, of which `given_out` were taken.

    `source_crc` is the checksum of its `.source`, "" if it has none.
    """

    file: str
    first: int
    tasks: int
    given_out: int
    source_crc: str


class Snapshot(NamedTuple):
    """The newest revision. `sizes` are bytes that count, by journal; `path` is for messages."""

    number: int
    path: str
    epoch: str
    segments: tuple[Span, ...]
    returned: str
    claims: dict[str, str]
    sizes: dict[str, int]
    closed_bytes: int
    finished: int
    failed: int


class FarmFacts(NamedTuple):
    """What `farm.json` says, as far as it matters here: its ID, the folder of its logs, the lease in seconds."""

    farm: str
    logs: str | None
    lease: float


def read_farm(workdir: Workdir, findings: ProblemLog) -> FarmFacts:
    """The farm that `farm.json` describes."""
    path = workdir.farm
    try:
        document = unsealed(read(path))
    except (FileNotFoundError, NotADirectoryError) as error:
        if os.path.islink(path):
            raise findings.give_up(path, "a symbolic link to nowhere") from error
        raise NotAFarm(f"{workdir.path}: no farm here (no farm.json); name the work directory of a task list") from None
    except OSError as error:
        raise findings.give_up(path, f"{error.strerror}; the farm cannot be read") from error
    if document is None:
        raise findings.give_up(path, "damaged: not what was written into it (wrong checksum)")
    _refuse_newer(path, document)
    wrong = list(wrong_members(document, FARM))
    for text in wrong:
        findings.tell(path, f"not as farms are: {text}", "wrong members")
    if wrong:
        raise Unreadable
    farm: dict[str, Any] = document
    return FarmFacts(farm["farm"], farm.get("logs"), farm["lease"])


def _refuse_newer(path: str, document: dict[str, Any]) -> None:
    if document.get("format") != FORMAT:
        found = members.shown(document.get("format"))
        raise NotAFarm(f"{path}: format {found}, and this version knows format {FORMAT}; use a newer taskfarmer")


def newest_revision(workdir: Workdir, farm: str, findings: ProblemLog) -> Snapshot:
    """Read every revision that is there; the newest whole one."""
    there: dict[int, list[str]] = {}
    newest: tuple[int, str, dict[str, Any]] | None = None
    foreign = 0
    damaged: set[int] = set()
    for epoch, number in _names(workdir, findings):
        path = workdir.revision(epoch, number)
        try:
            document = unsealed(read(path))
        except FileNotFoundError:
            if not os.path.islink(path):
                continue  # removed with its epoch since it was listed
            document = None
        except OSError as error:
            there.setdefault(number, []).append(epoch)
            findings.tell(path, f"{error.strerror}; a revision that cannot be read")
            continue
        if document is not None and document.get("farm") != farm:
            foreign += 1
            findings.tell(path, "is of another farm; nothing names it", note=True)
            continue
        there.setdefault(number, []).append(epoch)
        if document is None:
            findings.tell(path, "a damaged revision: not what was written into it (wrong checksum)")
            continue
        _refuse_newer(path, document)
        if document.get("revision") != number:
            findings.tell(path, f"says that it is revision {members.shown(document.get('revision'))}")
        wrong = list(wrong_in_revision(document))
        for text in wrong[:MOST]:
            findings.tell(path, f"not as revisions are: {text}")
        if wrong:
            damaged.add(number)
        if newest is None or number >= newest[0]:
            newest = number, path, document
    if newest is None and foreign:
        raise findings.give_up(workdir.farm, "is of another farm than the ledger")
    if newest is None:
        raise findings.give_up(workdir.ledger, "there is no whole revision of this farm")
    if newest[0] in damaged:
        raise Unreadable
    snapshot = _snapshot(*newest)
    _check_newest(workdir, snapshot, there, findings)
    _check_chain(workdir, snapshot, there, findings)
    return snapshot


def _names(workdir: Workdir, findings: ProblemLog) -> Iterator[tuple[str, int]]:
    """Epoch and number of every revision."""
    try:
        epochs = sorted(name for name in names_in(workdir.ledger) if epoch_number(name) is not None)
    except OSError as error:
        raise findings.give_up(workdir.ledger, f"{error.strerror}; the ledger cannot be read") from error
    for epoch in epochs:
        try:
            numbers = [int(name) for name in names_in(workdir.epoch(epoch)) if is_revision(name)]
        except FileNotFoundError:
            if os.path.islink(workdir.epoch(epoch)):
                findings.tell(workdir.epoch(epoch), "a symbolic link to nowhere")
            continue  # else removed since it was listed
        except OSError as error:
            findings.tell(workdir.epoch(epoch), f"{error.strerror}; its revisions cannot be read")
            continue
        for number in sorted(numbers):
            yield epoch, number


def _snapshot(number: int, path: str, document: dict[str, Any]) -> Snapshot:
    farmers = document["farmers"]
    sizes = {entry[4] if len(entry) > 4 else name: entry[2] for name, entry in farmers.items()}
    return Snapshot(
        number,
        path,
        document["epoch"],
        tuple(
            Span(one["file"], one["first"], one["tasks"], one["next"], one.get("source_crc", ""))
            for one in document["segments"]
        ),
        document["returned"],
        {name: entry[1] for name, entry in farmers.items()},
        {**sizes, **document["departed"]},
        document["closed_bytes"],
        document["finished"],
        document["failed"],
    )


def _check_newest(workdir: Workdir, snapshot: Snapshot, there: dict[int, list[str]], findings: ProblemLog) -> None:
    """Whether the newest revision that is there can be the last that was written, and can have a successor."""
    for folder in (workdir.epoch(snapshot.epoch), workdir.prepared(snapshot.epoch)):
        try:
            names_in(folder)
        except OSError as error:
            findings.tell(folder, f"{error.strerror}; nothing can be committed")
            break
    hinted = _hinted(workdir)
    # what is there now was made since the names were read
    if hinted is not None and hinted[1] > max(there) and not os.path.lexists(workdir.revision(*hinted)):
        text = f"missing, and {workdir.head} names it: the newest revision is lost"
        findings.tell(workdir.revision(*hinted), text)


def _hinted(workdir: Workdir) -> tuple[str, int] | None:
    """Epoch and number of the revision that HEAD names, None where it names none of an epoch that is there."""
    try:
        epoch, number = read(workdir.head).decode("ascii").split()
        if epoch_number(epoch) is None or not is_revision(number) or not os.path.isdir(workdir.epoch(epoch)):
            return None
        return epoch, int(number)
    except (OSError, ValueError):
        return None


def _check_chain(workdir: Workdir, snapshot: Snapshot, there: dict[int, list[str]], findings: ProblemLog) -> None:
    """Revisions follow each other without a gap, down to where an old epoch is on its way out."""
    lowest = max(there)
    while lowest - 1 in there:
        lowest -= 1
    oldest = (epoch_number(snapshot.epoch) or 0) - 1
    for number, epochs in sorted(there.items()):
        path = workdir.revision(epochs[-1], number)
        if len(epochs) > 1:
            findings.tell(path, f"this revision is there twice, also in epoch {epochs[0]}")
        elif number < lowest and (epoch_number(epochs[0]) or 0) < oldest:
            findings.tell(path, "left of an old epoch", f"left in epoch {epochs[0]}", note=True)
        elif number < lowest:
            findings.tell(path, f"a revision between this one and {lowest} is missing")
