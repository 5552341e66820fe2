"""Trust: all users with write permission for the work directory or the task list can change the commands of a farm.

Groups share farms, and a farmer that is started on another user's list is meant to run that user's commands. So only
two cases are refused: files that all users can write, and a work directory of a stranger in a place where all users can
create one. Access control lists are considered as far as the mode bits show them.
"""

from __future__ import annotations

import os
import stat

from taskfarmer.errors import NotAFarm
from taskfarmer.storage.layout import Workdir


def refuse_strangers(workdir: Workdir, tasklist: str | None = None) -> None:
    """NotAFarm if all users, or a stranger, can write into the work directory.

    Its owner may be this user, root, or the owner of the task list. In a directory that not all users can write, any
    owner is trusted.
    """
    there = os.path.isdir(workdir.path)
    inside = os.path.join(workdir.path, "")
    for path in (workdir.path, workdir.farm, *workdir.folders):
        found = _status(path) if there or not path.startswith(inside) else None
        if found is not None and found.st_mode & stat.S_IWOTH:
            raise NotAFarm(
                f"{path}: all users can write there, and so run commands as you; chmod o-w it, or use another work "
                "directory with -w DIR"
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
                f"{path}: belongs to another user, who can run commands as you there, in a place where all users can "
                "create directories; use a work directory elsewhere with -w DIR"
            )


def list_warnings(tasklist: str) -> list[str]:
    """A warning if all users can change the task list; an empty list otherwise."""
    found, folder = _status(tasklist), os.path.dirname(os.path.abspath(tasklist))
    parent = _status(folder)
    if found is not None and found.st_mode & stat.S_IWOTH:
        return [f"{tasklist}: all users can write this task list, and so run commands as you; chmod o-w it"]
    if parent is not None and parent.st_mode & stat.S_IWOTH and not parent.st_mode & stat.S_ISVTX:
        return [f"{tasklist}: all users can replace this task list, and so run commands as you; chmod o-w {folder}"]
    return []


def _open_to_all(folder: str) -> bool:
    found = _status(folder)
    return found is not None and bool(found.st_mode & stat.S_IWOTH)


def _status(path: str) -> os.stat_result | None:
    try:
        return os.stat(path)
    except OSError:
        return None
