"""Calls task list handlers other than the default one during an import."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any, NamedTuple

from taskfarmer.errors import ListUnavailable, TaskFarmerError, TaskListError
from taskfarmer.options import Reporter, Settings
from taskfarmer.tasks.listfile import ListTaskList


class ReadsWholeList(Exception):
    """A handler of lines opens the list itself, and so reads an incomplete last line, too."""


class Handler(NamedTuple):
    """A task list handler other than the default one. `by_line`: it is a ListTaskList, which makes a task of a line."""

    name: str
    kind: type
    options: dict[str, str]
    by_line: bool

    def commands(
        self, path: str, workdir: str, first: int, end: int | None = None, size: int | None = None
    ) -> Iterator[list[bytes]]:
        """Yield the commands from task `first` on, in batches. Raise TaskListError for any exception of the handler.

        With `end` a handler of lines gets only the bytes of the list before that offset. Raise ReadsWholeList if it
        does not read the list through ListTaskList and the size of the list is not `size`.
        """
        try:
            tasks = self._instance(path, workdir, end)
            count = len(tasks)
            for start in range(first, count, 4096):
                batch = [self._command(tasks[number]) for number in range(start, min(start + 4096, count))]
                if start == first and end is not None and not tasks._used_end and os.path.getsize(path) != size:
                    raise ReadsWholeList
                yield batch
        except (TaskFarmerError, ReadsWholeList):
            raise
        except Exception as error:
            kind = ListUnavailable if isinstance(error, OSError) else TaskListError
            raise kind(
                f"{path}: task list handler '{self.name}' ({self.kind.__module__}.{self.kind.__qualname__}) failed: "
                f"{type(error).__name__}: {error}; correct the handler or its options and start again"
            ) from error

    def _instance(self, path: str, workdir: str, end: int | None) -> Any:
        if end is None:
            return self.kind(path, workdir, **self.options)
        kind: Any = self.kind
        tasks = kind.__new__(kind, path, workdir, **self.options)
        tasks._end = end
        tasks.__init__(path, workdir, **self.options)
        return tasks

    def _command(self, command: object) -> bytes:
        if isinstance(command, bytes):
            return command
        if not isinstance(command, str):
            raise TypeError(f"a task must be a str, not {type(command).__name__}")
        return os.fsencode(command)


def find_handler(settings: Settings, reporter: Reporter) -> Handler | None:
    """The handler that `-t` names; None for the default one, which needs no configuration."""
    if settings.handler == "default":
        return None
    from taskfarmer.config import Configuration

    found = Configuration.search(settings.config, beside=os.path.dirname(os.path.abspath(settings.tasklist)))
    for warning in found.warnings:
        reporter.warning(warning)
    kind, options = found.tasklist_class(settings.handler)
    return Handler(settings.handler, kind, options, issubclass(kind, ListTaskList))
