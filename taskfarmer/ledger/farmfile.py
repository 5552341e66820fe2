"""`farm.json`: the properties of a farm. Written once, as the last file when a farm is created.

Without it the directory has no farm: the remains of an interrupted start (a segment, an epoch with a revision 0 that
has another farm ID) are not named by any file and do no harm.
"""

from __future__ import annotations

import errno
import os
import re
import stat
from collections.abc import Mapping
from typing import Any, NamedTuple

from taskfarmer.errors import Damaged, NotAFarm, StorageError, hit_a_limit, remedy
from taskfarmer.formats import members
from taskfarmer.formats.sealed import sealed, unsealed
from taskfarmer.storage import durable
from taskfarmer.storage.eventually import FOR_A_NAME, wait_until_visible
from taskfarmer.storage.layout import Workdir

FORMAT = 1
_LOG = re.compile(r"log_\d+")
_JOURNAL = re.compile(r".+-\d+-[0-9a-f]{8}(-r\d+)?(\.\d+)?")
_MOST_NAMED = 5
_RESTORE = "restore it from a snapshot of the file system, or start a new farm in another work directory (-w)"


class Farm(NamedTuple):
    """`list_path` is where the task list was when the farm was created; the list is recognized by its content, though.

    `lock` is None if the lock is `<farm>/lock`, `logs` is None if logs are in `<farm>/logs`. `lease` is in seconds,
    `epoch_length` in revisions. With `shared_group` the members of its group work on the farm.
    """

    farm: str
    list_path: str
    handler: str
    handler_options: dict[str, str]
    lock: str | None
    lease: float
    epoch_length: int
    made: float
    logs: str | None = None
    shared_group: bool = False
    format: int = FORMAT


def document_of(workdir: Workdir) -> dict[str, object] | None:
    """The document in `farm.json`, None if it is corrupt; one that was just written may look short for a moment."""

    def read() -> dict[str, object]:
        document = unsealed(durable.read(workdir.farm))
        if document is None:
            raise Damaged(f"{workdir.farm}: corrupt (checksum mismatch); {_RESTORE}")
        return document

    # another member of the group may be about to give the group access to a new directory
    not_yet = (Damaged, PermissionError) if workdir.shared else (Damaged,)
    try:
        return wait_until_visible(read, FOR_A_NAME, 0.1, not_yet)
    except Damaged:
        return None


def load(workdir: Workdir) -> Farm | None:
    """The farm in this directory; None if it has none (yet)."""
    try:
        document = document_of(workdir)
    except FileNotFoundError:
        if os.path.islink(workdir.farm):
            raise Damaged(f"{workdir.farm}: a dangling symbolic link; {_RESTORE}") from None
        return None
    except NotADirectoryError:
        raise NotAFarm(f"{workdir.path}: not a directory; use another work directory with -w DIR") from None
    except PermissionError as error:
        raise NotAFarm(
            f"{workdir.farm}: {error.strerror}; only its owner, or its group, may work on this farm; use your own work "
            "directory with -w DIR"
        ) from error
    except OSError as error:
        if error.errno == errno.ENAMETOOLONG:
            raise _too_long(workdir, error) from error
        advice = f"the farm cannot be read; {remedy(error, _RESTORE)}"
        raise StorageError(f"{workdir.farm}: {error.strerror}; {advice}") from error
    if document is None:
        raise Damaged(f"{workdir.farm}: corrupt (checksum mismatch); {_RESTORE}")
    if document.get("format") != FORMAT:
        raise NotAFarm(
            f"{workdir.farm}: format {members.shown(document.get('format'))}, but this version supports format "
            f"{FORMAT}; use the taskfarmer that created this farm, or a newer one"
        )
    try:
        return _farm(document)
    except ValueError as error:
        raise Damaged(f"{workdir.farm}: {error}; {_RESTORE}") from error


