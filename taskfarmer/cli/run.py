"""`run`: a farmer for a task list. This is also all that `pytaskfarmer.py` does.

What a farmer says at its end is imported at its beginning: nothing may be imported once tasks run, or an
upgrade of the installation would end them.
"""

from __future__ import annotations

from typing import Any

import click

from taskfarmer import signals
from taskfarmer.cli.arguments import RunVerb, WordedFlag
from taskfarmer.cli.options import config_option, proc_option
from taskfarmer.cli.program import show_version
from taskfarmer.cli.types import Duration, Name, Processes, SignalName, Size
from taskfarmer.formats.tasks import task_line
from taskfarmer.options import Ending, Exit, Settings
from taskfarmer.ui import closing
from taskfarmer.ui.stderr import Voice, print_error
from taskfarmer.ui.stdout import put_lines

_EPILOG = """\b
Examples:
  pytaskfarmer.py list.txt                     8 tasks at a time, here
  pytaskfarmer.py list.txt -n auto             one for each CPU that it may use
  srun -N 10 --ntasks-per-node=1 --kill-on-bad-exit=0 --wait=0 env --block-signal=USR1 pytaskfarmer.py list.txt -n 64
  pytaskfarmer.py list.txt --timeout 1:50:00   end in time, give the rest back

The task list has a command on each line, as on a bash command line; empty lines and lines that begin with #
are left out. If it was changed in the last minute, a last line without newline runs when the list has not changed for
10 s. Start it any number of times, on any nodes that share the file system: each task is recorded
once. Start it again after whatever happened, and it goes on.

\b
Exit status:
  0   all tasks are finished; or none is left to take, and others hold tasks
  1   all tasks are recorded, and some failed
  2   wrong usage or configuration; nothing was changed
  70  an error that was not foreseen, a defect: please report it, with what --verbose prints
  74  something could not be recorded, or the farm is damaged or gone
  75  unprocessed tasks remain: run the same command again
A farmer that has nothing left to take exits with 0 while other living farmers
hold tasks, even if tasks failed: `srun -K` then ends none of them. The last
farmer exits with the status of the whole farm; so does one with --wait.

\b
Signals:
  SIGUSR1, SIGUSR2, SIGTERM, SIGINT, SIGHUP,
  SIGQUIT, SIGXCPU                            end the running tasks, give back the rest, exit
  (one that comes while Python starts would end it: `env --block-signal=USR1` in front keeps it for us)

\b
Environment:
  SCRATCH                where the farm's lock is; without it, in the work directory
  TASKFARMER_CONFIG_DIR  a directory with INI files that define runners and handlers

\b
Durations:
  90, 90s, 90m, 1.5h, 2d, 30:00 (m:s), 1:30:00 (h:m:s), 1-02:00:00 (days-h:m:s)
"""


