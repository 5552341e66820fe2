"""`retry`: make recorded tasks run again."""

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
from taskfarmer.ui.stdout import write_stdout


@click.command(
    cls=Verb,
    name="retry",
    short_help="Mark finished or failed tasks to be run again.",
    epilog="""\b
Examples:
  taskfarmer retry list.txt_workdir --failed
  taskfarmer retry list.txt_workdir 3 10-12

\b
Exit status:
  0   the tasks are unprocessed again
  2   wrong usage, or a task is not recorded; nothing was changed
  74  the farm is damaged or cannot be read
""",
)
@workdir_argument
@click.argument("ids", nargs=-1, metavar="[ID|FIRST-LAST]...")
@click.option("--failed", is_flag=True, help="Retry all failed tasks.")
@verbose_option
def command(workdir: str, ids: tuple[str, ...], failed: bool) -> int:
    """Mark finished or failed tasks to be run again. Running farmers claim them. If no farmer runs, start one.

    The logs stay, and the next attempt is appended to them. Earlier results stay in the farm's records.
    """
    if bool(ids) == failed:
        raise click.UsageError("give task IDs, or --failed" + ("; not both" if failed else ""))
    # imported late: `taskfarmer --help` imports this module, but does not need it
    from taskfarmer.views import rebuild

    found, farm = open_farm(workdir, change=True)
    # a unique name: the ledger could not distinguish two commits with the same `by`
    ledger = Ledger(found, farm, f"retry-{durable.random_name()}")
    try:
        count = ledger.retry(parse_ids(ids, ledger.refresh().tasks) if ids else None)
    except ValueError as error:
        raise UsageError(_refusal_message(ledger, error)) from error
    if not count:
        write_stdout("no failed tasks to retry\n")
        return 0
    rebuild(found, ledger)
    write_stdout(_summary(found, farm, ledger, count))
    return 0


def _refusal_message(ledger: Ledger, error: ValueError) -> str:
    task_id = error.args[0] if error.args else None
    if not isinstance(task_id, int):
        raise error
    reason = locate_task(ledger.state, task_id)
    return f"task {task_id} cannot be retried: {reason}; name only finished or failed tasks"


def _summary(workdir: Workdir, farm: Farm, ledger: Ledger, count: int) -> str:
    tasks = "1 task is" if count == 1 else f"{count} tasks are"
    if ledger.state.farmers:
        return f"{tasks} unprocessed again; the running farmers will claim them\n"
    words = ["pytaskfarmer.py", shell_word(farm.list_path)]
    if workdir.path != farm.list_path + "_workdir":
        words += ["-w", shell_word(workdir.path)]
    if farm.handler != "default":
        words += ["-t", shell_word(farm.handler)]
    return printable(f"{tasks} unprocessed again; to run all unprocessed tasks: {' '.join(words)}") + "\n"
