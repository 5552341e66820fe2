"""The settings of a farmer, its progress, and its result, as plain values."""

from __future__ import annotations

from collections.abc import Callable
from enum import IntEnum
from typing import NamedTuple


class Exit(IntEnum):
    """Exit statuses of a farmer."""

    DONE = 0
    """No task can be claimed, and either no task of the farm failed or other farmers still hold tasks."""
    FAILURES = 1
    """All tasks of the farm are recorded, and some failed."""
    USAGE = 2
    """Wrong usage or configuration; nothing was changed."""
    TROUBLE = 74
    """Results were not recorded, the farm is damaged, deleted or lost to others, or all workers die (EX_IOERR)."""
    AGAIN = 75
    """Unprocessed tasks remain: run the same command again (EX_TEMPFAIL)."""


UNFINISHED = 85
"""The checkpoint_exit_code in the examples of HTCondor's manual."""


class Settings(NamedTuple):
    """The settings of one farmer. Times are in seconds; `None` is the default of the farm or the system."""

    tasklist: str
    slots: int = 8
    timeout: float | None = None
    """Infinite for no end; None for the end of the allocation, if any, less `margin`."""
    margin: float | None = None
    min_time_left: float | None = None
    warn_signal: int | None = None
    warn_time: float = 60.0
    checkpoint_exit_code: int | None = None
    clean_env: str | None = None
    workdir: str | None = None
    runner: str = "default"
    handler: str = "default"
    logs_dir: str | None = None
    logs: str = "files"
    """How to store the output of tasks: `files`, `packed`, `failed` or `none`."""
    log_limit: int = 0
    """Largest number of bytes to keep of the output of a task; 0 for no limit."""
    grace: float = 10.0
    leftovers: str = "keep"
    """How to treat processes that a task leaves: `keep`, `wait` or `end`."""
    lock_dir: str | None = None
    shared_group: bool = False
    lease: float | None = None
    config: str | None = None
    wait: bool = False
    max_deaths: int = 10
    epoch_length: int | None = None

    @property
    def unfinished_status(self) -> int:
        """The exit status with which a task requests to be run again; -1 for none."""
        if self.checkpoint_exit_code is not None:
            return self.checkpoint_exit_code
        return UNFINISHED if self.warn_signal is not None else -1

    @property
    def workdir_path(self) -> str:
        return self.workdir if self.workdir is not None else self.tasklist + "_workdir"


class Progress(NamedTuple):
    """Progress of the farm, as this farmer sees it."""

    tasks: int
    finished: int
    failed: int
    unprocessed: int
    held: int
    running_here: int
    farmers: int


class Ending(NamedTuple):
    """The result of a farmer. `finished`, `failed` and `returned` count its own tasks, `farm` those of all farmers.

    `stale_claims`: the ledger still lists tasks as held that will soon be unprocessed, because this farmer left with
    a note, or because another one was killed on this node while its tasks ran. `not_imported`: the task list may have
    tasks that the farm does not have yet. `others_hold`: other farmers hold tasks, so their status is still open.
    """

    finished: int
    failed: int
    returned: int
    unrecorded: int
    farm: Progress
    stopped_by: str | None
    trouble: str | None
    survivors: tuple[int, ...]
    seconds: float
    stale_claims: bool = False
    not_imported: bool = False
    others_hold: bool = False

    @property
    def status(self) -> Exit:
        if self.trouble is not None or self.unrecorded:
            return Exit.TROUBLE
        if self.farm.unprocessed or self.stale_claims or self.not_imported:
            return Exit.AGAIN
        return Exit.FAILURES if self.farm.failed and not self.others_hold else Exit.DONE


class Reporter(NamedTuple):
    """Where a farmer logs to: each function accepts one line of text, `progress` accepts values."""

    info: Callable[[str], None]
    detail: Callable[[str], None]
    warning: Callable[[str], None]
    progress: Callable[[Progress], None]


def silent() -> Reporter:
    def ignore(_: object) -> None:
        return None

    return Reporter(ignore, ignore, ignore, ignore)
