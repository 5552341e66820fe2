"""Farms of a group (`--shared-group`): its members may work on them, whatever the umask of each is.

The group is that of the work directory. All directories have the setgid bit, so that new files belong to the group, and
each farmer restores the group permissions that its umask removed (`durable.grant_group`). Users with write permission
are trusted (`trust.py`); other users get an error before anything is started.
"""

from __future__ import annotations

import grp
import os
import stat

from taskfarmer.errors import NotAFarm
from taskfarmer.storage import durable
from taskfarmer.storage.eventually import FOR_A_NAME, wait_until_visible
from taskfarmer.storage.layout import Workdir

_OPEN = stat.S_ISGID | stat.S_IRWXG


def group_of(workdir: Workdir) -> str:
    """The name of the work directory's group, or its number if it has no name."""
    number = os.stat(workdir.path).st_gid
    try:
        return grp.getgrgid(number).gr_name
    except KeyError:
        return str(number)


def share_folder(workdir: Workdir, folder: str) -> None:
    """Give the group access to a directory of a new farm; NotAFarm if that is impossible."""
    number = os.stat(workdir.path).st_gid
    if os.geteuid() and number not in (os.getegid(), *os.getgroups()):
        raise NotAFarm(
            f"{workdir.path}: --shared-group: belongs to group {group_of(workdir)}, and you are not a member; give the "
            "directory to a group of yours (newgrp, chgrp), or use another one with -w DIR"
        )
    try:
        # another member creates the same farm, and may be about to give the group access to a new directory
        wait_until_visible(lambda: _open_to_group(folder, number), FOR_A_NAME, 0.05, PermissionError)
    except PermissionError:
        raise NotAFarm(
            f"{folder}: --shared-group: belongs to another user and is not open to the group; ask its owner to "
            "chmod g+rwxs it, or use another work directory with -w DIR"
        ) from None


def _open_to_group(folder: str, number: int) -> None:
    """Give the group access; PermissionError if the directory belongs to another user."""
    if _is_open(folder, number):
        return
    if os.stat(folder).st_gid != number:
        os.chown(folder, -1, number)
    durable.share_directory(folder)
    if not _is_open(folder, number):
        raise _not_taken(folder)


def _is_open(folder: str, number: int) -> bool:
    found = os.stat(folder)
    return found.st_gid == number and found.st_mode & _OPEN == _OPEN


def prove_modes(workdir: Workdir) -> None:
    """Prove that the group can read a file that is created in the farm, or raise NotAFarm."""
    number = os.stat(workdir.path).st_gid
    path = os.path.join(workdir.ledger, f".probe.{durable.random_name()}")
    try:
        durable.prepare(path, b"", shared=True)
        found = os.stat(path)
    finally:
        durable.unlink_quietly(path)
    if found.st_gid != number or not found.st_mode & stat.S_IRGRP:
        raise _not_taken(path)


def _not_taken(path: str) -> NotAFarm:
    return NotAFarm(
        f"{path}: --shared-group: this file system does not keep the group and the mode of files, so other members "
        "could not join; use a work directory elsewhere with -w DIR"
    )


def refuse_outsiders(workdir: Workdir) -> None:
    """NotAFarm if the user is not in the group of the farm."""
    for folder in (workdir.path, *workdir.folders):
        if os.path.isdir(folder) and not os.access(folder, os.R_OK | os.W_OK | os.X_OK, effective_ids=True):
            raise NotAFarm(
                f"{folder}: permission denied: this farm is for members of group {group_of(workdir)}, and you are not "
                "one (newgrp, sg); use your own work directory with -w DIR"
            )
