"""Tasks as a worker has them: batches that wait in a slot, and a task that was begun."""

from __future__ import annotations


class Batch:
    """Lines of tasks (without their line feeds), all at the same attempt; `next` is the place of the next one."""

    __slots__ = ("attempt", "lines", "next", "number")

    def __init__(self, number: int, attempt: int, lines: list[bytes]) -> None:
        self.number = number
        self.attempt = attempt
        self.lines = lines
        self.next = 0


class Task:
    """A task that was begun. `start` is in epoch seconds."""

    __slots__ = ("batch", "command", "line", "start", "task_id")

    def __init__(self, batch: Batch, line: bytes, task_id: int, command: bytes, start: float) -> None:
        self.batch = batch
        self.line = line
        self.task_id = task_id
        self.command = command
        self.start = start
