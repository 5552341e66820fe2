"""`retry`: recorded tasks are to run again."""

from __future__ import annotations

import click

from taskfarmer.cli.arguments import Verb
from taskfarmer.cli.ids import parse_ids
from taskfarmer.cli.logs import locate_task
from taskfarmer.cli.options import open_farm, verbose_option, workdir_argument
from taskfarmer.errors import UsageError
from taskfarmer.ledger import Farm, Ledger
from taskfarmer.storage import durable
from taskfarmer.storage.layout import Workdir
from taskfarmer.ui import printable, shell_word
from taskfarmer.ui.stdout import put


@click.command(
    cls=Verb,
    name="retry",
    short_help="Make finished or failed tasks unprocessed again.",
    epilog="""\b
Examples:
  taskfarmer retry list.txt_workdir --failed
  taskfarmer retry list.txt_workdir 3 10-12

\b
Exit status:
  0   the tasks are unprocessed again
  2   wrong usage, or a task that is not recorded: nothing was changed
  74  the farm is damaged, or cannot be read
""",
)
@workdir_argument
@click.argument("ids", nargs=-1, metavar="[ID|FIRST-LAST]...")
@click.option("--failed", is_flag=True, help="All tasks that failed.")
@verbose_option
def command(workdir: str, ids: tuple[str, ...], failed: bool) -> int:
    """Make finished or failed tasks unprocessed again. Farmers that run take them; else start one.

    Their logs stay, and the next attempt is written behind the one before. What attempts came to is kept
    in the farm's results.
    """
    if bool(ids) == failed:
        raise click.UsageError("give task IDs, or --failed" + ("; not both" if failed else ""))
    # not at the top: they are for this verb alone, and `taskfarmer --help` imports this
    from taskfarmer.views import rebuild

    found, farm = open_farm(workdir, change=True)
    # a name of its own: two commits with the same `by` could not be told apart
    ledger = Ledger(found, farm, f"retry-{durable.random_name()}")
    try:
        count = ledger.retry(parse_ids(ids, ledger.refresh().tasks) if ids else None)
    except ValueError as error:
        raise UsageError(_refusal(ledger, error)) from error
    if not count:
        put("no task of this farm failed: nothing is to be run again\n")
        return 0
    rebuild(found, ledger)
    put(_told(found, farm, ledger, count))
    return 0


def _refusal(ledger: Ledger, error: ValueError) -> str:
    task_id = error.args[0] if error.args else None
    if not isinstance(task_id, int):
        raise error
    where = locate_task(ledger.state, task_id)
    return f"task {task_id} cannot be run again, {where}: name only tasks that are finished or failed"


def _told(workdir: Workdir, farm: Farm, ledger: Ledger, count: int) -> str:
    tasks = "1 task is" if count == 1 else f"{count} tasks are"
    if ledger.state.farmers:
        return f"{tasks} unprocessed again; farmers that run now take what is left\n"
    words = ["pytaskfarmer.py", shell_word(farm.list_path)]
    if workdir.path != farm.list_path + "_workdir":
        words += ["-w", shell_word(workdir.path)]
    if farm.handler != "default":
        words += ["-t", shell_word(farm.handler)]
    return printable(f"{tasks} unprocessed again; to run what is unprocessed: {' '.join(words)}") + "\n"
