"""Task list handlers other than the default one, as the intake of a list uses them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

from taskfarmer.errors import TaskFarmerError, TaskListError
from taskfarmer.plain import dataclass
from taskfarmer.settings import Reporter, Settings


@dataclass(frozen=True)
class Handler:
    """A task list handler that is not the default one: its name, class, options, and whether it reads lines."""

    name: str
    kind: type
    options: dict[str, str]
    by_line: bool

    def commands(self, path: str, workdir: str, first: int) -> Iterator[list[bytes]]:
        """The commands from task `first` on, in batches; TaskListError for whatever the handler raises."""
        try:
            tasks: Any = self.kind(path, workdir, **self.options)
            count = len(tasks)
            for start in range(first, count, 4096):
                yield [self._command(tasks[number]) for number in range(start, min(start + 4096, count))]
        except TaskFarmerError:
            raise
        except Exception as error:
            raise TaskListError(
                f"{path}: task list handler '{self.name}' ({self.kind.__module__}.{self.kind.__qualname__}) failed: "
                f"{type(error).__name__}: {error}; mend the handler or its options and start again"
            ) from error

    def _command(self, command: object) -> bytes:
        if isinstance(command, bytes):
            return command
        if not isinstance(command, str):
            raise TypeError(f"a task must be a str, not {type(command).__name__}")
        return os.fsencode(command)


def find_handler(settings: Settings, reporter: Reporter) -> Handler | None:
    """The handler that the user asked for; None for the default one, for which no configuration is read."""
    if settings.handler == "default":
        return None
    from taskfarmer.config import Configuration
    from taskfarmer.tasks.listfile import ListTaskList

    found = Configuration.search(settings.config, beside=os.path.dirname(os.path.abspath(settings.tasklist)))
    for warning in found.warnings:
        reporter.warning(warning)
    kind, options = found.tasklist_class(settings.handler)
    return Handler(settings.handler, kind, options, issubclass(kind, ListTaskList))
