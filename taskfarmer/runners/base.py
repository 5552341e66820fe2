"""What a runner is, and the kind of runner that turns a task into a program.

A runner of the user's own has a worker for each slot, which runs one task at a time. A `CommandRunner` need not run
anything by itself: the workers ask it for `argv` and `environment`, start the program, end its process tree and then
call `cleanup`. Its `run` does the same in one call, for subclasses that change the command and hand it on with
`super().run(...)`.
"""

from __future__ import annotations

import errno
import os
import signal
from typing import IO, TYPE_CHECKING, Any

if TYPE_CHECKING:
    import subprocess

# Exit statuses of a POSIX shell for a command that it could not start (POSIX.1-2017, XCU 2.8.2).
NOT_FOUND = 127
NOT_STARTED = 126


class Runner:
    """Executes tasks, one at a time. The base of every runner; subclasses define `run`, and `terminate` if they can."""

    def run(self, taskid: int, command: str, logfh: IO[Any]) -> int:
        """Run `command` to its end, its output into `logfh`; return its exit status, or minus its signal's number."""
        raise NotImplementedError(f"{type(self).__name__} does not define run()")

    def terminate(self) -> None:
        """Ask the running task to end. Called from a signal handler while `run` waits, so it must not wait or lock."""


class CommandRunner(Runner):
    """A runner whose tasks are programs. Subclasses define `argv`."""

    # On the class, not set in __init__: a subclass need not call super().__init__(). PyTaskFarmer's name for it.
    execute: subprocess.Popen[Any] | None = None
    _stopped = False

    def argv(self, taskid: int, command: str) -> list[str]:
        """Return the program and its arguments. Without a slash the program is looked for on PATH.

        ValueError or OSError, with a message of one line, where there can be none: the task then failed with 126.
        """
        raise NotImplementedError(f"{type(self).__name__} does not define argv()")

    def plan(self, taskid: int, command: str) -> list[str] | None:
        """Return what `argv` would where that can be said before the task begins, and leaves nothing behind; else None.

        Many tasks are asked for in a row, which costs less. For one that was planned `cleanup` is not called.
        """
        return None

    def otherwise(self, taskid: int, command: str, error: OSError) -> list[str] | None:
        """Return what to start when `argv` could not be started because of `error`, or None: then the task failed."""
        return None

    def environment(self, taskid: int) -> dict[str, str]:
        """Return the variables that this runner sets for the task, on top of those that every task gets."""
        return {}

    def cleanup(self, taskid: int) -> None:
        """Remove what `argv` made for the task. Called when its processes are gone; a second call does nothing."""

    def run(self, taskid: int, command: str, logfh: IO[Any]) -> int:
        """Run the task's program, in the session of the caller, and wait for it.

        A program that cannot be started is a task that failed with 127 (not found) or 126, and a line in the log.
        """
        self._stopped = False
        logfh.flush()
        try:
            self.execute = self._start(taskid, command, logfh)
        except (OSError, ValueError) as error:
            status, line = start_failure(error)
            os.write(logfh.fileno(), line)
        else:
            if self._stopped:  # terminate() came while there was no child yet
                self.terminate()
            status = self.execute.wait()
        self.cleanup(taskid)
        return status

    def terminate(self) -> None:
        """Send SIGTERM to the running program, if there is one."""
        self._stopped = True
        if self.execute is not None:
            self.execute.terminate()

    def _start(self, taskid: int, command: str, logfh: IO[Any]) -> subprocess.Popen[Any]:
        try:
            argv = self.argv(taskid, command)
        except OSError as error:  # not the program's ENOENT: that one would mean 127
            raise ValueError(str(error)) from error
        variables = {**os.environ, "PROC_NUMBER": str(taskid), **self.environment(taskid)}
        try:
            return _spawn(argv, variables, logfh)
        except OSError as error:
            second = self.otherwise(taskid, command, error)
            if second is None:
                raise
            return _spawn(second, variables, logfh)


def start_failure(error: Exception) -> tuple[int, bytes]:
    """Return the exit status of a task that `error` kept from starting, and the line for its log."""
    reason = str(error)
    if isinstance(error, OSError) and error.strerror:
        reason = error.strerror if error.filename is None else f"{error.filename}: {error.strerror}"
    status = NOT_FOUND if isinstance(error, OSError) and error.errno == errno.ENOENT else NOT_STARTED
    return status, f"taskfarmer: the command cannot be started: {reason}\n".encode(errors="surrogateescape")


def _spawn(argv: list[str], variables: dict[str, str], logfh: IO[Any]) -> subprocess.Popen[Any]:
    # All signals wait while the child is made: our handlers must not run in it, before it has become the program.
    import subprocess  # a farmer whose runner has a use for it has imported it before its first task (farmer/runner.py)

    mask = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    try:
        return subprocess.Popen(
            argv,
            stdin=subprocess.DEVNULL,
            stdout=logfh,
            stderr=logfh,
            env=variables,
            # What is inheritable is so on purpose: the farmer's alive lock, a script in a memfd.
            close_fds=False,
            preexec_fn=_default_signals,
        )
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)


def _default_signals() -> None:
    """Give the child what a login shell would: an ignored or blocked signal survives exec (signal(7))."""
    for number in signal.valid_signals():
        if signal.getsignal(number) not in (signal.SIG_DFL, None):
            signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())


def runs_programs(runner: Runner) -> bool:
    """Whether a runner only says which program to start; one that has a `run` of its own does all by itself."""
    return isinstance(runner, CommandRunner) and type(runner).run is CommandRunner.run


def is_ours(runner: Runner) -> bool:
    """Whether a runner starts programs and is one of this package: nothing of the user's own runs in a worker."""
    return runs_programs(runner) and type(runner).__module__.startswith("taskfarmer.")
