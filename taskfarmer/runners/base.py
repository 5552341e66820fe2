"""The base classes of runners, which execute the commands of tasks.

Subclass `CommandRunner` if each task is a program: define `argv`, and the workers start the program, wait for it and
stop its process tree. Subclass `Runner` to execute tasks in any other way: define `run`. A custom `run` has a worker
process for each slot, which runs one task at a time.

To change only the command, subclass `BasicRunner` and pass the new command to `super().run`::

    from taskfarmer.runners import BasicRunner

    class NicedRunner(BasicRunner):
        def __init__(self, level="5"):
            super().__init__()
            self.level = level

        def run(self, taskid, command, logfh):
            return super().run(taskid, f"nice -n {self.level} {command}", logfh)

A runner is created once, in the farmer; each worker has a copy. The keys of its section in the INI file are keyword
arguments of the constructor, always of type str.
"""

from __future__ import annotations

import errno
import os
import signal
import subprocess
from typing import IO, Any

# Exit statuses of a POSIX shell for a command that it could not start (POSIX.1-2017, XCU 2.8.2).
NOT_FOUND = 127
NOT_STARTED = 126


class Runner:
    """Executes tasks, one at a time. Subclasses define `run`, and `terminate` if they can stop a task.

    Example, which calls a function of the user's module instead of starting a program::

        class PythonRunner(Runner):
            def run(self, taskid, command, logfh):
                result = mymodule.simulate(seed=taskid, parameters=command.split())
                print(result, file=logfh)
                return 0 if result.converged else 1
    """

    def run(self, taskid: int, command: str, logfh: IO[Any]) -> int:
        """Execute a task, and return when it has ended.

        Args:
            taskid: The ID of the task, from 0. The attempt is in the environment variable TASKFARMER_ATTEMPT.
            command: The command, as the task list handler returned it.
            logfh: The task's log, a text file open for appending. Write the output of the task to it.

        Returns:
            The exit status from 0 to 255, or -N if signal N killed the task. The task is finished if it is 0, and
            failed if it is any other value, None, or not an int. The status that `--checkpoint-exit-code` names
            requests another run of the task.

        Any exception fails the task; the traceback is written to its log.
        """
        raise NotImplementedError(f"{type(self).__name__} does not define run()")

    def terminate(self) -> None:
        """Ask the running task to stop.

        It is called from a signal handler while `run` waits, so it must return at once and must not acquire locks.
        `run` should return soon afterwards: the worker and its children are killed at the end of the grace time.
        """


class CommandRunner(Runner):
    """A runner whose tasks are programs. Subclasses define `argv`.

    Example, which runs each task in a container::

        class ContainerRunner(CommandRunner):
            def __init__(self, image):
                self.image = image

            def argv(self, taskid, command):
                return ["apptainer", "exec", self.image, "/bin/bash", "-c", command]

    The workers start such programs faster than a custom `run` would. An exception in `argv` or `environment` fails the
    task with exit status 126; its log contains the message.
    """

    # On the class, since a subclass need not call super().__init__(). The name is from PyTaskFarmer.
    execute: subprocess.Popen[Any] | None = None
    _stopped = False

    def argv(self, taskid: int, command: str) -> list[str]:
        """Return the program and its arguments. A program without a slash is searched on PATH.

        Raise ValueError with a message of one line if the command cannot be started.
        """
        raise NotImplementedError(f"{type(self).__name__} does not define argv()")

    def plan(self, taskid: int, command: str) -> list[str] | None:
        """Return in advance the same list as `argv`, or None to call `argv` when the task starts.

        It is called for many tasks in a row, which is faster. Return a list only if that needs no `cleanup`, which is
        not called for such a task, and if the list does not depend on the time or on other tasks.
        """
        return None

    def otherwise(self, taskid: int, command: str, error: OSError) -> list[str] | None:
        """Return another program and its arguments, after `argv` could not be started because of `error`.

        None fails the task. `BasicRunner` uses it to let bash run scripts without `#!`.
        """
        return None

    def environment(self, taskid: int) -> dict[str, str]:
        """Return environment variables for the task, in addition to those that every task gets.

        Example: `{"OMP_NUM_THREADS": self.threads}`. Names and values are of type str.
        """
        return {}

    def cleanup(self, taskid: int) -> None:
        """Remove temporary files that `argv` created. Called after the task's program has ended, maybe twice."""

    def run(self, taskid: int, command: str, logfh: IO[Any]) -> int:
        """Start the task's program in the session of the caller, and wait for it.

        Returns:
            The exit status, or -N if signal N killed the program. If the program cannot be started: 127 if it was not
            found, else 126; the log contains the reason.
        """
        self._stopped = False
        logfh.flush()
        try:
            self.execute = self._start(taskid, command, logfh)
        except (OSError, ValueError) as error:
            status, line = start_failure(error)
            os.write(logfh.fileno(), line)
        else:
            if self._stopped:  # terminate() was called before the child existed
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
        except OSError as error:  # an ENOENT from argv() does not mean that the program was not found (127)
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
    """Return the exit status and the log line of a task that could not be started because of `error`."""
    reason = str(error)
    if isinstance(error, OSError) and error.strerror:
        reason = error.strerror if error.filename is None else f"{error.filename}: {error.strerror}"
    status = NOT_FOUND if isinstance(error, OSError) and error.errno == errno.ENOENT else NOT_STARTED
    return status, f"taskfarmer: cannot start the command: {reason}\n".encode(errors="surrogateescape")


def _spawn(argv: list[str], variables: dict[str, str], logfh: IO[Any]) -> subprocess.Popen[Any]:
    # Block all signals during fork: our handlers must not run in the child before exec.
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    try:
        return subprocess.Popen(
            argv,
            stdin=subprocess.DEVNULL,
            stdout=logfh,
            stderr=logfh,
            env=variables,
            # Inheritable descriptors are meant to be inherited: the lock on the heartbeat file, a script in a memfd.
            close_fds=False,
            preexec_fn=_default_signals,
        )
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)


def _default_signals() -> None:
    """Restore the default dispositions: ignored and blocked signals would survive exec (signal(7))."""
    for number in signal.valid_signals():
        if signal.getsignal(number) not in (signal.SIG_DFL, None):
            signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())


def runs_programs(runner: Runner) -> bool:
    """Whether the workers start the programs of this runner; False if it overrides `run`."""
    return isinstance(runner, CommandRunner) and type(runner).run is CommandRunner.run


def is_ours(runner: Runner) -> bool:
    """Whether a runner starts programs and belongs to this package, so that workers execute no code of users."""
    return runs_programs(runner) and type(runner).__module__.startswith("taskfarmer.")
