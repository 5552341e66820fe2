"""What all tasks of one slot have in common."""

from __future__ import annotations

import math
from typing import NamedTuple

from taskfarmer.errors import TaskFarmerError


class NotStarted(TaskFarmerError):
    """The farmer's node could not start the task; the task did not run."""


class SlotContext(NamedTuple):
    """What all tasks of one slot have in common."""

    slot: int
    farmer: str
    host: str
    workdir: str
    logs: str
    logs_fd: int
    deadline: float = 0.0
    """When the farmer ends, in epoch seconds; 0 where no end is known."""
    hidden: frozenset[bytes] = frozenset()
    """Variables of the farmer that tasks do not get."""
    shared: bool = False
    """Whether the farm is a group's, whose members append to each other's logs."""
    log_mode: str = "files"
    """What becomes of the output of tasks: a word of `--logs`."""
    log_limit: int = 0
    """Bytes that are kept of what a task writes; 0 for all."""
    farm: str = ""
    """The farm's ID, for headers in logs."""
    own_logs: bool = True
    """Whether the logs are inside the work directory. A directory that --logs-dir names may have other farms' logs."""
    all_headers: bool = False
    """Whether first attempts have a header, too, since their log files may also be used by others."""
    lease: float = math.inf
    """Seconds of silence after which other farmers may have this farmer's tasks."""
