"""`submit`: a job script for a task list, on its way to a scheduler."""

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
from taskfarmer.cli.run import command as run
from taskfarmer.cli.types import Duration, Name, Processes
from taskfarmer.errors import TaskListError, UsageError
from taskfarmer.launch import GRID_ENGINE, PATIENCE, SCHEDULERS, SLURM, Request, Scheduler, submit
from taskfarmer.options import Reporter, Settings
from taskfarmer.storage.layout import Workdir
from taskfarmer.ui import jobs as rendered
from taskfarmer.ui.stderr import print_error
from taskfarmer.ui.stdout import put, put_lines

AUTO = 0
_NOT_HANDED = ("slots", "dry_run", "version")
_HANDED = [one for one in run.params if isinstance(one, click.Option) and one.name not in _NOT_HANDED]
_FOR_SCHEDULER = "taskfarmer.for_scheduler"
_FOR_FARMER = "taskfarmer.for_farmer"


class Slots(Processes):
    """As for a farmer, but `auto` is found out where the farmer runs."""

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> int:
        return AUTO if str(value).lower() == "auto" else super().convert(value, param, ctx)


class JobTime(Duration):
    """As sbatch reads a time: a bare number is minutes."""

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> float | None:
        bare = isinstance(value, str) and re.fullmatch(r"\d+", value, re.ASCII)
        return super().convert(f"{value}m" if bare else value, param, ctx)


class SubmitVerb(Verb):
    """Takes the options of a farmer, too, and behind `--` whatever the scheduler knows; all as they were written."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        end = args.index("--") if "--" in args else len(args)
        words = Rewriter(self.get_params(ctx), ctx.resilient_parsing).rewrite(args[:end])
        ctx.meta[_FOR_FARMER] = _handed(words)
        rest = args[end + 1 :]
        if rest and not any(map(_is_argument, words)):
            rest = _take_list(words, rest, ctx)
        ctx.meta[_FOR_SCHEDULER] = tuple(rest)
        try:
            return super(Verb, self).parse_args(ctx, words)
        except click.NoSuchOption as error:
            raise click.UsageError(
                f"{error.format_message().rstrip('.')} Options of sbatch and qsub stand at the end, behind --", ctx
            ) from error

    def collect_usage_pieces(self, ctx: click.Context) -> list[str]:
        return [*super().collect_usage_pieces(ctx), "[-- SCHEDULER-OPTION...]"]

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        handed = {id(one) for one in _HANDED}
        parts: tuple[list[tuple[str, str]], list[tuple[str, str]]] = ([], [])
        for one in self.get_params(ctx):
            record = one.get_help_record(ctx) if isinstance(one, click.Option) else None
            if record is not None:
                parts[id(one) in handed].append(record)
        for title, part in zip(("Options", "Options of the farmers, as of `taskfarmer run`"), parts, strict=True):
            with formatter.section(title):
                formatter.write_dl(part)


def _is_argument(word: str) -> bool:
    return not word.startswith("-") or word == "-"


def _take_list(words: list[str], rest: list[str], ctx: click.Context) -> list[str]:
    """Add the task list to `words` if it is the first word after `--`: its name may begin with a dash. What remains."""
    name, *more = rest
    if not os.path.lexists(name):
        raise click.UsageError(
            f"no task list is given before --, and {name!r} after it is not a file: write the list before --", ctx
        )
    words += ["--", name]
    return more[1:] if more[:1] == ["--"] else more


def _handed(words: Sequence[str]) -> tuple[str, ...]:
    """The options of a farmer among the words of a command line, the last one of each, with absolute paths."""
    known = {name: one for one in _HANDED for name in one.opts}
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
    short_help="Write a job script for a task list, and submit it.",
    epilog="""\b
Examples:
  taskfarmer submit list.txt --time 2h --dry-run      show the script, and do nothing
  taskfarmer submit list.txt --time 2h -n 32          one farmer, 32 tasks at a time
  taskfarmer submit list.txt --time 2h -n 32 --array 10      ten farmers, each when there is room
  taskfarmer submit list.txt --time 2h -n auto --nodes 10    ten whole nodes in one job
  taskfarmer submit list.txt --time 12h --time-min 30m --requeue    in gaps, again until the list is done
  taskfarmer submit list.txt --time 2h -p debug -A m1234 -- --mem=64G --mail-type=END
  taskfarmer submit list.txt --time 2h -n 16 --array 10 -- -pe threaded 16    Grid Engine

Each job is a farmer, or several, on the same list; they share the tasks, whenever they start. The script is
kept in WORKDIR/jobs/submitted. Tasks run in the directory in which you are now.

\b
Exit status:
  0   the job was submitted, or shown
  2   wrong usage, no such scheduler, or it refuses or does not answer: its words are told
  74  the job was submitted, but could not be recorded

\b
Times:
  90 (minutes, as sbatch has it), 90s, 90m, 1.5h, 2d, 1:30:00 (h:m:s), 1-02:00:00 (days-h:m:s)
