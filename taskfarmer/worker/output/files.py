"""The logs of a slot: the interface of all modes of `--logs`, and the modes `files` and `none`.

`open` returns the descriptor for a task's output and errors, and the path for its TASKFARMER_LOG. `on_task_end` is
called when the task has ended. A slot runs one task at a time, so an object only keeps the current one.
"""

from __future__ import annotations

import math
import os
from typing import TextIO

from taskfarmer.worker.context import SlotContext
from taskfarmer.worker.output.folder import LogFolder

ANY_CHILD = -1


class Logs:
    """The interface of all modes. A custom runner writes through a text file, see `open_text`."""

    def __init__(self, context: SlotContext) -> None:
        self.context = context

    close_after_start = False
    """Whether the descriptor belongs to one task, and must be closed once the task's process has it."""
    handles_task_end = True
    """Whether `on_task_end` must be called."""
    announce_at = math.inf
    """When `announce` must be called for the running task, on the monotonic clock."""

    def open(self, task_id: int, attempt: int) -> tuple[int, bytes]:
        """A descriptor for a task's output, and the path of its file while the task runs.

        Raises NotStarted if the file cannot be opened.
        """
        raise NotImplementedError

    def open_text(self, fd: int) -> TextIO:
        """A text file on the descriptor, for a custom runner. Pass it to `release_text` when the task has ended."""
        raise NotImplementedError

    def release_text(self, text: TextIO) -> None:
        """Write the file's buffer. The file may be used again for the next task."""
        raise NotImplementedError

    def announce(self) -> None:
        """Record which file the running task writes to, so that its output is found if the farmer is killed."""

    def on_task_end(self, task_id: int, attempt: int, status: int, group: int = 0) -> None:
        """A task has ended with this wait status.

        `group` is its process group, 0 if it has none, or ANY_CHILD if all children of this process belong to it.
        """

    def close(self) -> None:
        """Release files; no more tasks are started."""


class FileLogs(Logs):
    """`files`: a file for each task, `log_<ID>`."""

    close_after_start = True
    handles_task_end = False

    def __init__(self, folder: LogFolder) -> None:
        super().__init__(folder.context)
        self._folder = folder
        self._prefix = os.fsencode(os.path.join(folder.context.logs, "log_"))

    def open(self, task_id: int, attempt: int) -> tuple[int, bytes]:
        return self._folder.open_log(task_id, attempt), b"%s%d" % (self._prefix, task_id)

    def open_text(self, fd: int) -> TextIO:
        os.set_blocking(fd, True)
        return text_file(fd)

    def release_text(self, text: TextIO) -> None:
        close_text_quietly(text)


class NoLogs(Logs):
    """`none`: tasks write to /dev/null, and no file is opened for any of them."""

    handles_task_end = False

    def __init__(self, context: SlotContext) -> None:
        super().__init__(context)
        path = os.fsencode(os.devnull)
        self._opened = os.open(path, os.O_WRONLY | os.O_CLOEXEC), path
        self._text: TextIO | None = None

    def open(self, task_id: int, attempt: int) -> tuple[int, bytes]:
        return self._opened

    def open_text(self, fd: int) -> TextIO:
        """The same file for all tasks, unless a runner has closed it."""
        if self._text is None or self._text.closed:
            self._text = text_file(os.dup(fd))
        return self._text

    def release_text(self, text: TextIO) -> None:
        pass


def text_file(fd: int) -> TextIO:
    """PyTaskFarmer's `logfh`: a text file that accepts any text. It owns the descriptor."""
    return os.fdopen(fd, "a", encoding="utf-8", errors="surrogateescape")


def close_text_quietly(text: TextIO) -> None:
    try:
        text.close()
    except (OSError, ValueError):
        pass  # if the disk is full, its buffer cannot be written
