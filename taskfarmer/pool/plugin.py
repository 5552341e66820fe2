"""A task run by a runner of the user's own: a class whose `run` does everything by itself.

The contract is PyTaskFarmer's: `run(taskid, command, logfh)` in the worker's main thread, with the
task's variables in `os.environ`, and `terminate()` out of the signal handler while `run` waits.
"""

from __future__ import annotations

import os
import traceback
from typing import TextIO

from taskfarmer.pool.attempt import Environment, Place, open_log
from taskfarmer.runners.base import Runner


class PluginTask:
    def __init__(self, place: Place, runner: Runner) -> None:
        self.place = place
        self.runner = runner
        self.environment = Environment(place)
        self._running = False

    def run(self, task_id: int, attempt: int, command: str) -> int:
        """The wait status that a process with the returned code would have."""
        fd = open_log(self.place, task_id, attempt)
        os.set_blocking(fd, True)
        with os.fdopen(fd, "a", encoding="utf-8", errors="surrogateescape") as log:
            for name, value in self.environment.of(task_id, attempt, {}).items():
                if name == b"PROC_NUMBER" or name.startswith(b"TASKFARMER_"):
                    os.environb[name] = value
            self._running = True
            try:
                return _wait_status(self.runner.run(task_id, command, log), log)
            except BaseException:  # whatever a user's code raises, SystemExit too, is a failed task
                _explain(log)
                return 1 << 8
            finally:
                self._running = False

    def terminate(self) -> None:
        """Called from the signal handler: what the user's `terminate` does is theirs."""
        if self._running:
            try:
                self.runner.terminate()
            except Exception:
                traceback.print_exc()


def _wait_status(code: object, log: TextIO) -> int:
    """Turn what `run` returned into a wait status; None, as from a `run` without `return`, is no success."""
    if not isinstance(code, int):
        log.write(f"taskfarmer: the runner returned {code!r}, not an exit status; the task counts as failed\n")
        return 1 << 8
    if code < 0:
        return -code & 0x7F
    return (code & 0xFF) << 8 if code & 0xFF or not code else 1 << 8


def _explain(log: TextIO) -> None:
    try:
        log.write("taskfarmer: the runner raised an exception\n")
        traceback.print_exc(file=log)
    except (OSError, ValueError):
        pass