""",
)
@click.argument("tasklist", type=Name(), metavar="TASKLIST")
@click.option("-N", "--nodes", type=click.IntRange(1), default=1, metavar="N", help="Nodes of each job. [default: 1]")
@click.option("--array", type=click.IntRange(1), metavar="N", help="N jobs of the same kind: a job array.")
@proc_option(
    Slots(),
    "Tasks at a time and node, and CPUs that are asked for. `auto`: whole nodes, and all of their CPUs. "
    "[default: the CPUs of the job; 8, where -- does not say how many]",
)
@click.option("--time", type=JobTime(positive=True), metavar="TIME", help="The time limit of each job.")
@click.option(
    "--time-min", type=JobTime(positive=True), metavar="TIME", help="Start also in a gap that is only so long. (Slurm)"
)
@click.option("-p", "--partition", metavar="NAME", help="The partition, or the queue of a Grid Engine.")
@click.option("-A", "--account", metavar="NAME", help="What pays for it.")
@click.option("-C", "--constraint", metavar="FEATURES", help="What nodes must have. (Slurm)")
@click.option(
    "--requeue",
    is_flag=True,
    help="Start again after the failure of a node; with --time-min (Grid Engine: always) also while tasks are left.",
)
@click.option(
    "--scheduler",
    type=click.Choice(list(SCHEDULERS)),
    help="[default: gridengine where there is qsub and no sbatch, else slurm]",
)
@click.option("--dry-run", is_flag=True, help="Show the script. Touches nothing, submits nothing.")
@click.option("--patience", type=Duration(positive=True), default=str(PATIENCE), hidden=True)
def command(
    tasklist: str,
    slots: int | None,
    scheduler: str | None,
    dry_run: bool,
    patience: float,
    **options: Any,
) -> int:
    """Write a job script that works on TASKLIST, keep it in the farm, and submit it to Slurm or Grid Engine.

    All words after -- are for sbatch or qsub, as they are: any other option of theirs. If no TASKLIST stands before
    it, the first word after it is the list, whose name may then begin with a dash.
    """
    told = click.get_current_context().meta
    chosen = SCHEDULERS[scheduler] if scheduler else _found()
    path = os.path.abspath(tasklist)
    settings = Settings(path, **{name: options[name] for name in options if name in Settings._fields})
    wanted = Request(
        path,
        _job_name(path),
        _program(),
        told[_FOR_FARMER],
        slots=8 if slots is None else slots or None,
        slots_given=slots is not None,
        words=told[_FOR_SCHEDULER],
        grace=settings.grace,
        margin=settings.margin,
        **{name: options[name] for name in _ASKED},
    )
    wanted.check()
    chosen.refuse(wanted)
    if wanted.requeue and options["exit_zero"]:
        raise UsageError(
            "--exit-zero: a job that starts itself again has to see by 75 that tasks are left; leave it out"
        )
    _check_list(settings)
    if dry_run:
        put_lines([os.fsencode(chosen.script(wanted))])
        return 0
    if shutil.which(chosen.submitter) is None:
        raise UsageError(
            f"{chosen.submitter}: not in PATH, so nothing can be submitted to {chosen.title} from here; go where jobs "
            "are submitted, load its module, or choose another --scheduler"
        )
    submission, said = submit(_place(settings), wanted, chosen, os.environ, patience)
    for line in said.splitlines():
        print_error(line)
    put(rendered.submitted(submission, wanted, chosen.title, settings.workdir_path))
    return 0


_ASKED = ("nodes", "array", "time", "time_min", "partition", "account", "constraint", "requeue")
command.params += _HANDED


def _found() -> Scheduler:
    return GRID_ENGINE if shutil.which(SLURM.submitter) is None and shutil.which(GRID_ENGINE.submitter) else SLURM


def _job_name(tasklist: str) -> str:
    """The list's name as far as schedulers take it (qsub(1), -N)."""
    name = re.sub(r"[^\w.-]", "-", os.path.basename(tasklist), flags=re.ASCII)
    return name if name[:1].isalpha() else f"farm-{name}"


def _program() -> tuple[str, ...]:
    """How the same program is started as a farmer, by absolute paths."""
    here = os.path.abspath(sys.argv[0])
    script = os.path.join(os.path.dirname(here), "pytaskfarmer.py")
    if os.path.basename(here) == "taskfarmer" and os.access(script, os.X_OK):
        return (script,)
    # a checkout that is not installed: Python finds the package beside this file
    package = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    script = os.path.join(os.path.dirname(package), "pytaskfarmer.py")
    if os.path.isfile(script):
        return (sys.executable, script)
    return (sys.executable, "-m", "taskfarmer", "run")


def _place(settings: Settings) -> Workdir:
    """The work directory, shared as its farm is or is to be."""
    from taskfarmer.ledger import farmfile

    place = Workdir.at(settings.workdir_path)
    farm = farmfile.load(place)
    return place._replace(shared=settings.shared_group if farm is None else farm.shared_group)


def _check_list(settings: Settings) -> None:
    """Raise what a farmer would raise before it takes a task; TaskListError where there would be none to take."""
    from taskfarmer.farm import trust
    from taskfarmer.farmer.runner import find_runner
    from taskfarmer.intake import Intake, preview
    from taskfarmer.ledger import Ledger, farmfile

    def warn(text: str) -> None:
        print_error(f"warning: {text}")

    reporter = Reporter(_ignore, _ignore, warn, _ignore)
    find_runner(settings, reporter)
    intake = Intake(settings, reporter)
    intake.check_readable()
    trust.refuse_strangers(intake.workdir, intake.path)
    farm = intake.existing()
    if farm is None:
        farmfile.refuse_foreign(intake.workdir)
    if intake.handler is not None or next(iter(preview(settings, reporter)), None) is not None:
        return
    if farm is None:
        raise TaskListError(f"{settings.tasklist}: there is no task in it, so there is nothing to submit")
    if not Ledger(intake.workdir, farm, "submit").refresh().held:
        raise TaskListError(
            f"{settings.tasklist}: all of its tasks are recorded, so there is nothing to submit; `taskfarmer retry` "
            "makes tasks unprocessed again"
        )


def _ignore(_: object) -> None:
    return None
