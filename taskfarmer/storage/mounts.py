"""Mounted file systems, as the kernel lists them (proc_pid_mountinfo(5))."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass

from taskfarmer.storage import durable

_TABLE = "/proc/self/mountinfo"
_ESCAPE = re.compile(rb"\\([0-7]{3})")


@dataclass(frozen=True)
class Mount:
    """A mounted file system. `options` has those of the mount, followed by those of the file system."""

    point: str
    type: str
    source: str
    options: tuple[str, ...]

    def option(self, name: str) -> str | None:
        """The value of `name=value`, empty for a bare `name`, None if the option is missing."""
        for option in self.options:
            key, _, value = option.partition("=")
            if key == name:
                return value
        return None


def parse(table: bytes) -> list[Mount]:
    """The mounts in a table, in the order of mounting; invalid lines are skipped."""
    found = []
    for line in table.splitlines():
        left, mark, right = line.partition(b" - ")
        fields, system = left.split(b" "), right.split(b" ")
        if not mark or len(fields) < 6 or len(system) < 3:
            continue
        options = dict.fromkeys([*_text(fields[5]).split(","), *_text(system[2]).split(",")])
        found.append(Mount(_text(fields[4]), _text(system[0]), _text(system[1]), tuple(options)))
    return found


def _text(field: bytes) -> str:
    return os.fsdecode(_ESCAPE.sub(lambda match: bytes([int(match[1], 8)]), field))


def find_mount(path: str, mounts: list[Mount]) -> Mount | None:
    """The mount that contains a path without symbolic links: the longest match, and the newest of several."""
    best: Mount | None = None
    for mount in mounts:
        inside = mount.point == "/" or path == mount.point or path.startswith(mount.point + "/")
        if inside and (best is None or len(mount.point) >= len(best.point)):
            best = mount
    return best


def mount_of(path: str) -> Mount | None:
    """The mount of a path; None if the kernel has no such table (no /proc, not Linux)."""
    try:
        table = durable.read(_TABLE)
    except OSError:
        return None
    return find_mount(os.path.realpath(path), parse(table))
