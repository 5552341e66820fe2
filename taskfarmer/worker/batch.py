"""Batches of tasks that wait in a slot of a worker, and the tasks in them.

A worker prepares a batch when it arrives, all of its tasks at once. Right after a task has ended our code has left
the CPU caches, and each line of it costs several times as much as in a loop.
"""

from __future__ import annotations

import time

from taskfarmer.formats.tasks import parse_task

FRESH = 0.75
"""The share of the lease for which a batch may wait in its slot. After a longer silence its farmer may be expelled."""


class Task:
    """A task of a batch, from its line (without line feed) to the process that runs it.

    `argv` is its program and arguments, if they were planned when the batch arrived. `start` is in epoch seconds.
    """

    __slots__ = ("argv", "batch", "command", "line", "pid", "start", "task_id")

    def __init__(self, batch: Batch, line: bytes) -> None:
        self.batch = batch
        self.line = line
        self.task_id, self.command = parse_task(line)
        self.argv: list[str] | None = None
        self.start = 0.0
        self.pid = 0


class Batch:
    """Consecutive tasks for a slot, all at the same attempt. `next` is the index of the next one.

    After `fresh_until` the batch is too old: its tasks must not be started. That clock runs while the node is
    suspended.
    """

    __slots__ = ("attempt", "fresh_until", "next", "number", "slot", "tasks")

    def __init__(self, slot: int, number: int, attempt: int, lines: list[bytes], lease: float) -> None:
        self.slot = slot
        self.number = number
        self.attempt = attempt
        self.tasks = [Task(self, line) for line in lines]
        self.next = 0
        self.fresh_until = time.clock_gettime(time.CLOCK_BOOTTIME) + FRESH * lease
