"""The place where PyTaskFarmer 0.1.0 had its task lists; old INI files and handlers name it."""

from taskfarmer.tasks import ListTaskList, TaskList

__all__ = ["ListTaskList", "TaskList"]
