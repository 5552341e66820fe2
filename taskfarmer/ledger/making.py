"""How a farm comes to be: everything is made under random names, and `farm.json` names it last.

Any number of farmers may do this at once; the one whose `farm.json` gets its name made the farm, and
the others take back what they made and join it.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable

from taskfarmer import durable
from taskfarmer.errors import StorageError
from taskfarmer.ledger import epochs, farmfile, sharing
from taskfarmer.ledger.commits import encode
from taskfarmer.ledger.farmfile import Farm
from taskfarmer.ledger.segments import discard
from taskfarmer.ledger.state import Segment, State
from taskfarmer.workdir import Workdir


def _nothing() -> None:
    """Between two file operations there is nothing to do."""


def make_folders(workdir: Workdir, made: list[str] | None = None, between: Callable[[], None] = _nothing) -> None:
    """The directories of a farm, and the proof that its file system can commit.

    `made` gets those that were not there before, as they are made; `between` is called between file operations.
    """
    try:
        submitted = [path for path in (workdir.jobs, workdir.submitted) if workdir.shared and os.path.isdir(path)]
        for folder in (workdir.path, *workdir.folders, *submitted):
            if _make_folder(folder) and made is not None:
                made.append(folder)
            if workdir.shared:
                sharing.share_folder(workdir, folder)
            between()
        durable.sync_directory(workdir.path)
        try:
            durable.sync_directory(os.path.dirname(workdir.path))
        except PermissionError:
            pass  # a directory that we may write into and not read
        between()
        durable.prove_links(workdir.ledger)
        between()
        if workdir.shared:
            sharing.prove_modes(workdir)
    except OSError as error:
        raise StorageError(
            f"{error.filename or workdir.path}: {error.strerror}; the work directory cannot be made here, "
            "name another one with -w DIR"
        ) from error


def _make_folder(path: str) -> bool:
    """Whether a directory was made; False where it stands already."""
    try:
        os.mkdir(path, durable.FOLDER_MODE)
    except FileNotFoundError:
        os.makedirs(path, durable.FOLDER_MODE, exist_ok=True)
    except FileExistsError:
        found = durable.seen(path)
        if found is None or not stat.S_ISDIR(found.st_mode):
            raise
        return False
    return True


def make(workdir: Workdir, farm: Farm, segment: Segment, between: Callable[[], None] = _nothing) -> State | None:
    """Make the farm, its first revision and its name; that revision, or None where another farmer was faster."""
    epoch: str | None = None
    first: State | None = None
    made = False
    try:
        epoch = epochs.make(workdir, 0)
        first = State(farm.farm, 0, ("import", 0), epoch, 1, (segment,))
        # by link, as all revisions: a start that is killed here leaves no torn one with a name
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
        # who slept here may wake up in a farm that another one made, and that swept our epoch away as an old one
        other = farmfile.load(workdir)
        if other is None or other.farm == farm.farm:
            # nothing is taken back: `farm.json` may have its name although we were told otherwise, and name all this
            raise StorageError(
                f"{error.filename or workdir.path}: {error.strerror}; the farm was not made, or may not last; make "
                "room, or name another work directory with -w DIR"
            ) from error
    if not made:
        if epoch is not None:
            epochs.remove(workdir, epoch)
        discard(workdir, segment.file)
    return first if made else None
