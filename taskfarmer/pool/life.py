"""The life of a worker process, from the fork on."""

from __future__ import annotations

import gc
import os
import socket

from taskfarmer.pool.attempt import runs_programs
from taskfarmer.pool.plugin import PluginWorker
from taskfarmer.pool.processes import adopt_orphans, die_with
from taskfarmer.pool.programs import ProgramWorker
from taskfarmer.pool.worker import Job, Worker


def work(job: Job, link: socket.socket, shown: list[memoryview]) -> None:
    gc.freeze()
    gc.set_threshold(100_000)  # lists of what has ended are no garbage, and grow until they are told
    for fd in job.close:
        try:
            os.close(fd)
        except OSError:
            pass
    os.setsid()
    adopt_orphans()
    kind: type[Worker] = ProgramWorker if runs_programs(job.runner) else PluginWorker
    worker = kind(job, link, shown)
    die_with(job.parent)
    worker.run()
    link.close()
