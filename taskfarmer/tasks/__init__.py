"""Task list handlers: the classes that INI files name and that users subclass."""

from taskfarmer.tasks.base import TaskList
from taskfarmer.tasks.listfile import ListTaskList

__all__ = ["ListTaskList", "TaskList"]
