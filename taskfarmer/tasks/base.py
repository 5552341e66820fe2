"""What every task list handler is: a sequence of commands made of the user's file."""

from __future__ import annotations


class TaskList:
    """Turns the file at `path` into tasks. The base of every handler; subclasses define `__len__` and `__getitem__`.

    A handler is made once, by the one farmer that imports the list, and asked for each task in turn; the commands that
    it gives are kept in the farm. `workdir` is the farm's directory, which exists by then. The options of the INI file
    reach the constructor as keyword arguments, all of them str.
    """

    def __init__(self, path: str, workdir: str) -> None:
        self.path = path
        self.workdir = workdir

    def __len__(self) -> int:
        """Return how many tasks there are."""
        raise NotImplementedError(f"{type(self).__name__} does not define __len__()")

    def __getitem__(self, taskid: int) -> str:
        """Return the command of a task, counted from 0."""
        raise NotImplementedError(f"{type(self).__name__} does not define __getitem__()")
