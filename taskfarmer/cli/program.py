"""The program: from arguments to an exit status. Each error becomes one line on stderr.

A verb's module is imported when the verb is used, so that each command starts quickly.
"""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Sequence

import click

from taskfarmer import __version__, signals
from taskfarmer.cli.arguments import Verb
from taskfarmer.errors import TaskFarmerError, remedy
from taskfarmer.ui.stderr import print_error

INTERRUPTED = 130
"""The exit status that shells report after SIGINT."""
INTERNAL_ERROR = 70
"""An internal error (EX_SOFTWARE)."""
SYSTEM_ERROR = 74
"""An error of the operating system (EX_IOERR)."""

VERBS = (
    *("run", "submit", "status", "jobs", "logs", "retry", "stop"),
    *("runners", "handlers", "check", "doctor", "completion"),
)


class Verbs(click.Group):
    """The command `taskfarmer`, which imports the module of a verb when it is used."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(VERBS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        return find_verb(cmd_name) if cmd_name in VERBS else None

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if not ctx.resilient_parsing and args and args[0] not in VERBS and not args[0].startswith("-"):
            raise click.UsageError(
                f"unknown verb {args[0]!r}: use one of {', '.join(VERBS)}; to run a task list, use "
                "`pytaskfarmer.py TASKLIST` or `taskfarmer run TASKLIST`",
                ctx,
            )
        return super().resolve_command(ctx, args)

    def get_help(self, ctx: click.Context) -> str:
        signals.release()
        return super().get_help(ctx)


@click.group(
    cls=Verbs,
    name="taskfarmer",
    invoke_without_command=True,
    subcommand_metavar="VERB ...",
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="""\b
Examples:
  taskfarmer run list.txt -n auto
  taskfarmer status list.txt_workdir
  taskfarmer logs list.txt_workdir --failed
  taskfarmer retry list.txt_workdir --failed

\b
`pytaskfarmer.py TASKLIST` is short for `taskfarmer run TASKLIST`.
`taskfarmer VERB --help` lists the options of a verb.
""",
)
@click.version_option(__version__, message="taskfarmer %(version)s", help="Show the version and exit.")
@click.pass_context
def verbs(ctx: click.Context) -> int | None:
    """Run the commands of a task list on one node or many, and manage the resulting farm.

    A farm is the work directory of one task list: it records the state of every task. Any number of farmers, on
    any nodes, can work on a farm at once.
    """
    if ctx.invoked_subcommand is None:
        print_error("taskfarmer: error: no verb given; see taskfarmer --help")
        return 2
    return None


def find_verb(name: str) -> click.Command:
    module = importlib.import_module(f"taskfarmer.cli.{name}")
    command: click.Command = module.command
    assert isinstance(command, Verb)
    return command


def main(program: str, args: Sequence[str]) -> int:
    """Run `program` with its arguments and return the exit status. Any error is printed as one line."""
    open_standard_streams()
    try:
        command = find_verb("run") if program == "pytaskfarmer.py" else verbs
        status = command.main(list(args), program, completion_variable(program), standalone_mode=False)
        sys.stdout.flush()
    except (Exception, KeyboardInterrupt) as error:
        status, line = explain(error)
        if line:
            print_error(f"{program}: error: {' '.join(line.split())}")
        unexpected = status in (INTERNAL_ERROR, SYSTEM_ERROR) or is_internal_error(error)
        if unexpected and not {"-v", "--verbose"}.isdisjoint(args):
            show_traceback()
    flush_stdout()
    return status if isinstance(status, int) else 0


def completion_variable(program: str) -> str:
    """Return the environment variable that requests completion; click before 8.1.4 would put a dot into it."""
    return "_" + program.replace(".", "_").upper() + "_COMPLETE"


def explain(error: BaseException) -> tuple[int, str]:
    """Return the exit status and the message for an exception; the message is empty if none is needed."""
    if isinstance(error, click.exceptions.Exit):
        return error.exit_code, ""
    if isinstance(error, click.Abort) and isinstance(error.__context__, EOFError):
        error = error.__context__  # click expects EOFError from prompts only
    if isinstance(error, KeyboardInterrupt | click.Abort):
        return INTERRUPTED, "interrupted"
    if isinstance(error, click.ClickException):
        return error.exit_code, _usage_message(error)
    if isinstance(error, TaskFarmerError):
        return error.exit_status, str(error)
    if isinstance(error, MemoryError):
        return SYSTEM_ERROR, "out of memory; a list of millions of tasks needs more (ulimit -v, --mem of the job)"
    if is_internal_error(error):
        from taskfarmer.dependencies import outdated  # imported late: it is rarely needed

        problem = outdated()
        if problem is not None:
            return 2, problem
    if isinstance(error, ModuleNotFoundError):
        return 2, f"{sys.executable} has no module {error.name}; install it with pip"
    if isinstance(error, FileNotFoundError) and not error.filename and _directory_is_deleted():
        return 2, "the current directory was deleted; change to an existing one (cd DIR) and start again"
    if isinstance(error, OSError) and error.strerror:
        advice = remedy(error, "")
        if error.filename:
            message = f"{os.fsdecode(error.filename)}: {error.strerror}"
            return SYSTEM_ERROR, f"{message}; {advice}" if advice else message
        return SYSTEM_ERROR, f"{error.strerror}; {advice or 'for the traceback, add --verbose'}"
    problem = f"{type(error).__name__}: {error}"
    return INTERNAL_ERROR, f"internal error: {problem}; please report it with the output of --verbose"


def _directory_is_deleted() -> bool:
    try:
        os.getcwd()
    except FileNotFoundError:
        return True
    return False


def is_internal_error(error: BaseException) -> bool:
    """Whether an error can only be a bug in taskfarmer or in a package that it uses."""
    expected = (click.ClickException, click.Abort, click.exceptions.Exit, TaskFarmerError, KeyboardInterrupt, OSError)
    return not isinstance(error, expected)


def _usage_message(error: click.ClickException) -> str:
    text = error.format_message()
    if isinstance(error, click.BadParameter) and not isinstance(error, click.MissingParameter) and error.param:
        name = "/".join(error.param.opts)
        text = f"{name.upper() if isinstance(error.param, click.Argument) else name}: {error.message}"
    ctx: click.Context | None = getattr(error, "ctx", None)
    path = ctx.command_path if ctx is not None else None
    return text.rstrip(".") + (f"; see {path} --help" if path else "")


def show_traceback() -> None:
    import traceback

    for line in traceback.format_exc().splitlines():
        print_error(line)


def open_standard_streams() -> None:
    """Open standard streams that the shell closed on /dev/null; otherwise a file of the farm would get their number."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)
    if sys.stdout is None:
        sys.stdout = open(1, "w", closefd=False)  # noqa: SIM115
    if sys.stderr is None:
        sys.stderr = open(2, "w", closefd=False)  # noqa: SIM115


def flush_stdout() -> None:
    """Flush stdout now, so that a closed or full stdout causes no error when the interpreter exits."""
    try:
        sys.stdout.flush()
    except (OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