def _farm(document: Mapping[str, Any]) -> Farm:
    """The farm in a document; ValueError names a member that is missing or has a wrong type or value."""
    shared = document.get("shared_group", False)
    if not isinstance(shared, bool):
        raise members.wrong("shared_group", shared)
    return Farm(
        members.name(document, "farm"),
        members.text(document, "list_path"),
        members.text(document, "handler"),
        members.texts(document, "handler_options"),
        members.text(document, "lock") if document.get("lock") is not None else None,
        members.number(document, "lease", least=0.001),
        members.whole(document, "epoch_length", least=1),
        members.number(document, "made"),
        members.text(document, "logs") if document.get("logs") is not None else None,
        shared,
    )


def require(workdir: Workdir) -> Farm:
    """The farm in this directory; NotAFarm if it has none."""
    try:
        there = stat.S_ISDIR(os.stat(workdir.path).st_mode)
    except OSError as error:
        if error.errno == errno.ENAMETOOLONG:
            raise _too_long(workdir, error) from error
        if error.errno == errno.EACCES:
            raise NotAFarm(f"{workdir.path}: {error.strerror}; {remedy(error, '')}") from error
        there = False
    farm = load(workdir) if there else None
    if farm is None:
        raise NotAFarm(f"{workdir.path}: no farm here (no farm.json); name the work directory of a task list")
    return farm


def _too_long(workdir: Workdir, error: OSError) -> NotAFarm:
    return NotAFarm(f"{workdir.path}: {error.strerror}; choose a shorter path for the work directory (-w DIR)")


def refuse_foreign(workdir: Workdir) -> None:
    """Refuse to create a farm in a directory with files that it would overwrite or mix with its own.

    The files may be the user's, or those of PyTaskFarmer 0.1.0; or `farm.json` of a farm was lost. An interrupted start
    leaves no such files: views, results and logs are written after `farm.json`.
    """
    if not os.path.lexists(workdir.path):
        return
    found = _files_in_the_way(workdir)
    if not found or durable.wait_visible(workdir.farm) is not None:  # created since we looked
        return
    if _is_ours(workdir):
        raise Damaged(f"{workdir.farm}: missing, although this directory contains a farm; {_RESTORE}")
    names = [os.path.relpath(path, workdir.path) for path in found[:_MOST_NAMED]]
    more = f" and {len(found) - _MOST_NAMED} more" if len(found) > _MOST_NAMED else ""
    raise NotAFarm(
        f"{found[0]}: this directory has no farm, but files with names that a farm uses: {', '.join(names)}{more}. "
        "They may be from PyTaskFarmer 0.1.0. Use another work directory (-w DIR), or move the files away"
    )


def _files_in_the_way(workdir: Workdir) -> list[str]:
    """Files in a directory without a farm that a farm would replace or treat as its own."""
    views = workdir.toprocess, workdir.finished, workdir.failed, workdir.timeline, workdir.views
    found = [
        path for path in (*views, workdir.locks, workdir.stop, workdir.head, workdir.turn) if os.path.lexists(path)
    ]
    found += (os.path.join(workdir.results, name) for name in _names(workdir.results))
    if workdir.has_own_logs:
        found += (os.path.join(workdir.logs, name) for name in _names(workdir.logs) if _LOG.fullmatch(name))
    return found


def _is_ours(workdir: Workdir) -> bool:
    """Whether a directory without `farm.json` was a farm."""
    try:
        if unsealed(durable.read_range(workdir.views, 0, 1 << 16)) is not None:
            return True
    except OSError:
        pass
    return any(_JOURNAL.fullmatch(name) for name in _names(workdir.results))


def _names(folder: str) -> list[str]:
    try:
        return sorted(os.listdir(folder))
    except OSError as error:
        if hit_a_limit(error):
            raise
        return []


def publish(workdir: Workdir, farm: Farm) -> bool:
    """Make this the farm of the directory; False if another farmer was faster."""
    prepared = durable.temp_name(workdir.farm)
    document = farm._asdict()
    if not farm.shared_group:
        del document["shared_group"]
    durable.prepare(prepared, sealed(document), farm.shared_group)
    answer = durable.publish(prepared, workdir.farm)
    durable.sync_directory(workdir.path)
    found = load(workdir) if durable.wait_visible(workdir.farm) is not None else None
    if found is None:
        raise answer or OSError(errno.ESTALE, "was written, but is not visible", workdir.farm)
    return found.farm == farm.farm
