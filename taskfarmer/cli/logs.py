"""`logs`: the output of tasks."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator

import click

from taskfarmer.cli.arguments import Verb
from taskfarmer.cli.ids import parse_ids
from taskfarmer.cli.options import open_farm, verbose_option, workdir_argument
from taskfarmer.cli.output import BLOCK, put_foreign
from taskfarmer.cli.voice import complain
from taskfarmer.ledger import Ledger, State, results
from taskfarmer.model import parse_intervals
from taskfarmer.workdir import Workdir


@click.command(
    cls=Verb,
    name="logs",
    short_help="Print the output of tasks.",
    epilog="""\b
Examples:
  taskfarmer logs list.txt_workdir 17
  taskfarmer logs list.txt_workdir 3 10-12
  taskfarmer logs list.txt_workdir --failed | less

\b
Exit status:
  0   every log was printed
  1   a task has no log; stderr says why
  2   wrong usage, or no such task
""",
)
@workdir_argument
@click.argument("ids", nargs=-1, metavar="[ID|FIRST-LAST]...")
@click.option("--failed", is_flag=True, help="The logs of all tasks that failed.")
@verbose_option
def command(workdir: str, ids: tuple[str, ...], failed: bool) -> int:
    """Print the logs of tasks: what they wrote to standard output and standard error.

    A pipe or a file gets the bytes as they are. On a terminal control characters are escaped: `| less -R` shows colors.
    """
    if bool(ids) == failed:
        raise click.UsageError("give task IDs, or --failed" + ("; not both" if failed else ""))
    found, farm = open_farm(workdir)
    state = Ledger(found, farm, "logs").look()
    wanted = failed_tasks(found, state) if failed else parse_ids(ids, state.tasks)
    if not wanted:
        complain("no task of this farm failed")
    missing = 0
    for task_id in wanted:
        missing += not _show(found, state, task_id, header=len(wanted) > 1)
    return 1 if missing else 0


def failed_tasks(workdir: Workdir, state: State) -> list[int]:
    """The IDs of the tasks that are recorded as failed."""
    if not state.failed:
        return []
    place = results.survey(workdir, state).place
    return [task_id for task_id, where in enumerate(place) if where == results.IS_FAILED]


def _show(workdir: Workdir, state: State, task_id: int, header: bool) -> bool:
    path = workdir.log(task_id)
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as error:
        why = whereabouts(state, task_id) if error.errno == errno.ENOENT else error.strerror
        complain(f"task {task_id} has no log ({path}): {why}")
        return False
    try:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            complain(f"task {task_id} has no log ({path}): something else is in its place; move it away")
            return False
        put_foreign(_blocks(fd, path, f"==> task {task_id}: {path} <==\n" if header else ""))
    finally:
        os.close(fd)
    return True


def _blocks(fd: int, path: str, header: str) -> Iterator[bytes]:
    """The bytes of a log; with a header before it, it ends with a line feed."""
    last = b"\n"
    if header:
        yield header.encode("utf-8", "surrogateescape")
    try:
        while data := os.read(fd, BLOCK):
            yield data
            last = data[-1:]
        if header and last != b"\n":
            yield b"\n"
    except OSError as error:
        error.filename = path
        raise


def whereabouts(state: State, task_id: int) -> str:
    """Where a task is, in words, by the ledger alone."""
    for farmer, entry in state.farmers.items():
        if _among(state, entry.claims, task_id):
            return f"it is held by {farmer}, and has not begun or not written anything yet"
    number = state.segment_of(task_id)
    if number is None:
        return f"it is not in this farm, which has {state.tasks} tasks"
    segment = state.segments[number]
    if task_id - segment.first >= segment.next or _among(state, state.returned, task_id):
        return "it is unprocessed"
    return "it is recorded, but its log is gone, or it never had one"


def _among(state: State, intervals: str, task_id: int) -> bool:
    return any(0 <= task_id - state.first_id(one) < one.count for one in parse_intervals(intervals))
