"""Start one attempt at a task: open its log, set its environment, spawn its process.

The process gets a new process group, default signal dispositions and an empty mask, /dev/null for input, and its log
for output and errors. It has no terminal, since its worker has none. `posix_spawn` costs a third of what `fork` does.

If a command cannot be started, the task has failed, and its log contains the reason. If the log cannot be opened, or if
the system has no room for another process, that is `NotStarted`: trouble of the farmer, and the task stays unprocessed.
"""

from __future__ import annotations

import errno
import os
import signal
import sys
from functools import partial

from taskfarmer.runners.base import NOT_STARTED, CommandRunner, start_failure
from taskfarmer.storage import durable
from taskfarmer.worker.batch import Batch, Task
from taskfarmer.worker.context import NotStarted, SlotContext
from taskfarmer.worker.output.files import Logs

_NO_ROOM = (errno.EAGAIN, errno.ENOMEM, errno.EMFILE, errno.ENFILE)
_DUP2 = os.POSIX_SPAWN_DUP2
_File = tuple[int, int, int]
_ENCODING, _ERRORS = sys.getfilesystemencoding(), sys.getfilesystemencodeerrors()


class Environment:
    """The variables of tasks: those of the farmer, and TASKFARMER_*. They are changed in place for each task."""

    def __init__(self, context: SlotContext) -> None:
        self.variables = {name: value for name, value in os.environb.items() if name not in context.hidden}
        fixed = {"SLOT": str(context.slot), "WORKDIR": context.workdir, "FARMER": context.farmer}
        for name, value in fixed.items():
            self.variables[b"TASKFARMER_" + name.encode()] = os.fsencode(value)
        self.set_deadline(context.deadline)

    def set_deadline(self, deadline: float) -> None:
        """Set the end of the farmer for tasks that start later, in epoch seconds; 0 if it has none."""
        self.deadline = {b"TASKFARMER_DEADLINE": b"%d" % deadline} if deadline else {}
        self.variables.pop(b"TASKFARMER_DEADLINE", None)
        self.variables.update(self.deadline)


def write_to_log(log: int, line: bytes) -> None:
    """Append a line to a task's log, unless the disk is full."""
    try:
        os.write(log, line)
    except OSError:
        pass


def _ignored() -> tuple[int, ...]:
    """Signals that a task would inherit as ignored: SIGPIPE by Python, SIGHUP by `nohup`. `exec` resets handlers."""
    return tuple(number for number in signal.valid_signals() if signal.getsignal(number) in (signal.SIG_IGN, None))


class Starter:
    """Starts the programs of a slot, as its CommandRunner names them."""

    def __init__(self, context: SlotContext, runner: CommandRunner, logs: Logs) -> None:
        self.runner = runner
        self.logs = logs
        self.environment = Environment(context)
        self._adds_variables = getattr(runner.environment, "__func__", None) is not CommandRunner.environment
        self._input = _DUP2, os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC), 0
        self._spawn = partial(os.posix_spawnp, setpgroup=0, setsigmask=(), setsigdef=_ignored())

    def plan(self, batch: Batch) -> None:
        """Let the runner plan the programs of a batch before their tasks start."""
        plan = self.runner.plan
        for task in batch.tasks:
            try:
                task.argv = plan(task.task_id, command_of(task))
            except Exception:  # a custom runner may raise anything; `argv` is called when the task starts
                return

    def start(self, task: Task) -> int | None:
        """Start a task; returns None if it runs, or the exit status if it could not be started."""
        task_id, attempt = task.task_id, task.batch.attempt
        log, path = self.logs.open(task_id, attempt)
        variables = self.environment.variables
        variables[b"PROC_NUMBER"] = variables[b"TASKFARMER_TASK_ID"] = b"%d" % task_id
        variables[b"TASKFARMER_ATTEMPT"] = b"%d" % attempt
        variables[b"TASKFARMER_LOG"] = path
        try:
            argv = task.argv
            if argv is None or self._adds_variables:
                try:
                    argv, variables = self._program_of(task)
                except Exception as error:  # a custom runner may raise anything
                    write_to_log(log, start_failure(error)[1])
                    return NOT_STARTED
            files = self._input, (_DUP2, log, 1), (_DUP2, log, 2)
            try:
                task.pid = self._spawn(argv[0], argv, variables, file_actions=files)
            except (OSError, ValueError) as error:
                status = self._start_otherwise(task, variables, files, error)
                if status is not None:
                    return status
        finally:
            if self.logs.close_after_start:
                durable.close_quietly(log)
        return None

    def _program_of(self, task: Task) -> tuple[list[str], dict[bytes, bytes]]:
        """The arguments and the variables of a task, from its runner."""
        argv = task.argv or self.runner.argv(task.task_id, command_of(task))
        more = self.runner.environment(task.task_id)
        variables = {os.fsencode(name): os.fsencode(value) for name, value in more.items()}
        return argv, {**self.environment.variables, **variables}

    def _start_otherwise(
        self, task: Task, variables: dict[bytes, bytes], files: tuple[_File, ...], error: OSError | ValueError
    ) -> int | None:
        """Start another program, if the runner has one, for a task whose program failed to start."""
        try:
            if isinstance(error, OSError) and error.errno not in _NO_ROOM:
                other = self.runner.otherwise(task.task_id, command_of(task), error)
                if other is not None:
                    task.pid = self._spawn(other[0], other, variables, file_actions=files)
                    return None
        except (OSError, ValueError) as another:
            error = another
        log = files[-1][1]
        if isinstance(error, ValueError):
            write_to_log(log, start_failure(error)[1])
            return NOT_STARTED
        if error.errno in _NO_ROOM:
            raise NotStarted(
                f"task {task.task_id}: cannot start a process ({error.strerror}); will retry later"
            ) from error
        status, line = start_failure(error)
        write_to_log(log, line)
        return status


def command_of(task: Task) -> str:
    """The command of a task, as runners get it."""
    return task.command.decode(_ENCODING, _ERRORS)
