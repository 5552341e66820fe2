"""Every error that taskfarmer raises on purpose, in one tree.

The message of each is one line for a person: first the fact (file, line, option), then the remedy.
`exit_status` is what the command line ends with when the error reaches it.
"""

from __future__ import annotations

import errno

_LIMITS = {
    errno.EMFILE: "raise the limit of open files (ulimit -n)",
    errno.ENFILE: "too many files are open on this node: start again later, or on another node",
    errno.ENOMEM: "this node has no memory left: start again later, or on another node",
}
_NOT_ALLOWED = {
    errno.EACCES: "restore its permissions, or ask its owner",
    errno.EPERM: "restore its permissions, or ask its owner",
    errno.EROFS: "start again when the file system is mounted for writing, or use another one",
}
_FULL = {errno.ENOSPC: "make room", errno.EDQUOT: "make room"}
_REMEDIES = {
    **_LIMITS,
    **_NOT_ALLOWED,
    **_FULL,
    errno.ENAMETOOLONG: "choose a shorter path",
    errno.EFBIG: "raise the limit of file sizes (ulimit -f)",
}
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
"""The file system, or the way to its server, fails: the file itself may be sound."""


AGAIN = "start again when the file system works"


def remedy(error: OSError, otherwise: str, elsewhere: str | None = None) -> str:
    """What to do about an error of the system.

    `otherwise` is the remedy if the file itself is missing or damaged, `elsewhere` if another place would do.
    """
    if elsewhere is not None and error.errno in _NOT_ALLOWED:
        return elsewhere
    if error.errno in _OUTAGES:
        return AGAIN if otherwise in ("", AGAIN) else f"{AGAIN}; if the error stays, {otherwise}"
    return _REMEDIES.get(error.errno or 0, otherwise)


def hit_a_limit(error: OSError) -> bool:
    """Whether a limit of the process or of its node was reached: then the error is not about the file."""
    return error.errno in _LIMITS


class TaskFarmerError(Exception):
    """Anything that stops taskfarmer and that a person can do something about."""

    exit_status = 74


class UsageError(TaskFarmerError):
    """An option, an argument or a file that the user gave cannot be used; nothing was changed."""

    exit_status = 2


class TaskListError(UsageError):
    """The task list cannot be read, holds what it must not hold, or was changed."""


class ListUnavailable(TaskListError):
    """The file system does not let the task list be read, or its tasks be stored, now: a later try may succeed."""


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
