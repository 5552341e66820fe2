"""`jobs`: the batch jobs of a farm."""

from __future__ import annotations

import os

import click

from taskfarmer.cli.arguments import Verb
from taskfarmer.cli.options import json_option, open_farm, verbose_option, workdir_argument
from taskfarmer.cli.types import Duration
from taskfarmer.launch.jobs import FarmerInfo, jobs_at_work
from taskfarmer.launch.records import submissions
from taskfarmer.launch.submit import PATIENCE
from taskfarmer.storage.layout import Workdir
from taskfarmer.ui.stderr import print_error
from taskfarmer.ui.stdout import terminal_width, write_stdout


@click.command(
    cls=Verb,
    name="jobs",
    short_help="Show the running and pending jobs of a farm.",
    epilog="""\b
Examples:
  taskfarmer jobs list.txt_workdir
  taskfarmer jobs list.txt_workdir --json | jq '.jobs[].state'

\b
Columns:
  JOB      job ID (123_4: element 4 of array 123); - for farmers outside jobs
  STATE    as reported by the scheduler; GONE: it no longer knows the job;
           ?: it did not answer
  FARMERS  alive or gone, as seen from this node, else unknown
  HELD     unfinished tasks that its farmers have claimed
  ENDS     when its time limit expires

`taskfarmer stop WORKDIR` stops the farmers. To cancel a pending job, use scancel or qdel.

\b
Exit status:
  0   the farm was read
  2   WORKDIR has neither a farm nor a submitted job
  74  the farm is damaged or cannot be read
""",
)
@workdir_argument
@json_option
@click.option("--patience", type=Duration(positive=True), default=str(PATIENCE), hidden=True)
@verbose_option
def command(workdir: str, as_json: bool, patience: float) -> int:
    """Show the jobs that work on a farm, and pending jobs that `taskfarmer submit` submitted for it.

    Queries the scheduler once, with squeue or qstat.
    """
    from taskfarmer.ui import jobs as rendered

    place = Workdir.at(workdir)
    submitted = submissions(place)
    farmers = _farmers(workdir) if os.path.lexists(place.farm) or not submitted else []
    jobs, warnings = jobs_at_work(place, farmers, submitted, os.environ, patience)
    write_stdout(rendered.as_json(place.path, jobs, warnings) if as_json else rendered.as_text(jobs, terminal_width()))
    for warning in warnings:
        print_error(f"warning: {warning}")
    return 0


def _farmers(workdir: str) -> list[FarmerInfo]:
    from taskfarmer.inspect import status
    from taskfarmer.ledger import Ledger
    from taskfarmer.peers.identity import load_identity

    found, farm = open_farm(workdir)
    farmers = []
    for one in status.read_status(found, Ledger(found, farm, "jobs")).farmers:
        identity = load_identity(found, one.farmer)
        variables = identity.job if identity is not None else {}
        farmers.append(FarmerInfo(variables, one.host, one.slots, one.held, one.verdict))
    return farmers
