"""Counts the CPUs that this process may use, according to its CPU affinity and the quotas of its cgroups.

A quota is CPU time, not a number of CPUs. It is rounded up, to at least 1: with 1.5 CPUs two tasks use all of the time,
and one task would leave a third of it idle. Go, Java and .NET round up as well; `nproc` rounds to the nearest.

The quotas of all parent cgroups apply as well. A container sees only those below its root in the mounted file systems
(cgroups(7), cgroup_namespaces(7)). If both versions are mounted ("hybrid"), the CPU controller belongs to one of them,
and the other one has no such files.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator


def usable_cpus() -> int:
    """The number of CPUs that this process may use; in a Slurm step or a container often fewer than the node has."""
    try:
        count = len(os.sched_getaffinity(0))
    except AttributeError:  # macOS
        count = os.cpu_count() or 1
    limit = quota(_text("/proc/self/cgroup"), _text("/proc/self/mountinfo"))
    return count if limit is None else min(count, limit)


def quota(groups: str, mounts: str) -> int | None:
    """The number of CPUs that cgroups allow a process, rounded up; None if they do not limit it.

    `groups` is the content of its /proc/PID/cgroup, `mounts` that of its /proc/PID/mountinfo.
    """
    paths = dict(_groups(groups))
    found: list[int] = []
    for version, root, point in _mounts(mounts):
        if version in paths:
            directories = _directories(point, root, paths[version])
            found += filter(None, (_cpus(version, directory) for directory in directories))
    return min(found, default=None)


def _groups(text: str) -> Iterator[tuple[int, str]]:
    """Yield the cgroup version and the path from each relevant line `ID:CONTROLLERS:PATH`."""
    for line in text.split("\n"):
        number, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if number == "0" and not controllers:
            yield 2, path
        elif "cpu" in controllers.split(","):
            yield 1, path


def _mounts(text: str) -> Iterator[tuple[int, str, str]]:
    """Yield version, root and mount point of each cgroup file system that may have the CPU controller."""
    for line in text.split("\n"):
        head, _, tail = line.partition(" - ")
        fields, kind = head.split(" "), tail.split(" ")
        if len(fields) < 5:
            continue
        root, point = (re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), field) for field in fields[3:5])
        if kind[0] == "cgroup2":
            yield 2, root, point
        elif kind[0] == "cgroup" and "cpu" in kind[-1].split(","):
            yield 1, root, point


def _directories(point: str, root: str, path: str) -> list[str]:
    """The directories of a cgroup and its parents, from the mount point down."""
    if set(root.split("/")) == {"", ".."}:
        return [point]  # mounted outside of our namespace: the mount point is a parent, our path below it is unknown
    inside = os.path.join(root, "")
    if ".." in path.split("/") or not os.path.join(path, "").startswith(inside):
        return []  # a subtree that does not contain our cgroup
    parts = [part for part in path[len(inside) :].split("/") if part]
    return [os.path.join(point, *parts[:count]) for count in range(len(parts), -1, -1)]


def _cpus(version: int, directory: str) -> int | None:
    if version == 2:
        words = _text(os.path.join(directory, "cpu.max")).split()
    else:
        words = [_text(os.path.join(directory, f"cpu.cfs_{name}_us")).strip() for name in ("quota", "period")]
    if len(words) != 2 or not all(word.isascii() and word.isdecimal() for word in words):  # "max", -1, or no file
        return None
    time, period = map(int, words)
    return max(1, -(-time // period)) if period else None


def _text(path: str) -> str:
    try:
        with open(path, encoding="utf-8", errors="surrogateescape") as file:
            return file.read(1 << 20)
    except OSError:
        return ""
