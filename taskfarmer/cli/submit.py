"""`submit`: write a job script for a task list and submit it to a scheduler."""

from __future__ import annotations

import os
import re
import shutil
import sys
from collections.abc import Sequence
from typing import Any

import click

from taskfarmer.cli.arguments import Rewriter, Verb
from taskfarmer.cli.options import proc_option
from taskfarmer.cli.run import HEADINGS
from taskfarmer.cli.run import command as run
from taskfarmer.cli.types import Duration, Name, Processes
from taskfarmer.errors import TaskListError, UsageError
from taskfarmer.launch.request import Request
from taskfarmer.launch.schedulers import GRID_ENGINE, SCHEDULERS, SLURM, Scheduler
from taskfarmer.launch.submit import PATIENCE, submit
from taskfarmer.options import Settings, silent
from taskfarmer.storage.layout import Workdir
from taskfarmer.ui import jobs as rendered
from taskfarmer.ui.stderr import print_error
from taskfarmer.ui.stdout import write_stdout, write_untrusted_lines

AUTO = 0
_NOT_PASSED_ON = ("slots", "dry_run", "version")
_FARMER_OPTIONS = [one for one in run.params if isinstance(one, click.Option) and one.name not in _NOT_PASSED_ON]
_SCHEDULER_WORDS = "taskfarmer.scheduler_words"
_FARMER_WORDS = "taskfarmer.farmer_words"
_REQUEST_OPTIONS = ("nodes", "array", "time", "time_min", "partition", "account", "constraint", "requeue")
_HEADINGS = {
    "Job": (
        *("--nodes", "--array", "--proc", "--time", "--time-min", "--partition", "--account", "--constraint"),
        *("--requeue", "--scheduler", "--dry-run", "--help"),
    ),
    **{f"Farmer: {heading.lower()}": names for heading, names in HEADINGS.items()},
}


class Slots(Processes):
    """Like the farmer's option, but `auto` is resolved on the node where the farmer runs."""

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> int:
        return AUTO if str(value).lower() == "auto" else super().convert(value, param, ctx)


class JobTime(Duration):
    """A duration as in sbatch: a number without a unit is minutes."""

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> float | None:
        bare = isinstance(value, str) and re.fullmatch(r"\d+", value, re.ASCII)
        return super().convert(f"{value}m" if bare else value, param, ctx)


class SubmitVerb(Verb):
    """Accepts also the options of a farmer, and after `--` those of the scheduler; it passes them on unchanged."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        end = args.index("--") if "--" in args else len(args)
        words = Rewriter(self.get_params(ctx), ctx.resilient_parsing).rewrite(args[:end])
        ctx.meta[_FARMER_WORDS] = _farmer_words(words)
        after = args[end + 1 :]
        if after and not any(map(_is_argument, words)):
            after = _move_tasklist(words, after, ctx)
        ctx.meta[_SCHEDULER_WORDS] = tuple(after)
        try:
            return super(Verb, self).parse_args(ctx, words)
        except click.NoSuchOption as error:
            raise click.UsageError(
                f"{error.format_message().rstrip('.')}; write options of sbatch and qsub at the end, after --", ctx
            ) from error

    def collect_usage_pieces(self, ctx: click.Context) -> list[str]:
        return [*super().collect_usage_pieces(ctx), "[-- SCHEDULER-OPTION...]"]


def _is_argument(word: str) -> bool:
    return not word.startswith("-") or word == "-"


def _move_tasklist(words: list[str], after: list[str], ctx: click.Context) -> list[str]:
    """Move the task list, the first word after `--`, to `words`. Return the words for the scheduler.

    This allows for a list whose name starts with a dash.
    """
    name, *others = after
    if not os.path.lexists(name):
        raise click.UsageError(
            f"no task list before --, and {name!r} after it is not a file; write the task list before --", ctx
        )
    words += ["--", name]
    return others[1:] if others[:1] == ["--"] else others


def _farmer_words(words: Sequence[str]) -> tuple[str, ...]:
    """Return the farmer's options among the words: the last occurrence of each, with absolute paths."""
    known = {name: one for one in _FARMER_OPTIONS for name in one.opts}
    found: dict[str | None, str] = {}
    for word in words:
        name, _, value = word.partition("=")
        option = known.get(name)
        if option is not None:
            found[option.name] = f"{name}={os.path.abspath(value)}" if isinstance(option.type, Name) else word
    return tuple(found.values())


