"""The base class of task list handlers, which turn the file that a user names into commands."""

from __future__ import annotations


class TaskList:
    """A sequence of commands, made from the file at `path`. Subclasses define `__len__` and `__getitem__`.

    The farmer that imports the list creates one handler and asks it for each command in turn. The farm stores the
    commands, so later changes of the handler do not affect its tasks. An exception in a handler stops the import with
    an error message, and nothing is stored.

    Args:
        path: The task list, as given on the command line.
        workdir: The directory of the farm. It exists during an import, but not necessarily with `--dry-run`.

    The other keys of the section in the INI file are keyword arguments of the constructor, always of type str.

    Example, one task for each PNG file in a directory::

        import glob
        import shlex

        from taskfarmer.tasks import TaskList

        class Images(TaskList):
            def __init__(self, path, workdir, program="convert"):
                super().__init__(path, workdir)
                self.program = program
                self.images = sorted(glob.glob(f"{path}/*.png"))

            def __len__(self):
                return len(self.images)

            def __getitem__(self, taskid):
                return f"{self.program} {shlex.quote(self.images[taskid])}"
    """

    def __init__(self, path: str, workdir: str) -> None:
        self.path = path
        self.workdir = workdir

    def __len__(self) -> int:
        """Return the number of tasks."""
        raise NotImplementedError(f"{type(self).__name__} does not define __len__()")

    def __getitem__(self, taskid: int) -> str:
        """Return the command of task `taskid`, counted from 0, as text for bash. It may have several lines."""
        raise NotImplementedError(f"{type(self).__name__} does not define __getitem__()")
