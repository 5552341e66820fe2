"""Process trees: find every descendant, end it, and know that it is gone.

A descendant that calls `setsid` or forks twice stays ours, since a worker and a farmer are child
subreapers (prctl(2)): what loses its parent becomes a child of the nearest of them. Linux only; on
other systems a task's tree is its process group.
"""

from __future__ import annotations

import ctypes
import errno
import os
import signal
import time
from collections.abc import Callable

from taskfarmer import durable

_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36
_NO_TERMINAL = (errno.ENXIO, errno.ENOENT)
STUCK_AFTER = 5.0
"""Seconds after SIGKILL for which a process is waited for. One that waits for a device does not die sooner."""


def _prctl(option: int, value: int) -> bool:
    try:
        return bool(ctypes.CDLL(None, use_errno=True).prctl(option, value, 0, 0, 0) == 0)
    except (OSError, AttributeError):
        return False


def adopt_orphans() -> bool:
    """Become the parent of descendants that lose theirs."""
    return _prctl(_PR_SET_CHILD_SUBREAPER, 1)


def die_with(parent: int, number: int = signal.SIGTERM) -> None:
    """Get a signal when our parent dies; at once where it is dead already."""
    _prctl(_PR_SET_PDEATHSIG, number)
    if os.getppid() != parent:
        os.kill(os.getpid(), number)


def leave_terminal() -> None:
    """Get away from the terminal, so that neither its keys nor its end reach us and what we start, nor we it.

    Where there is none a process group of our own is enough. Sessions are not made without need: Linux shares the
    processors between them (sched(7), "autogroup"), so that farmers of one job step would get less than their tasks.
    """
    try:
        os.close(os.open("/dev/tty", os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC))
    except OSError as error:
        if error.errno in _NO_TERMINAL:
            os.setpgid(0, 0)
            return
    os.setsid()


def children(pid: int) -> list[int]:
    """The living and dead children of a process."""
    found: list[int] = []
    try:
        threads = os.listdir(f"/proc/{pid}/task")
    except OSError:  # gone, or another user's where /proc is mounted with hidepid
        return found
    for thread in threads:
        try:
            found += map(int, durable.read(f"/proc/{pid}/task/{thread}/children").split())
        except OSError:  # a thread that has ended since: those of the others count
            if not os.path.exists(f"/proc/self/task/{os.getpid()}/children"):
                return _children_by_search(pid)
    return found


def _children_by_search(parent: int) -> list[int]:
    """For kernels without the `children` files (CONFIG_PROC_CHILDREN)."""
    return [pid for pid in map(int, filter(str.isdigit, os.listdir("/proc"))) if _stat(pid)[1:2] == [str(parent)]]


def _stat(pid: int) -> list[str]:
    """State, parent, ... of a process: proc(5) stat from field 3 on."""
    try:
        return durable.read(f"/proc/{pid}/stat").rpartition(b")")[2].decode("ascii", "replace").split()
    except OSError:
        return []


def descendants(pid: int) -> list[int]:
    """Every living process below `pid`, itself left out."""
    found: list[int] = []
    waiting = children(pid)
    while waiting:
        child = waiting.pop()
        waiting += children(child)
        if _stat(child)[:1] not in ([], ["Z"], ["X"]):
            found.append(child)
    return found


def send(pid: int, number: int) -> None:
    """A signal to a process that may be gone."""
    try:
        os.kill(pid, number)
    except (ProcessLookupError, PermissionError):
        pass


def ask_to_end(pids: list[int], asked: set[int]) -> None:
    """Ask those that were not `asked` yet to end, stopped ones too.

    What a process that was asked before has started since is left to it: that may be how it saves its state.
    """
    before = frozenset(asked)
    for pid in pids:
        if pid not in before:
            asked.add(pid)
            parent = _stat(pid)[1:2]
            if not parent or int(parent[0]) not in before:
                send(pid, signal.SIGTERM)
                send(pid, signal.SIGCONT)


def reap(keep: frozenset[int] = frozenset()) -> None:
    """Take the exit status of adopted children, so that they do not stay as zombies; not of `keep`."""
    while True:
        try:
            found = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        except ChildProcessError:
            return
        if found is None or found.si_pid in keep:
            return
        try:
            os.waitpid(found.si_pid, 0)
        except ChildProcessError:
            return


def end_descendants(
    grace_until: float,
    keep: frozenset[int] = frozenset(),
    nap: Callable[[float], float | None] = time.sleep,
    stuck: frozenset[int] | set[int] = frozenset(),
) -> list[int]:
    """End everything below us but `keep` and what is below those: SIGTERM, then SIGKILL.

    `grace_until` is on the monotonic clock; `nap` waits for some seconds, and may answer with an earlier
    one. Returns what would not die: processes that the kernel holds in an uninterruptible wait. Those known
    to be `stuck` are not waited for again.
    """
    me = os.getpid()
    asked: set[int] = set()
    give_up = max(grace_until, time.monotonic()) + STUCK_AFTER
    pause = 0.001
    while True:
        reap(keep)
        left = [pid for child in children(me) if child not in keep for pid in (child, *descendants(child))]
        left = [pid for pid in left if pid not in stuck and _stat(pid)[:1] not in ([], ["Z"], ["X"])]
        if not left:
            reap(keep)
            return []
        now = time.monotonic()
        if now >= give_up:
            return left
        if now >= grace_until:
            for pid in left:
                send(pid, signal.SIGKILL)
        else:
            ask_to_end(left, asked)
        sooner = nap(pause)
        if sooner is not None and sooner < grace_until:
            grace_until, give_up = sooner, max(sooner, now) + STUCK_AFTER
        pause = min(pause * 2, 0.05)
