"""All errors that taskfarmer raises on purpose, in one tree.

Each message is one line for the user: first the fact (file, line, option), then the remedy. `exit_status` is the exit
status of the command line if the error reaches it.
"""

from __future__ import annotations

import errno

_LIMITS = {
    errno.EMFILE: "raise the open file limit (ulimit -n)",
    errno.ENFILE: "too many files are open on this node; start again later, or on another node",
    errno.ENOMEM: "this node is out of memory; start again later, or on another node",
}
_NOT_ALLOWED = {
    errno.EACCES: "restore its permissions, or ask its owner",
    errno.EPERM: "restore its permissions, or ask its owner",
    errno.EROFS: "start again when the file system is mounted for writing, or use another one",
}
_FULL = {
    errno.ENOSPC: "free some space",
    errno.EDQUOT: "free some space",
    errno.EFBIG: "raise the size limit (ulimit -f)",
}
_REMEDIES = {**_LIMITS, **_NOT_ALLOWED, **_FULL, errno.ENAMETOOLONG: "choose a shorter path"}
_OUTAGES = frozenset(
    (
        errno.EIO,
        errno.ESTALE,
        errno.ETIMEDOUT,
        errno.EREMOTEIO,
        errno.ENOTCONN,
        errno.ECONNABORTED,
        errno.ECONNREFUSED,
        errno.ECONNRESET,
        errno.EHOSTDOWN,
        errno.EHOSTUNREACH,
        errno.ENETUNREACH,
        errno.ESHUTDOWN,
    )
)
"""The file system, or the connection to its server, fails: the file itself may be intact."""


AGAIN = "start again when the file system works"


def remedy(error: OSError, otherwise: str, elsewhere: str | None = None) -> str:
    """The remedy for an error of the system.

    `otherwise` is the remedy if the file itself is missing or corrupt; `elsewhere` if another place helps.
    """
    if elsewhere is not None and error.errno in _NOT_ALLOWED:
        return elsewhere
    if error.errno in _OUTAGES:
        return AGAIN if otherwise in ("", AGAIN) else f"{AGAIN}; if the error persists, {otherwise}"
    return _REMEDIES.get(error.errno or 0, otherwise)


def hit_a_limit(error: OSError) -> bool:
    """Whether a limit of the process or its node was reached, so that the error is not about the file."""
    return error.errno in _LIMITS


class TaskFarmerError(Exception):
    """An error that stops taskfarmer and that the user can fix."""

    exit_status = 74


class UsageError(TaskFarmerError):
    """An option, an argument or a file from the user is invalid; nothing was changed."""

    exit_status = 2


class TaskListError(UsageError):
    """The task list cannot be read, has invalid content, or was changed."""


class ListUnavailable(TaskListError):
    """The file system cannot read the task list or store its tasks at the moment; a retry may succeed."""


class ConfigError(UsageError):
    """An INI file is invalid, or a runner or task list handler that it names."""


class Stopped(TaskFarmerError):
    """A stop signal arrived, and long work was interrupted between two file operations."""

    exit_status = 75


class FarmError(TaskFarmerError):
    """The work directory cannot be used in its present state."""


class NotAFarm(FarmError):
    """The directory has no farm, or one with a format or a list that we cannot use."""

    exit_status = 2


class Damaged(FarmError):
    """A file of the farm is corrupt or missing."""


class FarmGone(FarmError):
    """The work directory was deleted, or deleted and re-created, while a farmer used it."""


class Expelled(FarmError):
    """Other farmers considered this one dead and released its tasks."""


class Forked(FarmError):
    """The file system let two farmers write the same revision, so it cannot be shared safely."""


class Contended(FarmError):
    """Other farmers' commits won for longer than this one could wait."""


class StaleView(FarmError):
    """The file system keeps showing old contents of files that other nodes wrote."""


class StorageError(FarmError):
    """The disk is full, over quota, or failing; the message names the file."""


class FileTooLarge(StorageError):
    """A file would exceed the file size limit of this process or of the file system; waiting does not help."""
