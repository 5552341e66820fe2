"""Processes that tasks leave behind: found by a look about once a second, not by one for each task.

A worker adopts them when they lose their parents. To which task one belongs is known by its process group, unless it
left that; then by the variables in its environment. A process counts if it is there at two looks:
`cmd > >(tee log)` leaves one for a moment, and that is no news.
"""

from __future__ import annotations

import os
import select
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterable

from taskfarmer import procfs
from taskfarmer.proctree import Tree, children, has_children, kill_child, owns_group

KEEP, WAIT, END = CHOICES = ("keep", "wait", "end")
"""What becomes of processes that a task leaves: they go on; the task goes on until they end; they are ended with it."""
LOOK_EVERY = 1.0
MOMENT = 0.2
"""Seconds for which processes of the last tasks may end by themselves before the worker ends them."""
UNKNOWN = -1
"""Stands for a task if it is not known which one left a process."""
_NAMED = 20
"""Processes whose environment is read in the life of a worker: more tasks than that are not named anyway."""
_PATIENCE = 0.5
_MOST = 1 << 20


class Leftovers:
    """What one worker knows of processes that its tasks left.

    `running` returns the tasks that run, by process, and `own` children that were not adopted.
    """

    def __init__(self, farmer: str, running: Callable[[], dict[int, int]], own: Callable[[], Iterable[int]]) -> None:
        self.ended: dict[int, int] = {}
        """Tasks that ended since the last look, by process group (or a negative number); filled by the worker."""
        self.next_look = 0.0
        self._farmer = farmer
        self._running = running
        self._own = own
        self._suspects: dict[int, int] = {}  # process -> task, as of the last look
        self._of_running: dict[int, int] = {}  # process -> task that ran at the last look
        self._known: dict[int, int] = {}  # process -> task, counted
        self._groups: dict[int, int] = {}  # process group of a task -> task
        self._to_read = _NAMED
        self._readers: list[int] = []

    @property
    def groups(self) -> Iterable[int]:
        """Process groups of ended tasks in which processes are left."""
        return (*self.ended, *self._groups)

    @property
    def expected(self) -> bool:
        """Whether there may be something to look for."""
        return bool(self.ended or self._suspects)

    def patience(self, now: float) -> float | None:
        """Seconds until the next look; None if there is nothing to look for."""
        return max(0.0, self.next_look - now) if self.expected else None

    def look(self, now: float, last: bool = False) -> Counter[int]:
        """How many processes which tasks left that were not counted yet. At the `last` look all count at once."""
        self.next_look = now + LOOK_EVERY
        ended, self.ended = self.ended, {}
        suspects, self._suspects = self._suspects, {}
        if not has_children():
            return Counter()
        if procfs.sight() == "blind":
            return self._look_at_groups(ended, suspects, last)
        orphans = self._orphans()
        for known in (self._known, self._of_running):
            for pid in known.keys() - orphans.keys():
                del known[pid]
        groups = {**self._groups, **ended}
        self._groups = {group: groups[group] for group in orphans.values() if group in groups}
        fresh = {pid: group for pid, group in orphans.items() if pid not in self._known}
        found: Counter[int] = Counter()
        for pid, task in self._tasks_of(fresh, ended, suspects).items():
            if pid in suspects or last:
                self._known[pid] = task
                found[task] += 1 + len(Tree(pid).living())
            else:
                self._suspects[pid] = task
        return found

    def _orphans(self) -> dict[int, int]:
        """The living processes that were adopted, and their process groups."""
        running = self._running()
        ours = {*running, *self._own(), *self._readers}
        found = {}
        for pid in children(os.getpid()):
            if pid not in ours:
                fields = procfs.stat(pid)
                if not procfs.has_ended(fields) and int(fields[2]) not in running:
                    found[pid] = int(fields[2])
        return found

    def _tasks_of(self, fresh: dict[int, int], ended: dict[int, int], suspects: dict[int, int]) -> dict[int, int]:
        """The tasks that left processes, as far as they have ended."""
        running = self._running()
        found: dict[int, int] = {}
        unknown = []
        for pid, group in fresh.items():
            found[pid] = suspects.get(pid, self._of_running.get(pid, self._groups.get(group, UNKNOWN)))
            if found[pid] == UNKNOWN and pid not in suspects:
                unknown.append(pid)
        candidates = {*ended.values(), *running.values()}
        if unknown and len(candidates) == 1 and not self._known:
            found.update(dict.fromkeys(unknown, *candidates))
        elif unknown and self._to_read > 0:
            self._to_read -= len(unknown)
            found.update(self._read(unknown))
        runs = set(running.values())
        self._of_running = {pid: task for pid, task in found.items() if task in runs}
        return {pid: task for pid, task in found.items() if task not in runs}

    def _read(self, pids: list[int]) -> dict[int, int]:
        """Ask the environment of processes for their tasks, in a process of its own: the kernel may let it wait."""
        ours, theirs = os.pipe2(os.O_CLOEXEC)
        try:
            reader = _fork_reader(theirs, pids, self._farmer)
        except OSError:
            os.close(ours)
            return {}
        finally:
            os.close(theirs)
        data, end = b"", time.monotonic() + _PATIENCE
        poll = select.poll()
        poll.register(ours, select.POLLIN)
        while poll.poll(max(0.0, end - time.monotonic()) * 1000):
            part = os.read(ours, 1 << 16)
            if not part:
                break
            data += part
        os.close(ours)
        if not kill_child(reader, _PATIENCE):
            self._readers.append(reader)
        return {int(line.split()[0]): int(line.split()[1]) for line in data.splitlines(True) if line.endswith(b"\n")}

    def _look_at_groups(self, ended: dict[int, int], suspects: dict[int, int], last: bool) -> Counter[int]:
        """The same without /proc: only process groups are known, and not how many processes are in one."""
        running = self._running()
        found: Counter[int] = Counter()
        for group, task in {**ended, **suspects}.items():
            if group <= 0 or group in running or not owns_group(group):
                continue
            if group in suspects or last:
                self._groups[group] = task
                found[task] += 1
            else:
                self._suspects[group] = task
        return found


def _fork_reader(fd: int, pids: Collection[int], farmer: str) -> int:
    """Fork a process that runs `write_tasks`."""
    pid = os.fork()
    if pid == 0:
        try:
            write_tasks(fd, pids, farmer)
        finally:
            os._exit(0)
    return pid


def write_tasks(fd: int, pids: Collection[int], farmer: str) -> None:
    """Write the ID of the task to which each process belongs, by its environment, if it is one of this farmer."""
    mark = b"TASKFARMER_FARMER=" + os.fsencode(farmer)
    for pid in pids:
        try:
            with open(f"/proc/{pid}/environ", "rb") as file:
                words = file.read(_MOST).split(b"\0")
        except OSError:
            continue
        task = next((word[19:] for word in words if word.startswith(b"TASKFARMER_TASK_ID=")), b"")
        if mark in words and task.isdigit():
            os.write(fd, b"%d %s\n" % (pid, task))
