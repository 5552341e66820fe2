"""`doctor`: prove a file system before it is trusted."""

from __future__ import annotations

import os

import click

from taskfarmer import __version__
from taskfarmer.cli.arguments import Verb
from taskfarmer.cli.options import json_option, verbose_option
from taskfarmer.cli.types import Duration, Name
from taskfarmer.peers import scheduled
from taskfarmer.ui.stdout import put, terminal_width


@click.command(
    cls=Verb,
    name="doctor",
    short_help="Prove a file system before farmers share it.",
    epilog="""\b
Examples:
  taskfarmer doctor                            this directory, on this node
  taskfarmer doctor DIR --nodes 2 --wait 1m    between two nodes, by hand: start it on both
  taskfarmer doctor DIR --json | jq .verdict
  srun -N2 --ntasks-per-node=1 --kill-on-bad-exit=0 --wait=0 taskfarmer doctor DIR

\b
State of a check:
  proven      it was tried, and holds
  known       measured, or told by the system
  not proven  it could not be tried; the table says how it can
  slow        it does not hold; nothing is lost, but farmers get into each other's way
  unsafe      it does not hold, and results could be lost or recorded twice

\b
Exit status:
  0   safe and fast
  1   safe but slow: locks are not shared, or not there
  2   not to be shared, or not to be used at all
""",
)
@click.argument("directory", type=Name(only_folders=True), default=".", metavar="[DIR]")
@click.option(
    "--nodes",
    type=click.IntRange(1),
    metavar="N",
    help="Nodes that take part, this one too. [default: those of the Slurm step, else 1]",
)
@click.option(
    "--wait",
    type=Duration(),
    default="10",
    show_default=True,
    metavar="TIME",
    help="How long to wait for other nodes, and then for their answers.",
)
@click.option("--lock-dir", type=Name(True), metavar="DIR", help="Where locks are to be. [default: as the farm has it]")
@json_option
@verbose_option
def command(directory: str, nodes: int | None, wait: float, lock_dir: str | None, as_json: bool) -> int:
    """Find out whether farmers can share DIR: hard links, renames, locks, times; and between nodes.

    DIR is a work directory, or the one in which it is to be. On several nodes at once doctors find each
    other through DIR and try each other's locks. What is tried is tried on files of its own, which are
    removed; a farm in DIR is not touched.
    """
    from taskfarmer.doctor.examination import examine, lock_directory
    from taskfarmer.doctor.judgement import judge
    from taskfarmer.ui import doctor as rendered

    locks = lock_dir or lock_directory(directory, os.environ.get("SCRATCH"), os.getuid())
    findings = examine(directory, locks, __version__, nodes or scheduled.nodes(os.environ), wait)
    judgement = judge(findings)
    put(rendered.as_json(findings, judgement) if as_json else rendered.as_text(findings, judgement, terminal_width()))
    return int(judgement.health)
