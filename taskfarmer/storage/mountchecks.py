"""Checks of directories by their mounts alone: type and options, without writing anything."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Literal

from taskfarmer.storage.filesystems import fs_facts
from taskfarmer.storage.mounts import Mount, mount_of

State = Literal["proven", "known", "not proven", "slow", "unsafe"]
"""`known` is measured or told by the system, and nothing to worry about; `not proven` could not be found out."""

COLLIDE = (
    "farmers of several nodes are not kept from colliding: commits are lost and tried again, which takes time and "
    "loses nothing"
)


@dataclass(frozen=True)
class Check:
    """One thing that was looked at: what was found, and what that means for the user."""

    name: str
    state: State
    found: str
    means: str


@dataclass(frozen=True)
class MountedPath:
    """A directory and the file system that it is on."""

    path: str
    mount: Mount | None


def judge_places(directory: MountedPath, locks: MountedPath, met: bool = False) -> list[Check]:
    """What mounts say of the two directories. Where other nodes were `met`, what was proven with them outweighs it."""
    here, there = fs_facts(directory.mount), fs_facts(locks.mount)
    checks = [Check("file system", "known", _mounted(directory.mount), here.text)]
    if locks.path != directory.path:
        found = f"{locks.path}: {_mounted(locks.mount)}"
        if there.shared is False and here.shared is not False and not met:
            means = (
                "it is on this node alone: farmers of other nodes are not kept from colliding; make the farm with "
                "--lock-dir on a shared file system"
            )
            checks.append(Check("lock directory", "slow" if here.shared else "not proven", found, means))
        else:
            checks.append(Check("lock directory", "known", found, there.text))
    if not met and there.locks in ("local", "none"):
        checks.append(Check("mount options", "slow", there.text, COLLIDE))
    return checks


def _mounted(mount: Mount | None) -> str:
    if mount is None:
        return "unknown"
    return f"{mount.type} {mount.source} on {mount.point} ({','.join(mount.options)})"


def quick_checks(directory: str, locks: str) -> list[Check]:
    """What can be said of work directory and lock directory without writing anything: type, options, place."""
    directory, locks = os.path.abspath(directory), os.path.abspath(locks)
    mount = mount_of(directory)
    return judge_places(
        MountedPath(directory, mount), MountedPath(locks, mount if locks == directory else mount_of(locks))
    )