@click.command(cls=RunVerb, name="run", short_help="Run the commands of a task list.", epilog=_EPILOG)
@click.argument("tasklist", type=Name(), metavar="TASKLIST")
@proc_option(
    Processes(),
    "Tasks at a time. `auto`, or no number at the end or before an option: the CPUs that this process may use, by its "
    "affinity and the quotas of its cgroups.",
    default=8,
    show_default=True,
)
@click.option(
    "--timeout",
    type=Duration(positive=True, or_none=True),
    metavar="TIME",
    help="End after this time, tasks and all; what did not end goes back. `none` for no limit. "
    "[default: the end of the Slurm allocation, less --margin]",
)
@click.option(
    "--margin",
    type=Duration(),
    metavar="TIME",
    help="How long before the end of the allocation to end the tasks. [default: 1m, or more where --grace needs it]",
)
@click.option(
    "--min-time-left",
    type=Duration(),
    metavar="TIME",
    help="Begin no task with less time than this left. [default: what 95 % of the finished tasks took]",
)
@click.option(
    "--warn-signal",
    type=SignalName(),
    metavar="SIGNAL",
    help="Send this to the running tasks --warn-time before the end; one that then exits with 85 is run again.",
)
@click.option(
    "--warn-time", type=Duration(), default="60", show_default=True, metavar="TIME", help="See --warn-signal."
)
@click.option(
    "--checkpoint-exit-code",
    type=click.IntRange(1, 255),
    metavar="N",
    help="A task that exits with N has not failed: it is run again. [default: 85 with --warn-signal, else none]",
)
@click.option("-w", "--workdir", type=Name(True), metavar="DIR", help="The farm. [default: TASKLIST_workdir]")
@click.option(
    "-r", "--runner", default="default", metavar="NAME", help="What executes the commands; see `taskfarmer runners`."
)
@click.option(
    "-t",
    "--tasklist",
    "handler",
    default="default",
    metavar="HANDLER",
    help="What makes tasks of the list; see `taskfarmer handlers`.",
)
@click.option(
    "--logs",
    type=click.Choice(["files", "packed", "failed", "none"]),
    default="files",
    show_default=True,
    help="What becomes of tasks' output: a file each; one file for this farmer (see `taskfarmer logs`); a file for "
    "each that fails; nothing is kept.",
)
@click.option(
    "--log-limit",
    type=Size(),
    default="0",
    metavar="SIZE",
    help="Keep no more of what a task writes: its head and its tail (64k, 10M, 1G). [default: all]",
)
@click.option("--logs-dir", "--logDir", type=Name(True), metavar="DIR", help="Where logs go. [default: WORKDIR/logs]")
@click.option(
    "--grace",
    type=Duration(),
    default="10",
    show_default=True,
    metavar="TIME",
    help="Time that tasks have between SIGTERM and SIGKILL when they are ended.",
)
@click.option(
    "--leftovers",
    type=click.Choice(["keep", "wait", "end"]),
    default="keep",
    show_default=True,
    help="Processes that still run when a task's first process has ended. keep: they run until this farmer ends, and a "
    "warning names the task. wait: the task is over when all have ended. end: they get SIGTERM, and SIGKILL after "
    "--grace.",
)
@click.option("--wait", is_flag=True, help="Stay until the whole farm is done; take over what dead farmers leave.")
@click.option("--dry-run", is_flag=True, help="Print what would run, a task a line as `ID command`. Touches nothing.")
@click.option("--exit-zero", is_flag=True, help="Exit 0 also with failed or unprocessed tasks, as PyTaskFarmer did.")
@click.option(
    "--max-deaths",
    type=click.IntRange(0),
    default=10,
    show_default=True,
    metavar="N",
    help="Record a task as failed when more than N farmers or workers have died while it ran. 0: never.",
)
@click.option(
    "--clean-env",
    type=click.Choice(["slurm"]),
    help="Hide from tasks by what MPI programs and srun would take them for a part of the farmer's own job step.",
)
@config_option
@click.option("--lock-dir", type=Name(True), metavar="DIR", help="When the farm is made: where its lock is to be.")
@click.option(
    "--shared-group",
    is_flag=True,
    help="When the farm is made: let all members of the work directory's group work on it, whatever their umask.",
)
@click.option(
    "--lease",
    type=Duration(least=1.0),
    metavar="TIME",
    help="When the farm is made: silence after which a farmer is dead. [default: 10m]",
)
@click.option("--epoch-length", type=click.IntRange(1), hidden=True)
@click.option("-q", "--quiet", is_flag=True, help="Only warnings, errors, and what failed.")
@click.option("-v", "--verbose", cls=WordedFlag, is_flag=True, help="Say more. (`-v True` of old scripts works.)")
@click.option(
    "--version", is_flag=True, is_eager=True, expose_value=False, callback=show_version, help="Show the version."
)
def command(dry_run: bool, exit_zero: bool, quiet: bool, verbose: bool, **options: Any) -> int:
    """Run the commands of TASKLIST, some at a time, and share them with all other farmers of the list.

    Progress is told on stderr; a task's output is in WORKDIR/logs/log_ID. WORKDIR also has the files
    toprocess, finished and failed (a task a line) and timeline.json (for https://ui.perfetto.dev).
    """
    if quiet and verbose:
        raise click.UsageError("-q/--quiet and -v/--verbose exclude each other")
    settings = Settings(**options)
    voice = Voice(quiet, verbose)
    if dry_run:
        return _preview(settings, voice)
    from taskfarmer import farmer

    arriving = signals.Signals()
    try:
        ending = farmer.run(settings, voice.reporter(), arriving)
    finally:
        arriving.restore()
    return _close(ending, settings, voice, exit_zero)


def _preview(settings: Settings, voice: Voice) -> int:
    from taskfarmer.intake import preview

    signals.release()
    put_lines(task_line(number, task) for number, task in preview(settings, voice.reporter()))
    return 0


def exit_status(ending: Ending, exit_zero: bool) -> int:
    """The exit status of a run; with `exit_zero` 0 wherever PyTaskFarmer gave 0: unless it was interrupted."""
    forgiven = (Exit.FAILURES, Exit.AGAIN)
    if exit_zero and ending.status in forgiven and ending.stopped_by is None:
        return 0
    return int(ending.status)


def _close(ending: Ending, settings: Settings, voice: Voice, exit_zero: bool) -> int:
    status = exit_status(ending, exit_zero)
    story, important = closing(ending, settings.workdir_path, status)
    for line in story:
        voice.info(line)
    for line in important:
        voice.say(line)
    if ending.trouble is not None:
        program = click.get_current_context().find_root().info_name
        print_error(f"{program}: error: {ending.trouble}")
    return status
