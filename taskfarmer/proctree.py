"""Process trees: find all descendants of a process, end them, and wait until they are gone.

All loops that end processes are in this module.

Workers and farmers are child subreapers (prctl(2)): a process that loses its parent becomes a child of the nearest of
them. So a descendant that calls `setsid` or forks twice is found, too. This works on Linux only. On other systems, and
if /proc is not usable (`procfs.py`), a task's tree is its process group.

A tree is ended in this order: SIGTERM, once; after the grace time SIGKILL for the known process groups; then SIGSTOP
for all other processes, until no new ones are found; then SIGKILL. A stopped process cannot fork, so this also ends a
fork bomb. A parent is stopped before its children are listed, and killed after them: if the death of a parent orphans
their process group, the kernel continues stopped processes in it (setpgid(2)).
"""

from __future__ import annotations

import ctypes
import errno
import os
import signal
import time
from collections.abc import Callable, Collection, Iterable

from taskfarmer import procfs

_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36
_NO_TERMINAL = (errno.ENXIO, errno.ENOENT)
STUCK_AFTER = 5.0
"""Seconds to wait for a process after SIGKILL. A process in an uninterruptible wait does not die sooner."""
_GIVE_UP_AFTER = 30.0
"""Seconds after the grace time after which `Tree.end` gives up, if new processes start all the time."""
_STOPPING = 2.0
"""Seconds after which the stopped processes are killed, even if new ones are still found."""


def _prctl(option: int, value: int) -> bool:
    try:
        return bool(ctypes.CDLL(None, use_errno=True).prctl(option, value, 0, 0, 0) == 0)
    except (OSError, AttributeError):
        return False


def adopt_orphans() -> bool:
    """Make this process the parent of descendants that lose theirs."""
    return _prctl(_PR_SET_CHILD_SUBREAPER, 1)


def die_with(parent: int, number: int = signal.SIGTERM) -> None:
    """Let the kernel send this process a signal when its parent dies; at once if the parent is dead already."""
    _prctl(_PR_SET_PDEATHSIG, number)
    if os.getppid() != parent:
        os.kill(os.getpid(), number)


def leave_terminal() -> None:
    """Detach this process and its children from the terminal, whose keys and hangup must not reach them.

    Without a terminal a new process group is enough. A new session is avoided, since Linux shares the processors among
    sessions (sched(7), "autogroup"): farmers of one job step would get less than their tasks.
    """
    try:
        os.close(os.open("/dev/tty", os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC))
    except OSError as error:
        if error.errno in _NO_TERMINAL:
            os.setpgid(0, 0)
            return
    os.setsid()


# --- find processes --------------------------------------------------------------------------------


def children(pid: int) -> list[int]:
    """The children of a process, zombies too; none if /proc is not usable."""
    found: list[int] = []
    if procfs.sight() == "blind":
        return found
    try:
        threads = os.listdir(f"/proc/{pid}/task")
    except OSError:  # the process has ended, or belongs to another user and /proc is mounted with hidepid
        return found
    for thread in threads:
        try:
            found += map(int, procfs.contents(f"/proc/{pid}/task/{thread}/children").split())
        except OSError:  # this thread has ended; the other threads count
            if not os.path.exists(f"/proc/self/task/{os.getpid()}/children"):
                return _children_by_search(pid)
    return found


def _children_by_search(parent: int) -> list[int]:
    """For kernels without the `children` files (CONFIG_PROC_CHILDREN)."""
    pids = map(int, filter(str.isdigit, os.listdir("/proc")))
    return [pid for pid in pids if procfs.stat(pid)[1:2] == [str(parent)]]


def lives(pid: int) -> bool:
    """Whether a process that is or was a descendant still runs."""
    return not procfs.has_ended(fields) if (fields := procfs.stat(pid)) else _is_hidden(pid)


def _is_hidden(pid: int) -> bool:
    """Whether a process exists but /proc hides it: a setuid program, if /proc is mounted with hidepid."""
    return procfs.sight() == "partial" and procfs.exists(pid)


def has_children() -> bool:
    """Whether this process has a child, or a zombie. No file is read."""
    return _has_child(os.P_ALL, 0)


def owns_group(group: int) -> bool:
    """Whether a process group contains a child of this process, or a zombie, so that its number cannot be reused."""
    return _has_child(os.P_PGID, group)


