"""Tasks as a worker has them: batches that wait in a slot, and a task that was begun."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(slots=True)
class Batch:
    """Lines of tasks (without their line feeds), all at the same attempt; `next` is the place of the next one."""

    number: int
    attempt: int
    lines: list[bytes]
    next: int = 0


@dataclass(slots=True)
class Task:
    """A task that was begun. `start` is in epoch seconds."""

    batch: Batch
    line: bytes
    task_id: int
    command: bytes
    start: float
