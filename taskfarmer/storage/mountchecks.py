"""Checks of directories by type and options of their mounts alone, without writing anything."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Literal

from taskfarmer.storage.filesystems import fs_facts
from taskfarmer.storage.mounts import Mount, mount_of

State = Literal["proven", "known", "not proven", "slow", "unsafe"]
"""`known` was measured or reported by the system, and is not a problem; `not proven` could not be determined."""

COLLIDE = "commits of farmers on several nodes collide: they are lost and retried, which takes time but loses no data"


@dataclass(frozen=True)
class Check:
    """One check: its result, and the meaning of that for the user."""

    name: str
    state: State
    found: str
    means: str


@dataclass(frozen=True)
class MountedPath:
    """A directory and its file system."""

    path: str
    mount: Mount | None


def judge_places(directory: MountedPath, locks: MountedPath, met: bool = False) -> list[Check]:
    """Checks of both directories by their mounts. If other nodes were `met`, their proofs take precedence."""
    here, there = fs_facts(directory.mount), fs_facts(locks.mount)
    checks = [Check("file system", "known", _mounted(directory.mount), here.text)]
    if locks.path != directory.path:
        found = f"{locks.path}: {_mounted(locks.mount)}"
        if there.shared is False and here.shared is not False and not met:
            means = (
                "it is on this node alone, so commits of farmers on other nodes collide; create the farm with "
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
    """Checks of work directory and lock directory that write nothing: type, options, place."""
    directory, locks = os.path.abspath(directory), os.path.abspath(locks)
    mount = mount_of(directory)
    return judge_places(
        MountedPath(directory, mount), MountedPath(locks, mount if locks == directory else mount_of(locks))
    )
