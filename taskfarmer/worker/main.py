"""The process of a worker, from the fork to its exit.

The farmer starts it with `multiprocessing` and the start method `fork`. Its `sys.stdin` reads /dev/null, while
descriptor 0 stays as it is.
"""

from __future__ import annotations

import gc
import os
import socket
import sys
import time
import traceback
from contextlib import suppress
from multiprocessing.context import ForkProcess

from taskfarmer.proctree import adopt_orphans, die_with, leave_terminal
from taskfarmer.runners.base import Runner, runs_programs
from taskfarmer.worker.plugin import PluginWorker
from taskfarmer.worker.programs import ProgramWorker
from taskfarmer.worker.worker import Worker, WorkerSetup

_FAILED = 1
_UNKNOWN = 255
"""The exit code of a process whose status another call has taken."""


class WorkerProcess(ForkProcess):
    """A forked process that runs `target`, and nothing of its parent's `finally` and `atexit`.

    It differs from other processes of `multiprocessing` in three ways. It exits without waiting for threads and
    processes that a custom runner has left. `exitcode` is known also if another call has taken its status. And `join`
    has a limit: `multiprocessing` joins all processes when the farmer exits, and one that the kernel holds in an
    uninterruptible wait would keep the farmer.
    """

    def start(self) -> None:
        """Fork. OSError if the system has no room for another process."""
        for name, number in (("stdout", 1), ("stderr", 2)):
            # multiprocessing flushes both, and fails if one of them fails
            try:
                getattr(sys, name).flush()
            except OSError:
                setattr(sys, name, open(number, "w", closefd=False))  # noqa: SIM115
            except (AttributeError, ValueError):
                pass
        super().start()

    def run(self) -> None:
        status = _FAILED
        try:
            super().run()
            status = 0
        except SystemExit as error:  # raised by a custom runner
            status = error.code if isinstance(error.code, int) else _FAILED if error.code else 0
        except BaseException:
            traceback.print_exc()
        finally:
            for stream in (sys.stdout, sys.stderr):
                with suppress(AttributeError, OSError, ValueError):
                    stream.flush()
            os._exit(status & 0xFF)

    @property
    def exitcode(self) -> int | None:
        """The exit status, or minus the number of a signal; None as long as the process has not ended."""
        code = super().exitcode
        return _UNKNOWN if code is None and self.pid and self._state() is None else code

    def join(self, timeout: float | None = None) -> None:
        """Wait up to `timeout` seconds for its end; without a timeout return at once."""
        end = time.monotonic() + (timeout or 0.0)
        pause = 0.0005
        while self.exitcode is None and time.monotonic() < end:
            time.sleep(pause)
            pause = min(pause * 2, 0.05)

    def state(self) -> int:
        """Its state now: CLD_STOPPED, one of the CLD_ codes of a process that has ended, or 0 if it runs."""
        state = self._state()
        return os.CLD_EXITED if state is None else state

    def _state(self) -> int | None:
        """Like `state`, but None if another call has taken the status."""
        assert self.pid is not None
        try:
            found = os.waitid(os.P_PID, self.pid, os.WEXITED | os.WSTOPPED | os.WNOHANG | os.WNOWAIT)
        except ChildProcessError:
            return None
        return found.si_code if found is not None else 0


def worker_class(runner: Runner) -> type[Worker]:
    """The class of the workers for a runner."""
    return ProgramWorker if runs_programs(runner) else PluginWorker


def run_worker(kind: type[Worker], setup: WorkerSetup, link: socket.socket, shown: list[memoryview]) -> None:
    """Run a worker, in its process, until it has ended."""
    gc.freeze()
    for fd in setup.close:
        with suppress(OSError):
            os.close(fd)
    leave_terminal()
    adopt_orphans()
    worker = kind(setup, link, shown)
    die_with(setup.parent)
    worker.run()
    link.close()
