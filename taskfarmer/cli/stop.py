"""`stop`: farmers are told to end, through their farm."""

from __future__ import annotations

import time

import click

from taskfarmer import __version__
from taskfarmer.cli.arguments import Verb
from taskfarmer.cli.options import open_farm, verbose_option, workdir_argument
from taskfarmer.farm.control import farmers_at_work, request_stop
from taskfarmer.ledger import Ledger
from taskfarmer.options import Exit
from taskfarmer.peers.heartbeat import beat_interval
from taskfarmer.peers.identity import new_identity
from taskfarmer.peers.watch import Watch
from taskfarmer.storage import durable
from taskfarmer.ui.stdout import put

LOOK_EVERY = 0.5


@click.command(
    cls=Verb,
    name="stop",
    short_help="End all farmers of a farm, from any node.",
    epilog="""\b
Examples:
  taskfarmer stop list.txt_workdir
  taskfarmer stop list.txt_workdir --now --wait

\b
Exit status:
  0   the farmers were told; with --wait: they are gone
  2   wrong usage: nobody was told
  74  the order could not be written
""",
)
@workdir_argument
@click.option("--now", is_flag=True, help="Leave the running tasks no time: SIGKILL without SIGTERM before it.")
@click.option("--wait", is_flag=True, help="Return when they are gone, or known to be dead.")
@verbose_option
def command(workdir: str, now: bool, wait: bool) -> int:
    """Tell all farmers of a farm to end as on SIGTERM: what runs is ended and given back.

    They are told through the farm itself, not by the scheduler, and look at each of their heartbeats: every
    30 s as a rule, with hundreds of farmers every 75 s at most. Farmers that are started afterwards work.

    They exit with 75, as on any interruption. A job that starts itself again on that (examples/slurm/flex.sh,
    Grid Engine's array.sh, `submit --requeue`) has a new farmer soon: cancel it as well, with scancel or qdel.
    """
    found, farm = open_farm(workdir, change=True)
    ledger = Ledger(found, farm, f"stop-{durable.random_name()}")
    farmers = farmers_at_work(found, ledger.refresh())
    if not farmers:
        put("no farmer is at work here\n")
        return int(Exit.DONE)
    request_stop(found, farmers, now)
    many = "1 farmer was" if len(farmers) == 1 else f"{len(farmers)} farmers were"
    put(f"{many} told to stop; within about {beat_interval(farm.lease, len(farmers)):.0f} s they hear it\n")
    if wait:
        watch = Watch(found, new_identity(0, __version__, {}), farm.lease)
        while any(watch.verdict(one) is None for one in set(farmers) & {*farmers_at_work(found, ledger.refresh())}):
            time.sleep(LOOK_EVERY)
    return int(Exit.DONE)
