"""A slot of a worker: the batches that wait in it, the task that runs in it, and its entry in shared memory."""

from __future__ import annotations

import struct
import time
from collections import deque

from taskfarmer.formats.timeline import farmer_number
from taskfarmer.worker.batch import Batch, Task
from taskfarmer.worker.context import SlotContext
from taskfarmer.worker.report import Recorder

SHOWN = struct.Struct("<qid")
"""A slot's entry for its farmer: ID + 1 of the task that runs, its attempt and its start.

The ID is negative if that task has ended, and 0 before the first one.
"""
GROUP = struct.Struct("<i")
"""The next field: the process group of the last task. The farmer finds processes of a killed worker there."""
STRIDE = 64
"""Bytes of an entry: a cache line."""


class Slot:
    def __init__(self, context: SlotContext, shown: memoryview) -> None:
        self.context = context
        self.number = context.slot
        self.queue: deque[Batch] = deque()
        self.recorder = Recorder(farmer_number(context.farmer), context.slot, context.log_mode.encode())
        self.last: Task | None = None  # the last task that ended here
        self._shown = shown

    def start_next(self, now: float) -> Task | None:
        """Remove the next task, and show that it runs; None if the queue is empty, or if the batch is too old.

        `now` is in epoch seconds.
        """
        while self.queue:
            batch = self.queue[0]
            index = batch.next
            if index < len(batch.tasks):
                if time.clock_gettime(time.CLOCK_BOOTTIME) > batch.fresh_until:
                    return None
                batch.next = index + 1
                task = batch.tasks[index]
                task.start = now
                SHOWN.pack_into(self._shown, 0, task.task_id + 1, batch.attempt, now)
                return task
            self.queue.popleft()
        return None

    def show_group(self, group: int) -> None:
        """Show the process group of the task that has started."""
        GROUP.pack_into(self._shown, SHOWN.size, group)

    def undo_start(self, task: Task) -> None:
        """The task could not be started."""
        task.batch.next -= 1
        self.show_idle()

    def show_ended(self, task: Task) -> None:
        """Show that a task no longer runs. Its result may be reported later."""
        self.last = task
        SHOWN.pack_into(self._shown, 0, -task.task_id - 1, task.batch.attempt, 0.0)

    def show_idle(self) -> None:
        """Show that no task runs."""
        if self.last is not None:
            self.show_ended(self.last)
        else:
            SHOWN.pack_into(self._shown, 0, 0, 0, 0.0)

    def remove_unstarted(self) -> list[tuple[int, int]]:
        """Remove the tasks that were not started; returns the batch number and the number of tasks for each batch."""
        found = []
        for batch in self.queue:
            count = len(batch.tasks) - batch.next
            if count:
                found.append((batch.number, count))
                del batch.tasks[batch.next :]
        self.queue.clear()
        return found
