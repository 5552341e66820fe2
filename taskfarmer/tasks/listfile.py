"""The default task list: a command a line."""

from __future__ import annotations

import os
from functools import cached_property

from taskfarmer.tasks.base import TaskList
from taskfarmer.tasks.source import SourceReader, open_source


class ListTaskList(TaskList):
    """A file with a task on each line; blank lines and lines that begin with `#` are left out.

    Subclasses change a task in `__getitem__`, or replace `tasks` as a whole. One that opens the file by itself is given
    a list only when its last line is complete.
    """

    # Set by the intake before __init__. A last line that is still being written lies behind this byte.
    _end: int | None = None
    _heeded_end = False

    @cached_property
    def tasks(self) -> list[str]:
        """The tasks, read at first use. Bytes that are no text in the locale's encoding survive as surrogates."""
        self._heeded_end = True
        with open_source(self.path) as stream:
            return [os.fsdecode(task) for batch in SourceReader(stream, self.path, end=self._end) for task in batch]

    def __len__(self) -> int:
        """Return how many tasks there are."""
        return len(self.tasks)

    def __getitem__(self, taskid: int) -> str:
        """Return the command of a task, counted from 0."""
        return self.tasks[taskid]

    def lock(self) -> None:
        """Do nothing: PyTaskFarmer's handlers call it, but the import of a list is exclusive already."""

    def unlock(self) -> None:
        """Do nothing, as `lock`."""
