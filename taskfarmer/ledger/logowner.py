"""The farm that was the first to use a directory of logs given with --logs-dir.

Several farms may share the directory, and each of them has a task 0. So an attempt writes a header line before its
output if it finds a log, and always if another farm or the user was the first to use the directory. Text before the
first header of a log is then output of the first farm. Its ID is in the file `.farm`, which is created by `link`. The
file only determines which text `taskfarmer logs` shows.
"""

from __future__ import annotations

import os
import re

from taskfarmer.storage import durable
from taskfarmer.storage.layout import Workdir

_LOG = re.compile(r"log_\d+")


def claim(workdir: Workdir, farm: str) -> bool:
    """Make a farm the owner of its directory of logs if that has neither owner nor logs; whether the farm owns it."""
    if workdir.has_own_logs:
        return True
    try:
        if _owner(workdir) is None and not _is_used(workdir):
            prepared = durable.temp_name(workdir.log_owner)
            durable.prepare(prepared, farm.encode() + b"\n", workdir.shared)
            durable.publish(prepared, workdir.log_owner)
    except OSError:
        pass  # with headers the owner is not needed
    return owns(workdir, farm)


def owns(workdir: Workdir, farm: str) -> bool:
    """Whether text before the first header of a log is output of this farm."""
    try:
        return workdir.has_own_logs or _owner(workdir) == farm
    except OSError:
        return False


def _owner(workdir: Workdir) -> str | None:
    """The ID of the farm that owns the directory of logs; None if no farm does."""
    try:
        return durable.read_range(workdir.log_owner, 0, 64).strip().decode("ascii", "replace")
    except FileNotFoundError:
        return None


def _is_used(workdir: Workdir) -> bool:
    """Whether a directory has logs, or is the one inside another farm's work directory."""
    parent, name = os.path.split(workdir.logs)
    if name == "logs" and parent != workdir.path and os.path.lexists(os.path.join(parent, "farm.json")):
        return True
    with os.scandir(workdir.logs) as entries:
        return any(_LOG.fullmatch(entry.name) for entry in entries)
