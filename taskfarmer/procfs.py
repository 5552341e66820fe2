"""Read /proc, and find out first whether it is usable.

A container can have no /proc, or one of another pid namespace, in which the same numbers belong to other processes. A
/proc with the mount option `hidepid` (proc(5)) hides processes of other users, and setuid programs. So each process
checks once that /proc shows it under its number. If not, this module does not read /proc, and only kill(2) finds out
whether a process exists.
"""

from __future__ import annotations

import os
from functools import cache
from typing import Literal

Sight = Literal["whole", "partial", "blind"]
"""`whole`: /proc shows all processes of this pid namespace. `partial`: it hides some. `blind`: it is not usable."""
_LARGEST_PID = 1 << 22
"""PID_MAX_LIMIT of Linux."""


def sight() -> Sight:
    """How much /proc shows to this process. Checked once, and again in a forked process."""
    return _sight_of(os.getpid())


@cache
def _sight_of(pid: int) -> Sight:
    parents = {os.getppid()}
    found = _status_fields(_read("/proc/self/status"))
    parents.add(os.getppid())  # the parent may end meanwhile
    # `NSpid` (Linux 4.1) has a number for each pid namespace, from that of this /proc down to this process
    numbers = found.get(b"NSpid", found.get(b"Pid", b"")).split()
    if numbers != [b"%d" % pid] or found.get(b"PPid") not in {b"%d" % parent for parent in parents}:
        return "blind"
    # each pid namespace has a process 1, mostly of another user
    return "whole" if _read("/proc/1/stat") else "partial"


def _status_fields(text: bytes) -> dict[bytes, bytes]:
    """The fields of proc(5) status by their names."""
    pairs = (line.partition(b":") for line in text.splitlines())
    return {name: value.strip() for name, _, value in pairs}


def stat(pid: int) -> list[str]:
    """State, parent, process group, session, ... of a process: proc(5) stat from field 3 on.

    Empty if the process is gone or hidden, or if /proc is not usable.
    """
    if sight() == "blind":
        return []
    return _read(f"/proc/{pid}/stat").rpartition(b")")[2].decode("ascii", "replace").split()


def start_of(pid: int) -> str | None:
    """The start of a process, in ticks since boot (field 22 of proc(5) stat).

    Empty if the process has ended, also if it is a zombie. None if it exists or may exist, but /proc does not show it.
    """
    fields = stat(pid)
    if len(fields) > 19:
        return "" if has_ended(fields) else fields[19]
    return None if exists(pid) else ""


def has_ended(fields: list[str]) -> bool:
    """Whether `fields`, as `stat` returns them, are those of a process that has ended."""
    # if the first thread ends before the others, the process is shown as a zombie, too
    return fields[:1] in ([], ["Z"], ["X"]) and (len(fields) < 18 or int(fields[17]) <= 1)


def runs(pid: int, start: str) -> bool | None:
    """Whether the process with this number that started at `start` still runs; None if that is unknown.

    Only for processes of this boot and pid namespace.
    """
    found = start_of(pid)
    if found == "":
        return False
    return found == start if found and start else None


def exists(pid: int) -> bool:
    """Whether a process or a zombie of this pid namespace has this number. Does not read /proc."""
    if not 0 < pid <= _LARGEST_PID:
        return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        pass  # it belongs to another user
    return True


def contents(path: str) -> bytes:
    """The contents of a file of /proc; OSError if it cannot be read."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        parts = []
        while part := os.read(fd, 1 << 16):
            parts.append(part)
    finally:
        os.close(fd)
    return b"".join(parts)


def _read(path: str) -> bytes:
    """The contents of a file of /proc; empty if it cannot be read."""
    try:
        return contents(path)
    except OSError:  # ESRCH if the process ends meanwhile
        return b""
