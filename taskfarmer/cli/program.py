"""From arguments to an exit status: whatever happens on the way is one line for a person.

The verbs are imported when they are asked for, so that no command pays for another one's needs.
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
"""Ended by SIGINT, as a shell counts it."""
DEFECT = 70
"""An error that nobody foresaw (EX_SOFTWARE)."""
TROUBLE = 74
"""The system refused something (EX_IOERR)."""

VERBS = {
    "run": "run",
    "submit": "submit",
    "status": "status",
    "jobs": "jobs",
    "logs": "logs",
    "retry": "retry",
    "stop": "stop",
    "runners": "runners",
    "handlers": "handlers",
    "check": "check",
    "doctor": "doctor",
    "completion": "completion",
}


def show_version(ctx: click.Context, param: click.Parameter, value: bool) -> None:
    if value and not ctx.resilient_parsing:
        click.echo(f"taskfarmer {__version__}")
        ctx.exit()


class Verbs(click.Group):
    """The command `taskfarmer`: a module of this package for each verb."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(VERBS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        return find_verb(cmd_name) if cmd_name in VERBS else None

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if not ctx.resilient_parsing and args and args[0] not in VERBS and not args[0].startswith("-"):
            raise click.UsageError(
                f"{args[0]!r} is no verb: use one of {', '.join(VERBS)}; a task list is run with "
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

`pytaskfarmer.py TASKLIST` is the same as `taskfarmer run TASKLIST`. `taskfarmer VERB --help` explains a verb.""",
)
@click.option(
    "--version", is_flag=True, is_eager=True, expose_value=False, callback=show_version, help="Show the version."
)
@click.pass_context
def verbs(ctx: click.Context) -> int | None:
    """Run the commands of a task list on one node or many, and look after the farm that they make.

    A farm is the work directory of one task list: everything that is known about it. Any number of
    farmers on any nodes may work on a farm at once.
    """
    if ctx.invoked_subcommand is None:
        print_error("taskfarmer: error: no verb is given; see taskfarmer --help")
        return 2
    return None


def find_verb(name: str) -> click.Command:
    module = importlib.import_module(f"taskfarmer.cli.{VERBS[name]}")
    command: click.Command = module.command
    assert isinstance(command, Verb)
    return command


def main(program: str, args: Sequence[str]) -> int:
    """Run the command `program` with its arguments; the exit status. Prints one line for any error."""
    open_standard_streams()
    try:
        command = find_verb("run") if program == "pytaskfarmer.py" else verbs
        status = command.main(list(args), program, completion_variable(program), standalone_mode=False)
        sys.stdout.flush()
    except (Exception, KeyboardInterrupt) as error:
        status, line = explain(error)
        if line:
            print_error(f"{program}: error: {' '.join(line.split())}")
        if (status in (DEFECT, TROUBLE) or is_unforeseen(error)) and not {"-v", "--verbose"}.isdisjoint(args):
            show_traceback()
    leave_stdout()
    return status if isinstance(status, int) else 0


def completion_variable(program: str) -> str:
    """The variable in which a shell asks for completion; click before 8.1.4 makes one with a dot."""
    return "_" + program.replace(".", "_").upper() + "_COMPLETE"


def explain(error: BaseException) -> tuple[int, str]:
    """The exit status and the line for an error that reached the top; no line where none is needed."""
    if isinstance(error, click.exceptions.Exit):
        return error.exit_code, ""
    if isinstance(error, click.Abort) and isinstance(error.__context__, EOFError):
        error = error.__context__  # click takes it for a prompt that was left
    if isinstance(error, KeyboardInterrupt | click.Abort):
        return INTERRUPTED, "interrupted"
    if isinstance(error, click.ClickException):
        return error.exit_code, _usage(error)
    if isinstance(error, TaskFarmerError):
        return error.exit_status, str(error)
    if isinstance(error, MemoryError):
        return TROUBLE, "not enough memory; a list of millions of tasks needs more (ulimit -v, --mem of the job)"
    if is_unforeseen(error):
        from taskfarmer.dependencies import outdated  # not at the top: it reads what is installed

        complaint = outdated()
        if complaint is not None:
            return 2, complaint
    if isinstance(error, ModuleNotFoundError):
        return 2, f"no module {error.name} in {sys.executable}; install it with pip"
    if isinstance(error, FileNotFoundError) and not error.filename and _directory_is_deleted():
        return 2, "the current directory was deleted: change to one that exists (cd DIR) and start again"
    if isinstance(error, OSError) and error.strerror:
        advice = remedy(error, "")
        if error.filename:
            return TROUBLE, f"{os.fsdecode(error.filename)}: {error.strerror}" + (f"; {advice}" if advice else "")
        return TROUBLE, f"{error.strerror}; {advice or '--verbose shows where it was needed'}"
    return DEFECT, f"unexpected {type(error).__name__}: {error}; --verbose shows where. Please report it"


def _directory_is_deleted() -> bool:
    try:
        os.getcwd()
    except FileNotFoundError:
        return True
    return False


def is_unforeseen(error: BaseException) -> bool:
    """Whether an error can only be a defect, of ours or of a package that we use."""
    known = (click.ClickException, click.Abort, click.exceptions.Exit, TaskFarmerError, KeyboardInterrupt, OSError)
    return not isinstance(error, known)


def _usage(error: click.ClickException) -> str:
    text = error.format_message()
    if isinstance(error, click.BadParameter) and not isinstance(error, click.MissingParameter) and error.param:
        name = "/".join(error.param.opts)
        text = f"{name.upper() if isinstance(error.param, click.Argument) else name}: {error.message}"
    ctx: click.Context | None = getattr(error, "ctx", None)
    path = ctx.command_path if ctx is not None else None
    return f"{text.rstrip('.')}; see {path} --help" if path else text


def show_traceback() -> None:
    import traceback

    for line in traceback.format_exc().splitlines():
        print_error(line)


def open_standard_streams() -> None:
    """Where the shell closed a standard stream, open it on /dev/null: else a file of the farm gets its number."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)
    if sys.stdout is None:
        sys.stdout = open(1, "w", closefd=False)  # noqa: SIM115
    if sys.stderr is None:
        sys.stderr = open(2, "w", closefd=False)  # noqa: SIM115


def leave_stdout() -> None:
    """Keep the interpreter from failing, when it ends, over what stdout no longer takes."""
    try:
        sys.stdout.flush()
    except (OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
