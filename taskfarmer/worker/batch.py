"""Tasks as a worker has them: batches that wait in a slot, and the tasks in them, which become attempts.

Whatever can be known of a task before it begins is found out when its batch comes, for all of the batch at once. Right
after a task has ended the processor has nothing of us in its caches, and each line of code costs several times as much
as in a loop.
"""

from __future__ import annotations

import time

from taskfarmer.formats.tasks import parse_task

FRESH = 0.75
"""The part of the lease for which a batch may wait in its slot. A farmer that was silent for longer may be expelled."""


class Task:
    """A task of a batch, from its line (without its line feed) to the process that runs it.

    `argv` is what to start, where that was known beforehand. `start` is in epoch seconds.
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
    """Tasks of a slot that follow each other, all at the same attempt; `next` is the place of the next one.

    After `fresh_until` the batch is too old to start tasks of it. Its clock also runs while the node is suspended.
    """

    __slots__ = ("attempt", "fresh_until", "next", "number", "slot", "tasks")

    def __init__(self, slot: int, number: int, attempt: int, lines: list[bytes], lease: float) -> None:
        self.slot = slot
        self.number = number
        self.attempt = attempt
        self.tasks = [Task(self, line) for line in lines]
        self.next = 0
        self.fresh_until = time.clock_gettime(time.CLOCK_BOOTTIME) + FRESH * lease
