"""One attempt at a task: its log, its environment, its process, and what came of it.

The process gets a process group of its own, default signal dispositions and an empty mask, /dev/null for
input, and its log for output and errors. It has no terminal, since its worker has none. It is started with
`posix_spawn`, which costs a third of what `fork` from Python does. A command that cannot be started is a
failed task with the reason in its log; a log that cannot be opened, or a system without room for a process,
is `NotStarted`: trouble of the farmer, and the task is untouched.
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
    """The variables of a task: the farmer's own, and ours, changed in place from task to task."""

    def __init__(self, place: SlotContext) -> None:
        self.variables = {name: value for name, value in os.environb.items() if name not in place.hidden}
        fixed = {"SLOT": str(place.slot), "WORKDIR": place.workdir, "FARMER": place.farmer}
        for name, value in fixed.items():
            self.variables[b"TASKFARMER_" + name.encode()] = os.fsencode(value)
        self.set_deadline(place.deadline)

    def set_deadline(self, deadline: float) -> None:
        """Tell the tasks that begin from now on when the farmer ends, in epoch seconds; 0 for never."""
        self.deadline = {b"TASKFARMER_DEADLINE": b"%d" % deadline} if deadline else {}
        self.variables.pop(b"TASKFARMER_DEADLINE", None)
        self.variables.update(self.deadline)


def note(log: int, line: bytes) -> None:
    """Write into a task's log what it could not; a full disk does not take it."""
    try:
        os.write(log, line)
    except OSError:
        pass


def _ignored() -> tuple[int, ...]:
    """Signals that a task would inherit as ignored: Python's SIGPIPE, `nohup`'s SIGHUP. A handler ends with `exec`."""
    return tuple(number for number in signal.valid_signals() if signal.getsignal(number) in (signal.SIG_IGN, None))


class Starter:
    """Starts in a slot the programs that a CommandRunner names."""

    def __init__(self, place: SlotContext, runner: CommandRunner, logs: Logs) -> None:
        self.runner = runner
        self.logs = logs
        self.environment = Environment(place)
        self._adds = getattr(runner.environment, "__func__", None) is not CommandRunner.environment
        self._input = _DUP2, os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC), 0
        self._spawn = partial(os.posix_spawnp, setpgroup=0, setsigmask=(), setsigdef=_ignored())

    def plan(self, batch: Batch) -> None:
        """Ask for what can be known of the tasks of a batch before they begin."""
        plan = self.runner.plan
        for task in batch.tasks:
            try:
                task.argv = plan(task.task_id, command_of(task))
            except Exception:  # a runner of a user may raise anything; it is asked for `argv` in its time
                return

    def start(self, task: Task) -> int | None:
        """Begin a task: None where it runs, or the exit status of one that could not be started."""
        task_id, attempt = task.task_id, task.batch.attempt
        log, path = self.logs.open(task_id, attempt)
        variables = self.environment.variables
        variables[b"PROC_NUMBER"] = variables[b"TASKFARMER_TASK_ID"] = b"%d" % task_id
        variables[b"TASKFARMER_ATTEMPT"] = b"%d" % attempt
        variables[b"TASKFARMER_LOG"] = path
        try:
            argv = task.argv
            if argv is None or self._adds:
                try:
                    argv, variables = self._asked(task)
                except Exception as error:  # a runner of a user may raise anything
                    note(log, start_failure(error)[1])
                    return NOT_STARTED
            files = self._input, (_DUP2, log, 1), (_DUP2, log, 2)
            try:
                task.pid = self._spawn(argv[0], argv, variables, file_actions=files)
            except (OSError, ValueError) as error:
                status = self._not_run(task, variables, files, error)
                if status is not None:
                    return status
        finally:
            if self.logs.close_after_start:
                durable.close_quietly(log)
        return None

    def _asked(self, task: Task) -> tuple[list[str], dict[bytes, bytes]]:
        """What the runner says of a task only when it begins."""
        argv = task.argv or self.runner.argv(task.task_id, command_of(task))
        more = self.runner.environment(task.task_id)
        variables = {os.fsencode(name): os.fsencode(value) for name, value in more.items()}
        return argv, {**self.environment.variables, **variables}

    def _not_run(
        self, task: Task, variables: dict[bytes, bytes], files: tuple[_File, ...], error: OSError | ValueError
    ) -> int | None:
        """What a task comes to whose program could not be started: another one, or a failure."""
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
            note(log, start_failure(error)[1])
            return NOT_STARTED
        if error.errno in _NO_ROOM:
            raise NotStarted(
                f"task {task.task_id}: no process could be made ({error.strerror}); it is kept for later"
            ) from error
        status, line = start_failure(error)
        note(log, line)
        return status


def command_of(task: Task) -> str:
    """A task's command as runners get it."""
    return task.command.decode(_ENCODING, _ERRORS)
