"""`farm.json`: what a farm is. Written once, and the last thing that is written when a farm is made.

Until it stands there is no farm: what an interrupted start left behind (a segment, an epoch with a
revision 0 of another farm id) is named by nothing and harms nothing.
"""

from __future__ import annotations

import errno
import os
from dataclasses import asdict, dataclass

from taskfarmer import durable
from taskfarmer.errors import Damaged, NotAFarm, StorageError
from taskfarmer.model import sealed, unsealed
from taskfarmer.workdir import Workdir

FORMAT = 1
_OLD_FILES = ("toprocess", "finished", "failed")


@dataclass(frozen=True)
class Farm:
    """`list_path` is where the task list was when the farm was made; it is known by content, though.

    `lock` is None where the lock is `<farm>/lock`, `logs` where logs are in `<farm>/logs`. `lease` is in
    seconds, `epoch_length` in revisions.
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
    format: int = FORMAT


def load(workdir: Workdir) -> Farm | None:
    """The farm in this directory, None where there is none (yet)."""
    try:
        data = durable.read(workdir.farm)
    except FileNotFoundError:
        return None
    except NotADirectoryError:
        raise NotAFarm(f"{workdir.path}: not a directory; name another work directory with -w DIR") from None
    except OSError as error:
        raise StorageError(f"{workdir.farm}: {error.strerror}; the farm cannot be read") from error
    document = unsealed(data)
    if document is None:
        raise Damaged(
            f"{workdir.farm}: not what was written into it; restore it from a snapshot of the file system, or start "
            "anew in another work directory (-w)"
        )
    if document.get("format") != FORMAT:
        raise NotAFarm(
            f"{workdir.farm}: format {document.get('format')}, and this version knows format {FORMAT}; use the "
            "taskfarmer that made this farm, or a newer one"
        )
    known = {name: value for name, value in document.items() if name in Farm.__dataclass_fields__}
    return Farm(**known)  # type: ignore[arg-type]


def demand(workdir: Workdir) -> Farm:
    """The farm in this directory; NotAFarm where there is none."""
    farm = load(workdir) if os.path.isdir(workdir.path) else None
    if farm is None:
        raise NotAFarm(f"{workdir.path}: no farm here (no farm.json); name the work directory of a task list")
    return farm


def refuse_foreign(workdir: Workdir) -> None:
    """Refuse a directory that holds files of PyTaskFarmer 0.1.0, which we would write over."""
    for name in _OLD_FILES:
        if os.path.lexists(os.path.join(workdir.path, name)):
            if os.path.lexists(workdir.farm):
                return  # made since we looked: `farm.json` stands before any view is written
            raise NotAFarm(
                f"{os.path.join(workdir.path, name)}: this directory holds no farm, but a file of that name, perhaps "
                "of PyTaskFarmer 0.1.0; use another work directory (-w DIR) or move the file away"
            )


def publish(workdir: Workdir, farm: Farm) -> bool:
    """Make this the farm of the directory; False where another one was faster."""
    prepared = durable.beside(workdir.farm)
    durable.prepare(prepared, sealed(asdict(farm)))
    answer = durable.publish(prepared, workdir.farm)
    durable.sync_directory(workdir.path)
    found = load(workdir)
    if found is None:
        raise answer or OSError(errno.ESTALE, "was written and cannot be seen", workdir.farm)
    return found.farm == farm.farm
