"""The default task list handler: one command per line."""

from __future__ import annotations

import os
from functools import cached_property

from taskfarmer.tasks.base import TaskList
from taskfarmer.tasks.source import SourceReader, open_source


class ListTaskList(TaskList):
    """A file with one task per line. Blank lines and lines that start with `#` are ignored.

    A subclass changes single tasks in `__getitem__`, or replaces the attribute `tasks`. When lines are added to the
    list, a new instance is created, and asked only for the new tasks. A subclass that opens the file itself is not
    called until the last line of the list is complete.

    Example, which passes the ID of each task as a random seed::

        from taskfarmer.tasks import ListTaskList

        class Seeded(ListTaskList):
            def __getitem__(self, taskid):
                return f"SEED={taskid} {self.tasks[taskid]}"
    """

    # The importer sets it before __init__: an incomplete last line starts at this byte.
    _end: int | None = None
    _used_end = False

    @cached_property
    def tasks(self) -> list[str]:
        """The tasks, read at first use. Bytes that are invalid in the locale's encoding become surrogates (PEP 383)."""
        self._used_end = True
        with open_source(self.path) as stream:
            return [os.fsdecode(task) for batch in SourceReader(stream, self.path, end=self._end) for task in batch]

    def __len__(self) -> int:
        """Return the number of tasks."""
        return len(self.tasks)

    def __getitem__(self, taskid: int) -> str:
        """Return the command of task `taskid`, counted from 0."""
        return self.tasks[taskid]

    def lock(self) -> None:
        """Do nothing. PyTaskFarmer's handlers call it, but only one farmer imports a list."""

    def unlock(self) -> None:
        """Do nothing, like `lock`."""
