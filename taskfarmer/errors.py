"""Every error that taskfarmer raises on purpose, in one tree.

The message of each is one line for a person: first the fact (file, line, option), then the remedy.
`exit_status` is what the command line ends with when the error reaches it.
"""

from __future__ import annotations


class TaskFarmerError(Exception):
    """Anything that stops taskfarmer and that a person can do something about."""

    exit_status = 74


class UsageError(TaskFarmerError):
    """An option, an argument or a file that the user gave cannot be used; nothing was changed."""

    exit_status = 2


class TaskListError(UsageError):
    """The task list cannot be read, holds what it must not hold, or was changed."""


class ConfigError(UsageError):
    """An INI file, or a runner or task list handler that it names, cannot be used."""


class Stopped(TaskFarmerError):
    """A stop signal came, and work that takes long was broken off between two file operations."""

    exit_status = 75


class FarmError(TaskFarmerError):
    """The work directory cannot be used as it is."""


class NotAFarm(FarmError):
    """The directory holds no farm, or a farm of a format or a list that is not ours to use."""

    exit_status = 2


class Damaged(FarmError):
    """A file of the farm does not hold what was written into it."""


class FarmGone(FarmError):
    """The work directory was deleted, or deleted and made anew, while a farmer used it."""


class Expelled(FarmError):
    """Other farmers took this one for dead and gave its tasks to others."""


class Forked(FarmError):
    """The file system let two farmers write the same revision: it cannot be shared safely."""


class Contended(FarmError):
    """Other farmers' commits came first for longer than this one could wait."""


class StaleView(FarmError):
    """The file system keeps showing old contents of files that other nodes wrote."""


class StorageError(FarmError):
    """The disk is full, over quota, or fails; what could not be written is named."""


class FileTooLarge(StorageError):
    """A file would exceed this process's limit of file sizes, or that of the file system: to wait does not help."""
