"""`doctor`: test whether farmers can share a file system."""

from __future__ import annotations

import os

import click

from taskfarmer import __version__
from taskfarmer.cli.arguments import Verb
from taskfarmer.cli.options import json_option, verbose_option
from taskfarmer.cli.types import Duration, Name
from taskfarmer.peers import scheduled
from taskfarmer.ui.stdout import terminal_width, write_stdout


@click.command(
    cls=Verb,
    name="doctor",
    short_help="Test whether farmers can share a file system.",
    epilog="""\b
Examples:
  taskfarmer doctor                            this directory, on this node
  taskfarmer doctor DIR --nodes 2 --wait 1m    two nodes: start it on both
  taskfarmer doctor DIR --json | jq .verdict
  srun -N2 --ntasks-per-node=1 --kill-on-bad-exit=0 --wait=0 \\
      taskfarmer doctor DIR

\b
State of a check:
  proven      tested, and it works
  known       measured, or reported by the system
  not proven  not tested; the table shows how to test it
  slow        does not work; no data loss, but farmers will contend
  unsafe      does not work; results could be lost or recorded twice

\b
Exit status:
  0   safe and fast
  1   safe but slow: locks are missing, or not shared between nodes
  2   unsafe: do not share it, or do not use it at all
""",
)
@click.argument("directory", type=Name(only_folders=True), default=".", metavar="[DIR]")
@click.option(
    "--nodes",
    type=click.IntRange(1),
    metavar="N",
    help="Number of nodes that take part, including this one. [default: the nodes of the Slurm step, else 1]",
)
@click.option(
    "--wait",
    type=Duration(),
    default="10",
    show_default=True,
    metavar="TIME",
    help="How long to wait for the other nodes, and then for each answer.",
)
@click.option("--lock-dir", type=Name(True), metavar="DIR", help="Directory for locks. [default: the same as the farm]")
@json_option
@verbose_option
def command(directory: str, nodes: int | None, wait: float, lock_dir: str | None, as_json: bool) -> int:
    """Test whether farmers can share DIR: hard links, renames, locks and file times, on one node or between nodes.

    DIR is a work directory, or the directory for a new one. Doctors on several nodes find each other through DIR and
    test each other's locks. The tests use temporary files, which are removed; a farm in DIR is not touched.
    """
    from taskfarmer.doctor.examination import examine, lock_directory
    from taskfarmer.doctor.judgement import judge
    from taskfarmer.ui import doctor as rendered

    locks = lock_dir or lock_directory(directory, os.environ.get("SCRATCH"), os.getuid())
    findings = examine(directory, locks, __version__, nodes or scheduled.nodes(os.environ), wait)
    judgement = judge(findings)
    write_stdout(
        rendered.as_json(findings, judgement) if as_json else rendered.as_text(findings, judgement, terminal_width())
    )
    return int(judgement.health)
