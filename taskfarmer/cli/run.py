"""`run`: start a farmer for a task list. `pytaskfarmer.py` is this verb under its old name.

The closing message is imported at the start: once tasks run, nothing may be imported any more, or an upgrade of the
installation could crash a running farmer.
"""

from __future__ import annotations

from typing import Any

import click

from taskfarmer import __version__, signals
from taskfarmer.cli.arguments import RunVerb, WordedFlag
from taskfarmer.cli.options import config_option, proc_option
from taskfarmer.cli.types import Duration, Name, Processes, SignalName, Size
from taskfarmer.formats.tasks import task_line
from taskfarmer.options import Ending, Exit, Settings
from taskfarmer.ui import closing
from taskfarmer.ui.stderr import FarmerLog, print_error
from taskfarmer.ui.stdout import write_untrusted_lines

HEADINGS = {
    "Common options": (
        *("--proc", "--workdir", "--runner", "--tasklist", "--config", "--wait", "--dry-run"),
        *("--quiet", "--verbose", "--version", "--help"),
    ),
    "Time limits": (
        *("--timeout", "--margin", "--min-time-left", "--grace"),
        *("--warn-signal", "--warn-time", "--checkpoint-exit-code"),
    ),
    "Logs": ("--logs", "--log-limit", "--logs-dir"),
    "Farm and tasks": ("--max-deaths", "--leftovers", "--clean-env", "--lease", "--lock-dir", "--shared-group"),
    "Compatibility": ("--exit-zero",),
}

_EPILOG = """\b
Examples:
  pytaskfarmer.py list.txt                    run 8 tasks at a time
  pytaskfarmer.py list.txt -n auto            one task per CPU
  pytaskfarmer.py list.txt --timeout 1:50:00  stop after 1 h 50 min
  srun -N 10 --ntasks-per-node=1 --kill-on-bad-exit=0 --wait=0 \\
      env --block-signal=USR1 pytaskfarmer.py list.txt -n 64

A task list contains one command per line, as you would type it in bash. Blank lines and lines that start with # are
skipped. You may append lines while farmers run. After any interruption, run the same command again: the farm continues,
and each task is recorded exactly once.

\b
Files in WORKDIR:
  logs/log_ID                  output of each task (see --logs)
  toprocess, finished, failed  the tasks, as `ID command`
  timeline.json                timeline of the tasks, for ui.perfetto.dev

\b
Exit status:
  0   this farmer found no more work: all tasks are finished, or other
      farmers still run some
  1   all tasks are recorded, and some failed
  2   wrong usage or configuration; nothing was changed
  70  internal error: please report it with the output of --verbose
  74  results could not be recorded, the farm is damaged or gone, or all
      workers died
  75  unprocessed tasks remain: run the same command again

While other farmers hold tasks, a farmer without work exits with 0 even if tasks failed, so that `srun -K` does not stop
the others. The last farmer, and one with --wait, exits with the status of the whole farm.

\b
Signals:
  USR1 USR2 TERM INT HUP QUIT XCPU
      Terminate the running tasks, put them back on the list, and exit.
      A signal that arrives during Python start-up would kill the farmer;
      prefix the command with `env --block-signal=USR1`.

\b
Environment:
  SCRATCH                The farm's lock is in $SCRATCH/.taskfarmer-UID; if
                         SCRATCH is not set, in the work directory.
  TASKFARMER_CONFIG_DIR  Directory with INI files for runners and handlers.

\b
TIME is a number of seconds, or like 90s, 90m, 1.5h, 2d, 30:00 (m:s),
1:30:00 (h:m:s), 1-02:00:00 (days-h:m:s).
"""


