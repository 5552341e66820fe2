"""Where the output of a slot's tasks goes: a class for each mode of `--logs`, all with one interface.

`open` gives the descriptor that a task gets for its output and errors, and the path that it is told; `ended` says that
the task has ended. A slot runs one task at a time, so each object knows the one that it is about.
"""

from __future__ import annotations

import math
import os
from typing import TextIO

from taskfarmer.worker.context import SlotContext
from taskfarmer.worker.output.folder import LogFolder

ANY = -1


class Logs:
    """What all modes have in common. A runner of the user's own writes through a text file of its own."""

    def __init__(self, place: SlotContext) -> None:
        self.place = place

    passes = False
    """Whether the descriptor is for this task alone, and to be closed as soon as the task has it."""
    heeds = True
    """Whether `ended` has something to do."""

    def open(self, task_id: int, attempt: int) -> tuple[int, bytes]:
        """A descriptor for a task's output, and TASKFARMER_LOG: where that is while the task runs.

        NotStarted where there can be none.
        """
        raise NotImplementedError

    def text(self, fd: int) -> TextIO:
        """A text file on the descriptor, for a runner of the user's own; `end_text` ends the use of both."""
        raise NotImplementedError

    def end_text(self, text: TextIO) -> None:
        raise NotImplementedError

    def ended(self, task_id: int, attempt: int, status: int, group: int = 0) -> None:
        """A task has ended with this wait status.

        `group` is its process group, 0 for none, ANY for any child.
        """

    announce_at = math.inf
    """When `announce` is to be called for the task that runs, on the monotonic clock."""

    def announce(self) -> None:
        """Record where the output of the running task is, so that it is found if the farmer is killed."""

    def close(self) -> None:
        """No more tasks come."""


class FileLogs(Logs):
    """`files`: a file for each task, `log_<ID>`."""

    passes = True
    heeds = False

    def __init__(self, folder: LogFolder) -> None:
        super().__init__(folder.place)
        self._folder = folder
        self._prefix = os.fsencode(os.path.join(folder.place.logs, "log_"))

    def open(self, task_id: int, attempt: int) -> tuple[int, bytes]:
        return self._folder.open_log(task_id, attempt), b"%s%d" % (self._prefix, task_id)

    def text(self, fd: int) -> TextIO:
        os.set_blocking(fd, True)
        return text_file(fd)

    def end_text(self, text: TextIO) -> None:
        close(text)


class NoLogs(Logs):
    """`none`: what tasks write is lost, and no file is touched for any of them."""

    heeds = False

    def __init__(self, place: SlotContext) -> None:
        super().__init__(place)
        path = os.fsencode(os.devnull)
        self._opened = os.open(path, os.O_WRONLY | os.O_CLOEXEC), path
        self._text: TextIO | None = None

    def open(self, task_id: int, attempt: int) -> tuple[int, bytes]:
        return self._opened

    def text(self, fd: int) -> TextIO:
        """The same file for all tasks, but for a runner that closes it."""
        if self._text is None or self._text.closed:
            self._text = text_file(os.dup(fd))
        return self._text

    def end_text(self, text: TextIO) -> None:
        pass


def text_file(fd: int) -> TextIO:
    """What PyTaskFarmer calls `logfh`: a text file that takes any text, on a descriptor that it then owns."""
    return os.fdopen(fd, "a", encoding="utf-8", errors="surrogateescape")


def close(text: TextIO) -> None:
    try:
        text.close()
    except (OSError, ValueError):
        pass  # a full disk does not take what is in its buffer
