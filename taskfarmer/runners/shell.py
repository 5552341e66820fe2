"""The default runner: commands run as on a bash command line, but bash is started only if it is needed."""

from __future__ import annotations

import errno
import os
import re
from functools import cache, cached_property

from taskfarmer.runners.base import CommandRunner
from taskfarmer.runners.programs import Programs
from taskfarmer.runners.script import Script, is_too_long

# Characters without a special meaning to bash anywhere in a word, and the blanks between words.
_PLAIN = re.compile(r"[A-Za-z0-9_@%+:,./= \t-]+").fullmatch

# Keywords and builtins (`compgen -k`, `compgen -b` of bash 5.2). Programs of the same name differ from the builtins:
# `echo`, `test`, `kill`, `pwd`.
_KEYWORDS_AND_BUILTINS = (
    "if then else elif fi case esac for select while until do done in function time coproc { } ! [[ ]] "
    ". : [ alias bg bind break builtin caller cd command compgen complete compopt continue declare dirs disown echo "
    "enable eval exec exit export false fc fg getopts hash help history jobs kill let local logout mapfile popd "
    "printf pushd pwd read readarray readonly return set shift shopt source suspend test times trap true type "
    "typeset ulimit umask unalias unset wait"
)
BASH = "/bin/bash"
SHELL_WORDS = frozenset(_KEYWORDS_AND_BUILTINS.split())


class BasicRunner(CommandRunner):
    """Runs the command of a task on this node, as bash would."""

    # Created at first use, since a subclass need not call super().__init__().
    @cached_property
    def _plans(self) -> bool:
        ours = (self.argv, BasicRunner.argv), (self.cleanup, BasicRunner.cleanup)
        return all(getattr(method, "__func__", None) is own for method, own in ours)

    @cached_property
    def _programs(self) -> Programs:
        return Programs()

    @cached_property
    def _scripts(self) -> dict[int, Script]:
        return {}

    def argv(self, taskid: int, command: str) -> list[str]:
        """Return the program and its arguments if the command is simple, else bash and the command."""
        if is_too_long(command):
            self.cleanup(taskid)
            script = self._scripts[taskid] = Script(command)
            return [shell(), script.path]
        return self._argv(command)

    def plan(self, taskid: int, command: str) -> list[str] | None:
        """Return the same in advance, unless the command needs a file or a subclass overrides `argv` or `cleanup`."""
        return self._argv(command) if self._plans and not is_too_long(command) else None

    def _argv(self, command: str) -> list[str]:
        return simple_argv(command, self._programs) or shell_argv(command)

    def otherwise(self, taskid: int, command: str, error: OSError) -> list[str] | None:
        """Let bash run a program that cannot be started: it runs scripts without `#!`, and explains other errors."""
        if error.errno in (errno.EAGAIN, errno.ENOMEM) or is_too_long(command):
            return None
        if simple_argv(command, self._programs) is None:
            return None
        self._programs.forget()
        return shell_argv(command)

    def cleanup(self, taskid: int) -> None:
        """Remove the file of a command that was too long for an argument."""
        script = self._scripts.pop(taskid, None)
        if script is not None:
            script.close()


@cache
def shell() -> str:
    """Return the path of bash: in /bin, or on PATH, as on NixOS and FreeBSD; /bin/sh without bash."""
    # A relative directory on PATH would name another program after a change of directory.
    folders = [folder for folder in os.environ.get("PATH", "").split(":") if folder.startswith("/")]
    for path in (BASH, *(f"{folder}/bash" for folder in folders)):
        if os.access(path, os.X_OK) and os.path.isfile(path):
            return path
    return "/bin/sh"


def shell_argv(command: str) -> list[str]:
    """Return the arguments that run a command in the shell. `--` is for commands that start with a dash."""
    return [shell(), "-c", "--", command]


def simple_argv(command: str, programs: Programs | None = None) -> list[str] | None:
    """Return the program and arguments that bash would start for a simple command; None for any other command.

    None is always correct, but slower. BASH_ENV is ignored, as by a command line that a user types.
    """
    if not _PLAIN(command):
        return None
    argv = command.split()
    if not argv:
        return None
    first = argv[0]
    # A first word with `=` is an assignment, one that starts with `%` a job.
    if "=" in first or first[0] == "%":
        return None
    # The programs `true` and `false` are the same as the builtins, and common in tests and benchmarks.
    if first in SHELL_WORDS and not (len(argv) == 1 and first in ("true", "false")):
        return None
    program = (programs or Programs()).find(first)
    if program is None:
        return None
    argv[0] = program
    return argv
