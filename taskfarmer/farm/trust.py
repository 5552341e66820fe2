"""Who else can decide what a farm runs: whoever can write into its work directory, or into its task list.

Groups share farms, and a user who starts a farmer on another one's list means to run that one's commands. So
what is refused is what everybody may write, and a work directory of a stranger where everybody could have put
one. Access control lists are seen as far as the mode bits show them.
"""

from __future__ import annotations

import os
import stat

from taskfarmer.errors import NotAFarm
from taskfarmer.storage.layout import Workdir


def refuse_strangers(workdir: Workdir, tasklist: str | None = None) -> None:
    """NotAFarm where anybody, or somebody who has no business there, can write into the work directory.

    Its owner may be ourselves, root or the owner of the task list; in a directory where not everybody may write,
    whoever can make a work directory is trusted.
    """
    there = os.path.isdir(workdir.path)
    inside = os.path.join(workdir.path, "")
    for path in (workdir.path, workdir.farm, *workdir.folders):
        found = _status(path) if there or not path.startswith(inside) else None
        if found is not None and found.st_mode & stat.S_IWOTH:
            raise NotAFarm(
                f"{path}: everybody can write there, and whoever can do so can run commands as you: chmod o-w it, "
                "or name another work directory with -w DIR"
            )
    owners = {0, os.getuid()}
    listed = _status(tasklist) if tasklist is not None else None
    if listed is not None:
        owners.add(listed.st_uid)
    for path in {workdir.path, os.path.realpath(workdir.path)}:
        try:
            owner = os.lstat(path).st_uid
        except OSError:
            continue
        if owner not in owners and _open_to_all(os.path.dirname(path)):
            raise NotAFarm(
                f"{path}: belongs to another user, who can run commands as you there, and lies where everybody can "
                "put such a directory: name a work directory elsewhere with -w DIR"
            )


def list_warnings(tasklist: str) -> list[str]:
    """A warning for a task list that anybody may change; none for others, whoever they belong to."""
    found, folder = _status(tasklist), os.path.dirname(os.path.abspath(tasklist))
    where = _status(folder)
    if found is not None and found.st_mode & stat.S_IWOTH:
        return [f"{tasklist}: everybody can write this task list, and so run commands as you: chmod o-w it"]
    if where is not None and where.st_mode & stat.S_IWOTH and not where.st_mode & stat.S_ISVTX:
        return [f"{tasklist}: everybody can exchange this task list, and so run commands as you: chmod o-w {folder}"]
    return []


def _open_to_all(folder: str) -> bool:
    found = _status(folder)
    return found is not None and bool(found.st_mode & stat.S_IWOTH)


def _status(path: str) -> os.stat_result | None:
    try:
        return os.stat(path)
    except OSError:
        return None
