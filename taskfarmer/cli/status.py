"""`status`: the current state of a farm."""

from __future__ import annotations

import click

from taskfarmer.cli.arguments import Verb
from taskfarmer.cli.options import json_option, open_farm, verbose_option, workdir_argument
from taskfarmer.ui.stderr import print_error
from taskfarmer.ui.stdout import terminal_width, write_stdout


@click.command(
    cls=Verb,
    name="status",
    short_help="Show the tasks, farmers and failures of a farm.",
    epilog="""\b
Examples:
  taskfarmer status list.txt_workdir
  taskfarmer status list.txt_workdir --json | jq .unprocessed

\b
State of a farmer:
  alive     its process runs on this node
  gone      its process has exited; the next farmer releases its tasks
  unknown   it is on another node; the age of its heartbeat is approximate

\b
Exit status:
  0   the farm was read
  2   no farm found in WORKDIR
  74  the farm is damaged or cannot be read
""",
)
@workdir_argument
@json_option
@verbose_option
def command(workdir: str, as_json: bool) -> int:
    """Show the state of a farm: counts of tasks, the farmers, and the newest failures."""
    from taskfarmer.inspect import status
    from taskfarmer.ledger import Ledger
    from taskfarmer.ui import status as rendered

    found, farm = open_farm(workdir)
    now = status.read_status(found, Ledger(found, farm, "status"))
    write_stdout(rendered.as_json(now) if as_json else rendered.as_text(now, terminal_width()))
    for warning in now.warnings:
        print_error(f"warning: {warning}")
    return 0