@click.command(
    cls=SubmitVerb,
    name="submit",
    headings=_HEADINGS,
    short_help="Write a job script for a task list and submit it.",
    epilog="""\b
Examples:
  Show the script, and submit nothing:
      taskfarmer submit list.txt --time 2h --dry-run
  One farmer that runs 32 tasks at once:
      taskfarmer submit list.txt --time 2h -n 32
  Ten such farmers, as a job array:
      taskfarmer submit list.txt --time 2h -n 32 --array 10
  Ten whole nodes in one job:
      taskfarmer submit list.txt --time 2h -n auto --nodes 10
  Any gap in the schedule of 30 minutes or more, until the list is done:
      taskfarmer submit list.txt --time 12h --time-min 30m --requeue
  Further options of sbatch:
      taskfarmer submit list.txt --time 2h -p debug -- --mem=64G
  Grid Engine, with a parallel environment of your site:
      taskfarmer submit list.txt --time 2h -n 16 -- -pe threaded 16

Every job runs one or more farmers for the same list; they share its tasks, whenever they start. The script is kept in
WORKDIR/jobs/submitted. Tasks run in the current directory.

\b
Exit status:
  0   the job was submitted or, with --dry-run, shown
  2   wrong usage, or the scheduler is missing, refused the job, or did not
      answer; its message is printed
  74  the job was submitted, but could not be recorded

\b
TIME after --time and --time-min is a number of minutes, as in sbatch, or like
90s, 90m, 1.5h, 2d, 1:30:00 (h:m:s), 1-02:00:00 (days-h:m:s).
""",
)
@click.argument("tasklist", type=Name(), metavar="TASKLIST")
@click.option("-N", "--nodes", type=click.IntRange(1), default=1, metavar="N", help="Nodes per job. [default: 1]")
@click.option("--array", type=click.IntRange(1), metavar="N", help="Submit a job array with N elements.")
@proc_option(
    Slots(),
    "Concurrent tasks per node; also the number of CPUs requested. `auto`: whole nodes with all their CPUs. "
    "[default: the CPUs requested after --, else 8]",
)
@click.option("--time", type=JobTime(positive=True), metavar="TIME", help="Time limit of each job.")
@click.option(
    "--time-min", type=JobTime(positive=True), metavar="TIME", help="Allow Slurm to reduce the time limit to this."
)
@click.option("-p", "--partition", metavar="NAME", help="Partition, or queue of Grid Engine.")
@click.option("-A", "--account", metavar="NAME", help="Account to charge.")
@click.option("-C", "--constraint", metavar="FEATURES", help="Required node features (Slurm).")
@click.option(
    "--requeue",
    is_flag=True,
    help="Restart the job after a node failure; with --time-min (Grid Engine: always) also while tasks are left.",
)
@click.option(
    "--scheduler",
    type=click.Choice(list(SCHEDULERS)),
    help="Scheduler to use. [default: gridengine if there is a qsub but no sbatch, else slurm]",
)
@click.option("--dry-run", is_flag=True, help="Print the script, and change nothing.")
@click.option("--patience", type=Duration(positive=True), default=str(PATIENCE), hidden=True)
def command(
    tasklist: str,
    slots: int | None,
    scheduler: str | None,
    dry_run: bool,
    patience: float,
    **options: Any,
) -> int:
    """Write a job script for TASKLIST and submit it to Slurm or Grid Engine.

    Words after -- are passed on to sbatch or qsub unchanged. Without a TASKLIST before --, the first word after
    it is the task list; its name may start with a dash.
    """
    meta = click.get_current_context().meta
    chosen = SCHEDULERS[scheduler] if scheduler else _detect_scheduler()
    path = os.path.abspath(tasklist)
    settings = Settings(path, **{name: options[name] for name in options if name in Settings._fields})
    request = Request(
        path,
        _job_name(path),
        _program(),
        meta[_FARMER_WORDS],
        slots=8 if slots is None else slots or None,
        slots_given=slots is not None,
        words=meta[_SCHEDULER_WORDS],
        grace=settings.grace,
        margin=settings.margin,
        **{name: options[name] for name in _REQUEST_OPTIONS},
    )
    request.check()
    chosen.refuse(request)
    if request.requeue and options["exit_zero"]:
        raise UsageError(
            "--exit-zero cannot be used with --requeue: the job restarts itself after exit status 75; leave one out"
        )
    _check_list(settings)
    if dry_run:
        write_untrusted_lines([os.fsencode(chosen.script(request))])
        return 0
    if shutil.which(chosen.submitter) is None:
        raise UsageError(
            f"{chosen.submitter}: not in PATH, so this host cannot submit to {chosen.title}; use a login node, "
            "load the scheduler's module, or choose another --scheduler"
        )
    submission, output = submit(_workdir(settings), request, chosen, os.environ, patience)
    for line in output.splitlines():
        print_error(line)
    write_stdout(rendered.submitted(submission, request, chosen.title, settings.workdir_path))
    return 0


