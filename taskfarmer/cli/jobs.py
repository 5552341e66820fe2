"""`jobs`: the jobs that work on a farm."""

from __future__ import annotations

import os

import click

from taskfarmer.cli.arguments import Verb
from taskfarmer.cli.options import json_option, open_farm, verbose_option, workdir_argument
from taskfarmer.cli.types import Duration
from taskfarmer.launch import PATIENCE, FarmerInfo, jobs_at_work, submissions
from taskfarmer.storage.layout import Workdir
from taskfarmer.ui.stderr import print_error
from taskfarmer.ui.stdout import put, terminal_width


@click.command(
    cls=Verb,
    name="jobs",
    short_help="Show the jobs that work on a farm.",
    epilog="""\b
Examples:
  taskfarmer jobs list.txt_workdir
  taskfarmer jobs list.txt_workdir --json | jq '.jobs[].state'

\b
Columns:
  JOB      the job's number; 123_4 is element 4 of the array 123; - for a farmer outside of a scheduler
  STATE    as the scheduler has it; GONE: it has no such job any more; ?: it could not be asked
  FARMERS  alive or gone where that can be seen from this node, else unknown
  HELD     tasks that its farmers have taken and not ended
  ENDS     when its time is over

`taskfarmer stop WORKDIR` ends the farmers. A job that still waits is cancelled by its scheduler: scancel, qdel.

\b
Exit status:
  0   the farm was read
  2   there is neither a farm in WORKDIR nor a job that was submitted for it
  74  the farm is damaged, or cannot be read
""",
)
@workdir_argument
@json_option
@click.option("--patience", type=Duration(positive=True), default=str(PATIENCE), hidden=True)
@verbose_option
def command(workdir: str, as_json: bool, patience: float) -> int:
    """Show the jobs that work on a farm, and those that were submitted for it by `taskfarmer submit` and wait.

    The scheduler is asked once, with squeue or qstat.
    """
    from taskfarmer.ui import jobs as rendered

    place = Workdir.at(workdir)
    submitted = submissions(place)
    workers = _workers(workdir) if os.path.lexists(place.farm) or not submitted else []
    jobs, warnings = jobs_at_work(place, workers, submitted, os.environ, patience)
    put(rendered.as_json(place.path, jobs, warnings) if as_json else rendered.as_text(jobs, terminal_width()))
    for warning in warnings:
        print_error(f"warning: {warning}")
    return 0


def _workers(workdir: str) -> list[FarmerInfo]:
    from taskfarmer.inspect import status
    from taskfarmer.ledger import Ledger
    from taskfarmer.peers.identity import load_identity

    found, farm = open_farm(workdir)
    workers = []
    for one in status.look(found, Ledger(found, farm, "jobs")).farmers:
        identity = load_identity(found, one.farmer)
        variables = identity.job if identity is not None else {}
        workers.append(FarmerInfo(variables, one.host, one.slots, one.held, one.verdict))
    return workers