@click.command(
    cls=RunVerb, name="run", short_help="Run the commands of a task list.", headings=HEADINGS, epilog=_EPILOG
)
@click.argument("tasklist", type=Name(), metavar="TASKLIST")
@proc_option(
    Processes(),
    "Tasks to run at once. `auto`, or -n without a number: one per usable CPU.",
    default=8,
    show_default=True,
)
@click.option("-w", "--workdir", type=Name(True), metavar="DIR", help="Work directory. [default: TASKLIST_workdir]")
@click.option(
    "-r", "--runner", default="default", metavar="NAME", help="Runner for the commands; see `taskfarmer runners`."
)
@click.option(
    "-t",
    "--tasklist",
    "handler",
    default="default",
    metavar="NAME",
    help="Handler that turns the list into tasks; see `taskfarmer handlers`.",
)
@config_option
@click.option("--wait", is_flag=True, help="Stay until all tasks are recorded; take over tasks of dead farmers.")
@click.option("--dry-run", is_flag=True, help="Print the tasks that would run, and exit.")
@click.option("-q", "--quiet", is_flag=True, help="Log only warnings, errors and failures.")
@click.option("-v", "--verbose", cls=WordedFlag, is_flag=True, help="Log more details.")
@click.version_option(__version__, message="taskfarmer %(version)s", help="Show the version and exit.")
@click.option(
    "--timeout",
    type=Duration(positive=True, or_none=True),
    metavar="TIME",
    help="Stop after TIME. Tasks still running are terminated and put back on the list. `none`: no limit. "
    "[default: the end of the Slurm allocation, minus --margin]",
)
@click.option(
    "--margin",
    type=Duration(),
    metavar="TIME",
    help="Stop this long before the end of the allocation. [default: 1m, or more if --grace is long]",
)
@click.option(
    "--min-time-left",
    type=Duration(),
    metavar="TIME",
    help="Start no task if less time than this is left. [default: the time that 95 % of the finished tasks needed]",
)
@click.option(
    "--grace",
    type=Duration(),
    default="10",
    show_default=True,
    metavar="TIME",
    help="Time between SIGTERM and SIGKILL for tasks that are terminated.",
)
@click.option(
    "--warn-signal",
    type=SignalName(),
    metavar="SIGNAL",
    help="Send SIGNAL to the running tasks --warn-time before the end, so that they can save their state. A task that "
    "then exits with 85 is run again.",
)
@click.option(
    "--warn-time",
    type=Duration(),
    default="60",
    show_default=True,
    metavar="TIME",
    help="How long before the end to send --warn-signal.",
)
@click.option(
    "--checkpoint-exit-code",
    type=click.IntRange(1, 255),
    metavar="N",
    help="Run a task again if it exits with N, instead of recording a failure. [default: 85 with --warn-signal, "
    "else none]",
)
@click.option(
    "--logs",
    type=click.Choice(["files", "packed", "failed", "none"]),
    default="files",
    show_default=True,
    help="How to keep the tasks' output. files: one file per task. packed: one file per farmer, for `taskfarmer logs`. "
    "failed: one file per failed task. none: discard it.",
)
@click.option(
    "--log-limit",
    type=Size(),
    default="0",
    metavar="SIZE",
    help="Keep only the head and tail of output that is longer than SIZE (64k, 10M, 1G). [default: no limit]",
)
@click.option(
    "--logs-dir", "--logDir", type=Name(True), metavar="DIR", help="Directory for logs. [default: WORKDIR/logs]"
)
@click.option(
    "--max-deaths",
    type=click.IntRange(0),
    default=10,
    show_default=True,
    metavar="N",
    help="Record a task as failed after more than N farmers or workers died while it ran. 0: never.",
)
@click.option(
    "--leftovers",
    type=click.Choice(["keep", "wait", "end"]),
    default="keep",
    show_default=True,
    help="How to treat processes that a task leaves running. keep: until the farmer exits, with a warning. wait: the "
    "task finishes when they have exited. end: SIGTERM, and SIGKILL after --grace.",
)
@click.option(
    "--clean-env",
    type=click.Choice(["slurm"]),
    help="Remove job-step variables (PMI_*, SLURM_STEP_*, ...) from the tasks' environment, so that MPI programs and "
    "srun do not join the farmer's step.",
)
@click.option(
    "--lease",
    type=Duration(least=1.0),
    metavar="TIME",
    help="For a new farm: a farmer without a heartbeat for TIME is dead. [default: 10m]",
)
@click.option("--lock-dir", type=Name(True), metavar="DIR", help="For a new farm: directory for its lock.")
@click.option(
    "--shared-group",
    is_flag=True,
    help="For a new farm: let all members of the work directory's group work on it, whatever their umask.",
)
@click.option("--epoch-length", type=click.IntRange(1), hidden=True)
@click.option("--exit-zero", is_flag=True, help="Exit with 0 even if tasks failed or are left, as PyTaskFarmer did.")
def command(dry_run: bool, exit_zero: bool, quiet: bool, verbose: bool, **options: Any) -> int:
    """Run the commands in TASKLIST, several at a time. Start it on any number of nodes: all farmers of a list share
    its tasks.
    """
    if quiet and verbose:
        raise click.UsageError("-q/--quiet and -v/--verbose exclude each other: leave one out")
    settings = Settings(**options)
    log = FarmerLog(quiet, verbose)
    if dry_run:
        return _preview(settings, log)
    from taskfarmer import farmer

    arriving = signals.Signals()
    try:
        ending = farmer.run(settings, log.reporter(), arriving)
    finally:
        arriving.restore()
    return _close(ending, settings, log, exit_zero)


def _preview(settings: Settings, log: FarmerLog) -> int:
    from taskfarmer.intake import preview

    signals.release()
    write_untrusted_lines(task_line(number, task) for number, task in preview(settings, log.reporter()))
    return 0


def exit_status(ending: Ending, exit_zero: bool) -> int:
    """Return the exit status of a run. With `exit_zero` it is 0 if PyTaskFarmer's was: not after an interruption."""
    forgiven = (Exit.FAILURES, Exit.AGAIN)
    if exit_zero and ending.status in forgiven and ending.stopped_by is None:
        return 0
    return int(ending.status)


def _close(ending: Ending, settings: Settings, log: FarmerLog, exit_zero: bool) -> int:
    status = exit_status(ending, exit_zero)
    summary, remedies = closing(ending, settings.workdir_path, status)
    for line in summary:
        log.info(line)
    for line in remedies:
        log.write(line)
    if ending.trouble is not None:
        program = click.get_current_context().find_root().info_name
        print_error(f"{program}: error: {ending.trouble}")
    return status