command.params += _FARMER_OPTIONS


def _detect_scheduler() -> Scheduler:
    return GRID_ENGINE if shutil.which(SLURM.submitter) is None and shutil.which(GRID_ENGINE.submitter) else SLURM


def _job_name(tasklist: str) -> str:
    """Return the list's name without characters that schedulers refuse (qsub(1), -N)."""
    name = re.sub(r"[^\w.-]", "-", os.path.basename(tasklist), flags=re.ASCII)
    return name if name[:1].isalpha() else f"farm-{name}"


def _program() -> tuple[str, ...]:
    """Return the command, with absolute paths, that runs this installation as a farmer."""
    here = os.path.abspath(sys.argv[0])
    script = os.path.join(os.path.dirname(here), "pytaskfarmer.py")
    if os.path.basename(here) == "taskfarmer" and os.access(script, os.X_OK):
        return (script,)
    # a checkout without installation: Python finds the package next to this script
    package = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    script = os.path.join(os.path.dirname(package), "pytaskfarmer.py")
    if os.path.isfile(script):
        return (sys.executable, script)
    return (sys.executable, "-m", "taskfarmer", "run")


def _workdir(settings: Settings) -> Workdir:
    """Return the work directory, shared with a group if its farm is, or will be."""
    from taskfarmer.ledger import farmfile

    workdir = Workdir.at(settings.workdir_path)
    farm = farmfile.load(workdir)
    return workdir._replace(shared=settings.shared_group if farm is None else farm.shared_group)


def _check_list(settings: Settings) -> None:
    """Raise the errors that a farmer would raise before it claims a task; TaskListError without tasks to claim."""
    from taskfarmer.farm import trust
    from taskfarmer.farmer.runner import find_runner
    from taskfarmer.intake import Intake, preview
    from taskfarmer.ledger import Ledger, farmfile

    reporter = silent()._replace(warning=lambda text: print_error(f"warning: {text}"))
    find_runner(settings, reporter)
    intake = Intake(settings, reporter)
    intake.check_readable()
    trust.refuse_strangers(intake.workdir, intake.path)
    farm = intake.existing_farm()
    if farm is None:
        farmfile.refuse_foreign(intake.workdir)
    if intake.handler is not None or next(iter(preview(settings, reporter)), None) is not None:
        return
    if farm is None:
        raise TaskListError(f"{settings.tasklist}: contains no tasks, so there is nothing to submit")
    if not Ledger(intake.workdir, farm, "submit").refresh().held:
        raise TaskListError(
            f"{settings.tasklist}: all tasks are recorded, so there is nothing to submit; to run some again, use "
            "`taskfarmer retry`"
        )
