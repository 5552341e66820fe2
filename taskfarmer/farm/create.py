"""Creating a farm: all files get random names, and `farm.json` names them last.

Any number of farmers may do this at once. The one whose `farm.json` gets its name has created the farm; the others
remove their files and join it.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable

from taskfarmer.errors import StorageError, remedy
from taskfarmer.farm import groups
from taskfarmer.ledger import epochs, farmfile
from taskfarmer.ledger.commits import encode
from taskfarmer.ledger.farmfile import Farm
from taskfarmer.ledger.segments import discard
from taskfarmer.ledger.state import Segment, State
from taskfarmer.storage import durable, linkproof
from taskfarmer.storage.layout import Workdir

_ELSEWHERE = "use another work directory with -w DIR"
_PATH_MAX = 4096
_LONGEST_NAME = 200
"""Maximum number of bytes that a path in the farm has in addition to the work directory: 130, with a reserve."""


def _nothing() -> None:
    """The default for `between`."""


def make_folders(workdir: Workdir, made: list[str] | None = None, between: Callable[[], None] = _nothing) -> None:
    """Create the directories of a farm, and prove that its file system supports commits.

    Directories that did not exist are added to `made`; `between` is called between file operations.
    """
    try:
        _check_length(workdir.path)
        submitted = [path for path in (workdir.jobs, workdir.submitted) if workdir.shared and os.path.isdir(path)]
        for folder in (workdir.path, *workdir.folders, *submitted):
            if _make_folder(folder) and made is not None:
                made.append(folder)
            if workdir.shared:
                groups.share_folder(workdir, folder)
            between()
        durable.sync_directory(workdir.path)
        try:
            durable.sync_directory(os.path.dirname(workdir.path))
        except PermissionError:
            pass  # a directory that we may write, but not read
        between()
        linkproof.prove_links(workdir.ledger)
        between()
        if workdir.shared:
            groups.prove_modes(workdir)
    except OSError as error:
        path = str(error.filename or workdir.path)
        kind, option = "work directory", "-w"
        if workdir.logs_dir and path.startswith(workdir.logs_dir):
            kind, option = "log directory", "--logs-dir"
        advice = f"use another one with {option} DIR"
        if error.errno == errno.ENAMETOOLONG:
            advice = f"choose a shorter path with {option} DIR"
        else:
            advice = remedy(error, advice, advice)
        raise StorageError(f"{path}: {error.strerror}; cannot create the {kind} here; {advice}") from error


def _check_length(path: str) -> None:
    """Raise ENAMETOOLONG early if files deep in the farm could not be opened later."""
    if len(path.encode("utf-8", "surrogateescape")) + _LONGEST_NAME > _PATH_MAX:
        raise OSError(errno.ENAMETOOLONG, os.strerror(errno.ENAMETOOLONG), path)


def _make_folder(path: str) -> bool:
    """Create a directory; False if it exists."""
    try:
        os.mkdir(path, durable.FOLDER_MODE)
    except FileNotFoundError:
        os.makedirs(path, durable.FOLDER_MODE, exist_ok=True)
    except FileExistsError:
        found = durable.wait_visible(path)
        if found is None or not stat.S_ISDIR(found.st_mode):
            raise
        return False
    return True


def make(workdir: Workdir, farm: Farm, segment: Segment, between: Callable[[], None] = _nothing) -> State | None:
    """Create the farm, its first revision and its name; that revision, or None if another farmer was faster."""
    epoch: str | None = None
    first: State | None = None
    made = False
    try:
        epoch = epochs.make(workdir, 0)
        first = State(farm.farm, 0, ("import", 0), epoch, 1, (segment,))
        # by link, as all revisions: if we are killed here, no torn revision has a name
        between()
        prepared = os.path.join(workdir.prepared(epoch), "first")
        durable.prepare(prepared, encode(first), workdir.shared)
        answer = durable.publish(prepared, workdir.revision(epoch, 0))
        if answer is not None and not os.path.exists(workdir.revision(epoch, 0)):
            raise answer
        durable.sync_directory(workdir.epoch(epoch))
        between()
        made = farmfile.publish(workdir, farm)
    except OSError as error:
        # if we slept here, another farmer may have created the farm since, and removed our epoch as an old one
        other = farmfile.load(workdir)
        if other is None or other.farm == farm.farm:
            # remove nothing: `farm.json` may have its name in spite of the error, and name all these files
            raise StorageError(
                f"{error.filename or workdir.path}: {error.strerror}; the farm was not created, or may be lost; "
                + remedy(error, _ELSEWHERE, _ELSEWHERE)
            ) from error
    if not made:
        if epoch is not None:
            epochs.remove(workdir, epoch)
        discard(workdir, segment.file)
    return first if made else None
