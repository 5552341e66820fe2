"""The life of a worker process, from the fork on."""

from __future__ import annotations

import gc
import os
import socket

from taskfarmer.proctree import adopt_orphans, die_with, leave_terminal
from taskfarmer.runners.base import Runner, is_ours, runs_programs
from taskfarmer.worker.worker import Worker, WorkerSetup


def kind_of(runner: Runner) -> type[Worker]:
    """The workers that a runner needs. They are imported here, once: nothing is while tasks run."""
    if not is_ours(runner):
        pass
    if runs_programs(runner):
        from taskfarmer.worker.programs import ProgramWorker

        return ProgramWorker
    from taskfarmer.worker.plugin import PluginWorker

    return PluginWorker


def work(kind: type[Worker], job: WorkerSetup, link: socket.socket, shown: list[memoryview]) -> None:
    gc.freeze()
    for fd in job.close:
        try:
            os.close(fd)
        except OSError:
            pass
    leave_terminal()
    adopt_orphans()
    worker = kind(job, link, shown)
    die_with(job.parent)
    worker.run()
    link.close()
