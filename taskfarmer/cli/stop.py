"""`stop`: ask all farmers of a farm to stop, through the farm itself."""

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
from taskfarmer.ui.stdout import write_stdout

POLL_INTERVAL = 0.5


@click.command(
    cls=Verb,
    name="stop",
    short_help="Stop all farmers of a farm, from any node.",
    epilog="""\b
Examples:
  taskfarmer stop list.txt_workdir
  taskfarmer stop list.txt_workdir --now --wait

\b
Exit status:
  0   stop was requested; with --wait: the farmers have exited
  2   wrong usage; stop was not requested
  74  the stop request could not be written
""",
)
@workdir_argument
@click.option("--now", is_flag=True, help="Kill running tasks at once: SIGKILL without SIGTERM first.")
@click.option("--wait", is_flag=True, help="Wait until the farmers have exited or are known to be dead.")
@verbose_option
def command(workdir: str, now: bool, wait: bool) -> int:
    """Stop all farmers of a farm, as SIGTERM would: running tasks are terminated and put back on the list.

    The request goes through the farm itself, not through the scheduler. Farmers check for it at each heartbeat:
    usually every 30 s, with hundreds of farmers at most every 75 s. Farmers that you start later are not affected.

    Stopped farmers exit with 75. A job that restarts itself after 75 (examples/slurm/flex.sh, Grid Engine's
    array.sh, `submit --requeue`) soon has a new farmer: cancel the job as well, with scancel or qdel.
    """
    found, farm = open_farm(workdir, change=True)
    ledger = Ledger(found, farm, f"stop-{durable.random_name()}")
    farmers = farmers_at_work(found, ledger.refresh())
    if not farmers:
        write_stdout("no farmers are running\n")
        return int(Exit.DONE)
    request_stop(found, farmers, now)
    number = "1 farmer" if len(farmers) == 1 else f"{len(farmers)} farmers"
    seconds = beat_interval(farm.lease, len(farmers))
    write_stdout(f"requested {number} to stop; they notice within about {seconds:.0f} s\n")
    if wait:
        watch = Watch(found, new_identity(0, __version__, {}), farm.lease)
        while any(watch.verdict(one) is None for one in set(farmers) & {*farmers_at_work(found, ledger.refresh())}):
            time.sleep(POLL_INTERVAL)
    return int(Exit.DONE)
