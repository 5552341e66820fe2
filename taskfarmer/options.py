"""What a farmer is asked to do, what it tells on the way, and how it ended: plain values."""

from __future__ import annotations

from collections.abc import Callable
from enum import IntEnum
from typing import NamedTuple


class Exit(IntEnum):
    """What the exit status of a farmer means."""

    DONE = 0
    """Nothing is left to take, and no task of the farm failed, or other farmers still hold tasks."""
    FAILURES = 1
    """Every task of the farm is recorded, and tasks failed."""
    USAGE = 2
    """Wrong usage or configuration; nothing was changed."""
    TROUBLE = 74
    """Something could not be recorded, the farm is damaged, gone, or given to others, or all workers die (EX_IOERR)."""
    AGAIN = 75
    """Unprocessed tasks remain: run the same command again (EX_TEMPFAIL)."""


UNFINISHED = 85
"""HTCondor's checkpoint_exit_code in its manual's examples."""


class Settings(NamedTuple):
    """One run of a farmer. Times are in seconds; `None` stands for the default of the farm or the system."""

    tasklist: str
    slots: int = 8
    timeout: float | None = None
    """Infinite for no end; None for that of the allocation less `margin`, where there is one."""
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
    """What becomes of the output of tasks: `files`, `packed`, `failed` or `none`."""
    log_limit: int = 0
    """Bytes that are kept of what a task writes; 0 for all."""
    grace: float = 10.0
    leftovers: str = "keep"
    """What becomes of processes that a task leaves: `keep`, `wait` or `end`."""
    lock_dir: str | None = None
    shared_group: bool = False
    lease: float | None = None
    config: str | None = None
    wait: bool = False
    max_deaths: int = 10
    epoch_length: int | None = None

    @property
    def unfinished_status(self) -> int:
        """The exit status by which a task says that it is to be run again; -1 for none."""
        if self.checkpoint_exit_code is not None:
            return self.checkpoint_exit_code
        return UNFINISHED if self.warn_signal is not None else -1

    @property
    def workdir_path(self) -> str:
        return self.workdir if self.workdir is not None else self.tasklist + "_workdir"


class Progress(NamedTuple):
    """Where the farm stands, as this farmer sees it."""

    tasks: int
    finished: int
    failed: int
    unprocessed: int
    held: int
    running_here: int
    farmers: int


class Ending(NamedTuple):
    """How a run ended. `finished`, `failed` and `returned` are this farmer's, `farm` is everybody's.

    `again` says that tasks will be unprocessed that the ledger still has as held: by this farmer, which left
    with a note only, or by one that was killed on this node and whose tasks run on. `untaken`: the task list may have
    tasks that the farm does not have yet. `others_hold`: other farmers hold tasks, and the last one decides the status.
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
    again: bool = False
    untaken: bool = False
    others_hold: bool = False

    @property
    def status(self) -> Exit:
        if self.trouble is not None or self.unrecorded:
            return Exit.TROUBLE
        if self.farm.unprocessed or self.again or self.untaken:
            return Exit.AGAIN
        return Exit.FAILURES if self.farm.failed and not self.others_hold else Exit.DONE


class Reporter(NamedTuple):
    """How a farmer speaks: each takes one line of text, `progress` takes values."""

    info: Callable[[str], None]
    detail: Callable[[str], None]
    warning: Callable[[str], None]
    progress: Callable[[Progress], None]


def silent() -> Reporter:
    def ignore(_: object) -> None:
        return None

    return Reporter(ignore, ignore, ignore, ignore)
