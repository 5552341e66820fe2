"""A process that a farmer forks for itself.

`multiprocessing` would do the same, at the price of fifteen more modules that every farmer reads from the file
system, of a megabyte in each worker, and of a pipe for each of them.
"""

from __future__ import annotations

import os
import sys
import time
import traceback
from collections.abc import Callable

_FAILED = 1
_UNKNOWN = 255
"""The status of a child whose end somebody else has taken note of."""


class Child:
    """A forked process that runs `work` and nothing behind it: no `finally`, no `atexit` of its parent.

    `exitcode` is None as long as it is not seen to have ended.
    """

    def __init__(self, work: Callable[[], None]) -> None:
        for stream in (sys.stdout, sys.stderr):
            _flush(stream)  # else what they still hold is written twice
        self.exitcode: int | None = None
        self.pid = os.fork()
        if not self.pid:
            os._exit(_run(work))

    def join(self, seconds: float) -> None:
        """Wait for its end, for some seconds; `exitcode` tells whether it came."""
        end = time.monotonic() + seconds
        pause = 0.0005
        while not self._ended() and time.monotonic() < end:
            time.sleep(pause)
            pause = min(pause * 2, 0.05)

    def look(self) -> int:
        """How it is, without waiting: CLD_STOPPED, one of the CLD_ codes of a process that has ended, or 0."""
        try:
            found = os.waitid(os.P_PID, self.pid, os.WEXITED | os.WSTOPPED | os.WNOHANG | os.WNOWAIT)
        except ChildProcessError:
            return os.CLD_EXITED
        return found.si_code if found is not None else 0

    def _ended(self) -> bool:
        if self.exitcode is None:
            try:
                pid, status = os.waitpid(self.pid, os.WNOHANG)
            except ChildProcessError:
                pid, status = self.pid, _UNKNOWN << 8
            if pid:
                self.exitcode = os.waitstatus_to_exitcode(status)
        return self.exitcode is not None


def _run(work: Callable[[], None]) -> int:
    status = _FAILED
    try:
        # what waits in its parent's buffer is not for it; the descriptor stays as it is
        sys.stdin = open(os.devnull)  # noqa: SIM115
        work()
        status = 0
    except SystemExit as error:  # out of a runner of the user's own
        status = error.code if isinstance(error.code, int) else _FAILED if error.code else 0
    except BaseException:
        traceback.print_exc()
    finally:
        for stream in (sys.stdout, sys.stderr):
            _flush(stream)
    return status & 0xFF


def _flush(stream: object) -> None:
    try:
        stream.flush()  # type: ignore[attr-defined]
    except (AttributeError, OSError, ValueError):
        pass
