"""What /proc shows of processes, and how far it can be believed.

A container can have no /proc, or that of another pid namespace, in which our numbers belong to other processes. A
/proc with the mount option `hidepid` (proc(5)) hides processes of other users, and setuid programs of our own. So
each process proves once that /proc shows it under its own number. Without that proof nothing here reads /proc, and a
process is known only by its number and by kill(2), which no mount can falsify.
"""

from __future__ import annotations

import os
from functools import cache
from typing import Literal

Sight = Literal["whole", "partial", "blind"]
"""`whole`: /proc shows all processes of our pid namespace. `partial`: it hides some. `blind`: it does not show us."""
_LARGEST_PID = 1 << 22
"""PID_MAX_LIMIT of Linux."""


def sight() -> Sight:
    """How far /proc can be believed in this process; looked up once, and again in a process that was forked."""
    return _sight_of(os.getpid())


@cache
def _sight_of(pid: int) -> Sight:
    parents = {os.getppid()}
    found = _status_fields(_read("/proc/self/status"))
    parents.add(os.getppid())  # our parent may end while we look
    # `NSpid` (Linux 4.1) has a number for each pid namespace from that of this /proc down to ours
    numbers = found.get(b"NSpid", found.get(b"Pid", b"")).split()
    if numbers != [b"%d" % pid] or found.get(b"PPid") not in {b"%d" % parent for parent in parents}:
        return "blind"
    # each pid namespace has a process 1, mostly another user's
    return "whole" if _read("/proc/1/stat") else "partial"


def _status_fields(text: bytes) -> dict[bytes, bytes]:
    """The fields of proc(5) status by their names."""
    pairs = (line.partition(b":") for line in text.splitlines())
    return {name: value.strip() for name, _, value in pairs}


def stat(pid: int) -> list[str]:
    """State, parent, process group, session, ... of a process: proc(5) stat from field 3 on.

    Empty if the process is gone or hidden, or if /proc cannot be believed.
    """
    if sight() == "blind":
        return []
    return _read(f"/proc/{pid}/stat").rpartition(b")")[2].decode("ascii", "replace").split()


def start_of(pid: int) -> str | None:
    """When a process started, in ticks since boot (field 22 of proc(5) stat).

    Empty if the process has ended (a zombie has, too), None if it exists or may exist, but /proc does not show it.
    """
    fields = stat(pid)
    if len(fields) > 19:
        return "" if has_ended(fields) else fields[19]
    return None if exists(pid) else ""


def has_ended(fields: list[str]) -> bool:
    """Whether `fields`, as `stat` returns them, are those of a process that runs no more."""
    # the first thread of a process may end before the others: it is a zombie then, too
    return fields[:1] in ([], ["Z"], ["X"]) and (len(fields) < 18 or int(fields[17]) <= 1)


def runs(pid: int, start: str) -> bool | None:
    """Whether the process with this number that started at `start` still runs; None if that cannot be known.

    Only for processes of our own boot and pid namespace.
    """
    found = start_of(pid)
    if found == "":
        return False
    return found == start if found and start else None


def exists(pid: int) -> bool:
    """Whether some process, or a zombie, of our pid namespace has this number, whatever /proc shows."""
    if not 0 < pid <= _LARGEST_PID:
        return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        pass  # another user's
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
    except OSError:  # a process that ends meanwhile answers ESRCH
        return b""
