"""Old name of `taskfarmer.tasks`, for INI files and handlers written for PyTaskFarmer 0.1.0."""

from taskfarmer.tasks import ListTaskList, TaskList

__all__ = ["ListTaskList", "TaskList"]
