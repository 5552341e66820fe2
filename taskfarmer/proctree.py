"""Process trees: find every descendant, end it, and know that it is gone.

A descendant that calls `setsid` or forks twice stays ours, since a worker and a farmer are child subreapers
(prctl(2)): a process that loses its parent becomes a child of the nearest of them. Linux only; on other systems, and
if /proc cannot be believed (`proc.py`), a task's tree is its process group.

A process is ended in this order: SIGTERM, once; when the grace time is over, SIGKILL for the known process groups;
then SIGSTOP for everything that is left, until nothing new is found; then SIGKILL. A stopped process cannot fork, so
a fork bomb loses. A parent is stopped before its children are looked up, and killed after them: the kernel lets
stopped processes go on if the death of a parent makes their process group an orphan (setpgid(2)).
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
"""Seconds after SIGKILL for which a process is waited for. One that waits for a device does not die sooner."""
_MOST_PATIENT = 30.0
"""Seconds after the grace time for which processes are ended that were started anew all the time."""
_STOPPING = 2.0
"""Seconds after which those that are stopped are killed, although new processes were still found."""


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


# --- looking ---------------------------------------------------------------------------------------


def children(pid: int) -> list[int]:
    """The living and dead children of a process; none if /proc cannot be believed."""
    found: list[int] = []
    if procfs.sight() == "blind":
        return found
    try:
        threads = os.listdir(f"/proc/{pid}/task")
    except OSError:  # gone, or another user's where /proc is mounted with hidepid
        return found
    for thread in threads:
        try:
            found += map(int, procfs.contents(f"/proc/{pid}/task/{thread}/children").split())
        except OSError:  # a thread that has ended since: those of the others count
            if not os.path.exists(f"/proc/self/task/{os.getpid()}/children"):
                return _children_by_search(pid)
    return found


def _children_by_search(parent: int) -> list[int]:
    """For kernels without the `children` files (CONFIG_PROC_CHILDREN)."""
    pids = map(int, filter(str.isdigit, os.listdir("/proc")))
    return [pid for pid in pids if procfs.stat(pid)[1:2] == [str(parent)]]


def lives(pid: int) -> bool:
    """Whether a process that is or was below us still runs."""
    return not procfs.has_ended(fields) if (fields := procfs.stat(pid)) else _is_hidden(pid)


def _is_hidden(pid: int) -> bool:
    """Whether a process exists that /proc does not show us: a setuid program, if /proc is mounted with hidepid."""
    return procfs.sight() == "partial" and procfs.exists(pid)


def has_children() -> bool:
    """Whether this process has a child, living or dead; no file is read."""
    return _has_child(os.P_ALL, 0)


def owns_group(group: int) -> bool:
    """Whether a child of ours, living or dead, is in a process group: as long as one is, its number is not reused."""
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


def reap(keep: Collection[int] = frozenset()) -> None:
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


# --- signals ---------------------------------------------------------------------------------------


def send(pid: int, number: int) -> None:
    """A signal to a process that may be gone."""
    try:
        os.kill(pid, number)
    except (ProcessLookupError, PermissionError):
        pass


def send_to_group(group: int, number: int) -> None:
    """A signal to a process group, if a child of ours is in it: else its number may be that of another group."""
    if owns_group(group):
        try:
            os.killpg(group, number)
        except (ProcessLookupError, PermissionError):
            pass


def _send_to(pid: int, parents: Collection[int], *numbers: int) -> bool:
    """Signals to a process that is a child of one of `parents`; whether it got them.

    The number of a process that has ended may be another one's by now, so the process is held by a descriptor while
    we look who its parent is.
    """
    try:
        held = os.pidfd_open(pid)
    except ProcessLookupError:
        return False
    except (AttributeError, OSError):  # Linux before 5.3, or no descriptor is free
        held = -1
    try:
        fields = procfs.stat(pid)
        if fields and (procfs.has_ended(fields) or int(fields[1]) not in parents):
            return False
        if not fields and not _is_hidden(pid):
            return False
        for number in numbers:
            if held >= 0:
                signal.pidfd_send_signal(held, number)
            else:
                os.kill(pid, number)
    except (ProcessLookupError, PermissionError):
        return False
    finally:
        if held >= 0:
            os.close(held)
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
    """The processes below `root`, by default the process that looks, which is no part of the tree itself.

    `groups` returns process groups and `known` children of ours that are known to belong to it: they are ended even if
    /proc cannot be believed. `spare` are processes that are left alone, with all below them; `stuck` are those that
    even SIGKILL did not end, which are not waited for again.
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
        """Whether nothing can be in it: orphans become our children, and we have none."""
        return self.root == os.getpid() and not has_children()

    def has_hidden(self) -> bool:
        """Whether there are processes that we do not see, since /proc cannot be believed."""
        return procfs.sight() == "blind" and not self._is_empty

    def living(self, spare: Collection[int] = frozenset()) -> list[int]:
        """All processes of the tree that run, parents before their children; if /proc is not believed, those known."""
        if self._is_empty:
            return []
        if procfs.sight() == "blind":
            return [*self._groups_but(spare), *self._known_but(spare)]
        return [pid for pid in self._walk(spare) if lives(pid)]

    def _known_but(self, spare: Collection[int]) -> list[int]:
        """The known children that still run."""
        return [pid for pid in self._known() if pid not in spare and _is_living_child(pid)]

    def _groups_but(self, spare: Collection[int]) -> list[int]:
        """The known groups that still are those of processes of ours."""
        return [group for group in self._groups() if group not in spare and owns_group(group)]

    def _walk(self, spare: Collection[int]) -> Iterable[int]:
        """Every process of the tree, dead ones too. The children of one are looked up after it was handed out."""
        waiting = [self.root]
        seen = {self.root, *spare, os.getpid()}
        while waiting:
            for pid in children(waiting.pop()):
                if pid not in seen:
                    seen.add(pid)
                    yield pid
                    waiting.append(pid)

    def ask(self, pids: Collection[int], asked: set[int], spare: Collection[int] = frozenset()) -> None:
        """Ask those that were not `asked` yet to end, stopped ones too.

        Processes that one has started after it was asked are left to it: that may be how it saves its state.
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
                left_to_others = fields and (int(fields[1]) in before or int(fields[2]) in groups)
                if procfs.sight() == "blind":
                    if pid not in groups:
                        send(pid, signal.SIGTERM)
                        send(pid, signal.SIGCONT)
                elif not left_to_others:
                    _send_to(pid, family, signal.SIGTERM, signal.SIGCONT)

    def kill(self, spare: Collection[int] = frozenset()) -> None:
        """Send SIGKILL to everything, in a way that no process escapes by forking."""
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
        """Stop all that were not stopped yet; whether there were any."""
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
        nap: Callable[[float], float | None] = time.sleep,
        look: Callable[[], Collection[int]] = frozenset,
    ) -> list[int]:
        """End everything: SIGTERM, then SIGKILL. Returns those that would not die, since the kernel holds them.

        `grace_until` is on the monotonic clock; `nap` waits for some seconds, and may return an earlier end of the
        grace time. `look` takes the exit status of children, and returns those whose status nobody else may take.
        """
        asked: set[int] = set()
        killed: dict[int, float] = {}  # when SIGKILL was first sent to it
        pause = 0.001
        while True:
            reap({*spare, *look()})
            now = time.monotonic()
            if now >= grace_until and not self._is_empty:
                self.kill(spare)  # before anything is listed: a fork bomb leaves us little of the processors
            left = [pid for pid in self.living(spare) if pid not in self.stuck]
            if not left:
                reap(spare)
                return []
            if now < grace_until:
                self.ask(left, asked, spare)
            else:
                now = time.monotonic()
                stuck = [pid for pid in left if now - killed.setdefault(pid, now) >= STUCK_AFTER]
                if len(stuck) == len(left) or now >= grace_until + _MOST_PATIENT:
                    self.stuck.update(left)
                    return left
            sooner = nap(pause)
            if sooner is not None and sooner < grace_until:
                grace_until = sooner
            pause = min(pause * 2, 0.05)
