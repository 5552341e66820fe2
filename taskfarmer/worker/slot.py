"""A slot as its worker sees it: what waits in it, what runs in it, and what is to be told of it."""

from __future__ import annotations

import struct
import time
from collections import deque

from taskfarmer.formats.timeline import farmer_number
from taskfarmer.worker.batch import Batch, Task
from taskfarmer.worker.context import SlotContext
from taskfarmer.worker.report import Recorder

SHOWN = struct.Struct("<qid")
"""What a slot shows to its farmer: ID + 1 of the task that runs, its attempt and start.

The ID is negative where that task has ended, and 0 before the first one.
"""
GROUP = struct.Struct("<i")
"""Behind it: the process group of the last task. There a farmer finds processes that a killed worker leaves."""
STRIDE = 64
"""Bytes of each slot, a line of the processor's cache."""


class Slot:
    def __init__(self, place: SlotContext, shown: memoryview) -> None:
        self.place = place
        self.number = place.slot
        self.queue: deque[Batch] = deque()
        self.recorder = Recorder(farmer_number(place.farmer), place.slot, place.log_mode.encode())
        self.last: Task | None = None  # that ended here
        self._shown = shown

    def begin(self, now: float) -> Task | None:
        """Take the next task, and show that it runs; None if there is none, or if its batch is too old.

        `now` is in epoch seconds.
        """
        while self.queue:
            batch = self.queue[0]
            place = batch.next
            if place < len(batch.tasks):
                if time.clock_gettime(time.CLOCK_BOOTTIME) > batch.fresh_until:
                    return None
                batch.next = place + 1
                task = batch.tasks[place]
                task.start = now
                SHOWN.pack_into(self._shown, 0, task.task_id + 1, batch.attempt, now)
                return task
            self.queue.popleft()
        return None

    def show_group(self, group: int) -> None:
        """Show in which process group the task runs that has started."""
        GROUP.pack_into(self._shown, SHOWN.size, group)

    def undo(self, task: Task) -> None:
        """The task was not begun after all."""
        task.batch.next -= 1
        self.rest()

    def ended(self, task: Task) -> None:
        """Show that a task runs no more; what came of it may be told later."""
        self.last = task
        SHOWN.pack_into(self._shown, 0, -task.task_id - 1, task.batch.attempt, 0.0)

    def rest(self) -> None:
        """Show that nothing runs."""
        if self.last is not None:
            self.ended(self.last)
        else:
            SHOWN.pack_into(self._shown, 0, 0, 0, 0.0)

    def unstarted(self) -> list[tuple[int, int]]:
        """Batch and number of tasks that were not begun; they are no longer here."""
        found = []
        for batch in self.queue:
            rest = len(batch.tasks) - batch.next
            if rest:
                found.append((batch.number, rest))
                del batch.tasks[batch.next :]
        self.queue.clear()
        return found