def _has_child(kind: int, number: int) -> bool:
    try:
        os.waitid(kind, number, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return False
    return True


def _is_living_child(pid: int) -> bool:
    try:
        return os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None
    except ChildProcessError:
        return False


def reap(keep: Collection[int] = frozenset()) -> bool:
    """Reap adopted children that have ended, until one of `keep` is found; returns whether there were any."""
    any_reaped = False
    while True:
        try:
            found = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
            if found is None or found.si_pid in keep:
                return any_reaped
            os.waitpid(found.si_pid, 0)
        except ChildProcessError:
            return any_reaped
        any_reaped = True


# --- send signals ----------------------------------------------------------------------------------


def send(pid: int, number: int) -> None:
    """Send a signal to a process that may be gone."""
    try:
        os.kill(pid, number)
    except (ProcessLookupError, PermissionError):
        pass


def send_to_group(group: int, number: int) -> None:
    """Send a signal to a process group, if it contains a child. Else the number may belong to another group by now."""
    if owns_group(group):
        try:
            os.killpg(group, number)
        except (ProcessLookupError, PermissionError):
            pass


def _send_to(pid: int, parents: Collection[int], *numbers: int) -> bool:
    """Send signals to a process that is a child of one of `parents`; returns whether it got them.

    The number of a process that has ended may belong to another one by now. So a pidfd refers to the process while its
    parent is compared.
    """
    try:
        pidfd = os.pidfd_open(pid)
    except ProcessLookupError:
        return False
    except (AttributeError, OSError):  # Linux before 5.3, or no descriptor is free
        pidfd = -1
    try:
        fields = procfs.stat(pid)
        if fields and (procfs.has_ended(fields) or int(fields[1]) not in parents):
            return False
        if not fields and not _is_hidden(pid):
            return False
        for number in numbers:
            if pidfd >= 0:
                signal.pidfd_send_signal(pidfd, number)
            else:
                os.kill(pid, number)
    except (ProcessLookupError, PermissionError):
        return False
    finally:
        if pidfd >= 0:
            os.close(pidfd)
    return True


def kill_child(pid: int, seconds: float) -> bool:
    """Kill a child and take its exit status; False if it has not ended after some seconds (uninterruptible I/O)."""
    send(pid, signal.SIGKILL)
    end = time.monotonic() + seconds
    pause = 0.0005
    while True:
        try:
            if os.waitpid(pid, os.WNOHANG)[0]:
                return True
        except ChildProcessError:  # another call has taken its status
            return True
        if time.monotonic() >= end:
            return False
        time.sleep(pause)
        pause = min(pause * 2, 0.05)


def kill_with_tree(pid: int) -> None:
    """Kill a process, and all processes below it first."""
    Tree(pid).kill()
    send(pid, signal.SIGKILL)


# --- trees -----------------------------------------------------------------------------------------


class Tree:
    """The descendants of `root`, by default those of this process. The root does not belong to the tree.

    `groups` returns process groups, and `known` children, that belong to the tree. They are ended even if /proc is not
    usable. Processes in `spare` are left alone, with all their descendants. `stuck` contains those that SIGKILL did not
    end; they are not waited for again.
    """

    def __init__(
        self,
        root: int | None = None,
        groups: Callable[[], Iterable[int]] = tuple,
        known: Callable[[], Iterable[int]] = tuple,
    ) -> None:
        self.root = os.getpid() if root is None else root
        self.stuck: set[int] = set()
        self._groups = groups
        self._known = known

    @property
    def _is_empty(self) -> bool:
        """Whether the tree is empty: orphans become children of this process, and it has none."""
        return self.root == os.getpid() and not has_children()

    def has_hidden(self) -> bool:
        """Whether there may be processes that cannot be listed, since /proc is not usable."""
        return procfs.sight() == "blind" and not self._is_empty

    def living(self, spare: Collection[int] = frozenset()) -> list[int]:
        """All running processes, parents before their children; without /proc only the known groups and children."""
        if self._is_empty:
            return []
        if procfs.sight() == "blind":
            return [*self._groups_but(spare), *self._known_but(spare)]
        return [pid for pid in self._walk(spare) if lives(pid)]

    def _known_but(self, spare: Collection[int]) -> list[int]:
        """The known children that still run."""
        return [pid for pid in self._known() if pid not in spare and _is_living_child(pid)]

    def _groups_but(self, spare: Collection[int]) -> list[int]:
        """The known groups that still contain a child."""
        return [group for group in self._groups() if group not in spare and owns_group(group)]

    def _walk(self, spare: Collection[int]) -> Iterable[int]:
        """All processes, zombies too. The children of each are listed after it was yielded."""
        waiting = [self.root]
        seen = {self.root, *spare, os.getpid()}
        while waiting:
            for pid in children(waiting.pop()):
                if pid not in seen:
                    seen.add(pid)
                    yield pid
                    waiting.append(pid)

    def terminate(self, pids: Collection[int], asked: set[int], spare: Collection[int] = frozenset()) -> None:
        """Send SIGTERM to processes that were not `asked` yet, and continue those that are stopped.

        A process may save its state with the help of others. So those that it starts after SIGTERM do not get one.
        """
        before = frozenset(asked)
        groups = [] if before else self._groups_but(spare)
        for group in groups:
            send_to_group(group, signal.SIGTERM)
            send_to_group(group, signal.SIGCONT)
        asked.update(groups)
        family = {self.root, os.getpid(), *pids}
        for pid in pids:
            if pid not in before:
                asked.add(pid)
                fields = procfs.stat(pid)
                is_helper = fields and (int(fields[1]) in before or int(fields[2]) in groups)
                if procfs.sight() == "blind":
                    if pid not in groups:
                        send(pid, signal.SIGTERM)
                        send(pid, signal.SIGCONT)
                elif not is_helper:
                    _send_to(pid, family, signal.SIGTERM, signal.SIGCONT)

    def kill(self, spare: Collection[int] = frozenset()) -> None:
        """Send SIGKILL to all processes. They are stopped before, so that none escapes by forking."""
        for group in self._groups_but(spare):
            send_to_group(group, signal.SIGKILL)
        if procfs.sight() == "blind":
            for pid in self._known_but(spare):
                send(pid, signal.SIGKILL)
            return
        until = time.monotonic() + _STOPPING
        family = {self.root, os.getpid()}
        stopped: dict[int, None] = {}
        while self._stop_more(spare, family, stopped) and time.monotonic() < until:
            pass
        for pid in reversed(stopped):
            _send_to(pid, family, signal.SIGKILL)

    def _stop_more(self, spare: Collection[int], family: set[int], stopped: dict[int, None]) -> bool:
        """Stop the processes that are not stopped yet; returns whether there were any."""
        before = len(stopped)
        for pid in self._walk(spare):
            family.add(pid)
            if pid not in stopped and _send_to(pid, family, signal.SIGSTOP):
                stopped[pid] = None
        return len(stopped) > before

    def end(
        self,
        grace_until: float,
        spare: Collection[int] = frozenset(),
        sleep: Callable[[float], float | None] = time.sleep,
        reap_own: Callable[[], Collection[int]] = frozenset,
    ) -> list[int]:
        """End all processes: SIGTERM, then SIGKILL. Returns those that do not die, since they are uninterruptible.

        `grace_until` is on the monotonic clock. `sleep` waits for some seconds, and may return an earlier end of the
        grace time. `reap_own` reaps children whose status its caller needs, and returns those that still run.
        """
        asked: set[int] = set()
        killed: dict[int, float] = {}  # when SIGKILL was sent first
        pause = 0.001
        while True:
            reap({*spare, *reap_own()})
            now = time.monotonic()
            if now >= grace_until and not self._is_empty:
                self.kill(spare)  # before the processes are listed: a fork bomb leaves little processor time for that
            left = [pid for pid in self.living(spare) if pid not in self.stuck]
            if not left:
                reap({*spare, *reap_own()})  # a child may have ended since `reap_own` was called
                return []
            if now < grace_until:
                self.terminate(left, asked, spare)
            else:
                now = time.monotonic()
                stuck = [pid for pid in left if now - killed.setdefault(pid, now) >= STUCK_AFTER]
                if len(stuck) == len(left) or now >= grace_until + _GIVE_UP_AFTER:
                    self.stuck.update(left)
                    return left
            sooner = sleep(pause)
            if sooner is not None and sooner < grace_until:
                grace_until = sooner
            pause = min(pause * 2, 0.05)
