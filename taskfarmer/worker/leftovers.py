"""Find processes that tasks leave, by a scan about once a second.

A worker adopts them when they lose their parents. Their process group shows which task they belong to. If they left the
group, the variables in their environment show it. A process counts if two scans find it: `cmd > >(tee log)` leaves one
for a moment, which is not worth a warning.
"""

from __future__ import annotations

import os
import select
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterable

from taskfarmer import procfs
from taskfarmer.proctree import Tree, children, has_children, kill_child, owns_group

KEEP, WAIT, END = ("keep", "wait", "end")
"""Processes that a task leaves go on; or the task goes on until they end; or they are stopped with the task."""
SCAN_EVERY = 1.0
MOMENT = 0.2
"""Seconds for which processes of the last tasks may end by themselves before the worker stops them."""
UNKNOWN = -1
"""The ID if it is not known which task left a process."""
_MOST_READ = 20
"""Processes whose environment a worker reads: the farmer does not name more tasks than that."""
_READ_TIMEOUT = 0.5
_MOST_BYTES = 1 << 20


class Leftovers:
    """The processes that the tasks of a worker have left.

    `running` returns the tasks that run, by process, and `own` the children that were not adopted.
    """

    def __init__(self, farmer: str, running: Callable[[], dict[int, int]], own: Callable[[], Iterable[int]]) -> None:
        self.ended: dict[int, int] = {}
        """Tasks that ended since the last scan, by process group (or a negative number); the worker adds them."""
        self.next_scan = 0.0
        self._farmer = farmer
        self._running = running
        self._own = own
        self._suspects: dict[int, int] = {}  # process -> task, found by the last scan
        self._of_running: dict[int, int] = {}  # process -> task that ran during the last scan
        self._known: dict[int, int] = {}  # process -> task, counted already
        self._groups: dict[int, int] = {}  # process group of a task -> task
        self._to_read = _MOST_READ
        self._readers: list[int] = []

    @property
    def groups(self) -> Iterable[int]:
        """Process groups of ended tasks that still have processes."""
        return (*self.ended, *self._groups)

    @property
    def expected(self) -> bool:
        """Whether another scan may find something."""
        return bool(self.ended or self._suspects)

    def seconds_to_scan(self, now: float) -> float | None:
        """Seconds until the next scan; None if no scan is needed."""
        return max(0.0, self.next_scan - now) if self.expected else None

    def scan(self, now: float, last: bool = False) -> Counter[int]:
        """Count the processes that each task has left since the scan before. The `last` scan counts all at once."""
        self.next_scan = now + SCAN_EVERY
        ended, self.ended = self.ended, {}
        suspects, self._suspects = self._suspects, {}
        if not has_children():
            return Counter()
        if procfs.sight() == "blind":
            return self._scan_groups(ended, suspects, last)
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
        """The adopted processes that run, with their process groups."""
        running = self._running()
        known = {*running, *self._own(), *self._readers}
        found = {}
        for pid in children(os.getpid()):
            if pid not in known:
                fields = procfs.stat(pid)
                if not procfs.has_ended(fields) and int(fields[2]) not in running:
                    found[pid] = int(fields[2])
        return found

    def _tasks_of(self, fresh: dict[int, int], ended: dict[int, int], suspects: dict[int, int]) -> dict[int, int]:
        """The tasks that left processes, without tasks that still run."""
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
        """Find the tasks of processes in their environments. A child reads them, since the kernel may block it."""
        read_end, write_end = os.pipe2(os.O_CLOEXEC)
        try:
            reader = _fork_reader(write_end, pids, self._farmer)
        except OSError:
            os.close(read_end)
            return {}
        finally:
            os.close(write_end)
        data, end = b"", time.monotonic() + _READ_TIMEOUT
        poll = select.poll()
        poll.register(read_end, select.POLLIN)
        while poll.poll(max(0.0, end - time.monotonic()) * 1000):
            part = os.read(read_end, 1 << 16)
            if not part:
                break
            data += part
        os.close(read_end)
        if not kill_child(reader, _READ_TIMEOUT):
            self._readers.append(reader)
        return {int(line.split()[0]): int(line.split()[1]) for line in data.splitlines(True) if line.endswith(b"\n")}

    def _scan_groups(self, ended: dict[int, int], suspects: dict[int, int], last: bool) -> Counter[int]:
        """Scan without /proc, which finds process groups, but not the number of processes in each."""
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
    """Write the ID of the task that each process belongs to, if its environment names this farmer."""
    mark = b"TASKFARMER_FARMER=" + os.fsencode(farmer)
    for pid in pids:
        try:
            with open(f"/proc/{pid}/environ", "rb") as file:
                words = file.read(_MOST_BYTES).split(b"\0")
        except OSError:
            continue
        task = next((word[19:] for word in words if word.startswith(b"TASKFARMER_TASK_ID=")), b"")
        if mark in words and task.isdigit():
            os.write(fd, b"%d %s\n" % (pid, task))
