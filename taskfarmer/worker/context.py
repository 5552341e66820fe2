"""The settings that all tasks of a slot share."""

from __future__ import annotations

import math
from typing import NamedTuple

from taskfarmer.errors import TaskFarmerError


class NotStarted(TaskFarmerError):
    """The farmer's node could not start the task; the task did not run."""


class SlotContext(NamedTuple):
    """The settings that all tasks of a slot share."""

    slot: int
    farmer: str
    host: str
    workdir: str
    logs: str
    logs_fd: int
    deadline: float = 0.0
    """The end of the farmer, in epoch seconds; 0 if it is not known."""
    hidden: frozenset[bytes] = frozenset()
    """Variables of the farmer that tasks do not get."""
    shared: bool = False
    """Whether the farm belongs to a group, whose members append to each other's logs."""
    log_mode: str = "files"
    """The value of `--logs`."""
    log_limit: int = 0
    """Bytes of a task's output that are kept; 0 for all."""
    farm: str = ""
    """The farm's ID, for headers in logs."""
    own_logs: bool = True
    """Whether the logs are inside the work directory. Other farms may use a directory that --logs-dir names."""
    all_headers: bool = False
    """Whether first attempts have a header, too, since other farms may use the same log files."""
    lease: float = math.inf
    """Seconds without a heartbeat after which other farmers may claim this farmer's tasks."""
