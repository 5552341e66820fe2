"""`logs`: the output of tasks."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from itertools import chain

import click

from taskfarmer.cli.arguments import Verb
from taskfarmer.cli.ids import parse_ids
from taskfarmer.cli.options import open_farm, verbose_option, workdir_argument
from taskfarmer.formats.intervals import parse_intervals
from taskfarmer.inspect import logs
from taskfarmer.ledger import Ledger, State, results
from taskfarmer.storage.layout import Workdir
from taskfarmer.ui.stderr import print_error
from taskfarmer.ui.stdout import put_lines, write_untrusted

_RECORDED = "it is recorded, but its log is gone, or it never had one"
LONGEST_LINE = 1 << 20


@click.command(
    cls=Verb,
    name="logs",
    short_help="Print the output of tasks.",
    epilog="""\b
Examples:
  taskfarmer logs list.txt_workdir 17
  taskfarmer logs list.txt_workdir 3 10-12
  taskfarmer logs list.txt_workdir --failed | less
  taskfarmer logs list.txt_workdir --grep 'rror|OOM'

\b
Exit status:
  0   every log was printed, or a line was found
  1   a task has no log; stderr says why. With --grep: no line matches
  2   wrong usage, or no such task
  74  the farm is damaged, or cannot be read
""",
)
@workdir_argument
@click.argument("ids", nargs=-1, metavar="[ID|FIRST-LAST]...")
@click.option("--failed", is_flag=True, help="The logs of all tasks that failed.")
@click.option("--grep", metavar="PATTERN", help="Print lines that match (a regular expression of Python) as `ID:line`.")
@verbose_option
def command(workdir: str, ids: tuple[str, ...], failed: bool, grep: str | None) -> int:
    """Print the logs of tasks: what they wrote to standard output and standard error.

    They are found whichever `--logs` their farmers had, also while tasks run and where a farmer was killed. --grep
    looks through those of the tasks that are named, or of all.

    A pipe or a file gets the bytes as they are. On a terminal control characters are escaped: `| less -R` shows colors.
    """
    if bool(ids) == failed and not (grep is not None and not ids):
        raise click.UsageError("give task IDs, or --failed" + ("; not both" if failed else ", or --grep PATTERN"))
    pattern = None if grep is None else _compiled(grep)
    found, farm = open_farm(workdir)
    ledger = Ledger(found, farm, "logs")
    state = ledger.refresh()
    wanted = failed_tasks(found, ledger) if failed else parse_ids(ids, state.tasks) if ids else None
    shelf = logs.LogStore(found, farm.farm)
    if pattern is not None:
        return 0 if _search(shelf, state, pattern, wanted) else 1
    assert wanted is not None
    if not wanted:
        print_error("no task of this farm failed")
    return 1 if _show(shelf, state, wanted) else 0


def _compiled(pattern: str) -> re.Pattern[bytes]:
    try:
        return re.compile(os.fsencode(pattern))
    except re.error as error:
        raise click.UsageError(f"--grep {pattern!r} is no regular expression: {error}") from error


def failed_tasks(workdir: Workdir, ledger: Ledger) -> list[int]:
    """The IDs of the tasks that are recorded as failed."""
    if not ledger.state.failed:
        return []
    place = results.with_newer_states(
        lambda: results.survey(workdir, ledger.refresh(), agrees_within=results.STATE_IS_NEW_FOR)
    ).place
    return [task_id for task_id, where in enumerate(place) if where == results.IS_FAILED]


def _show(shelf: logs.LogStore, state: State, wanted: list[int]) -> int:
    """Print the logs of tasks; how many have none."""
    found = shelf.workdir
    there = shelf.find(set(wanted))
    absent = {task_id for task_id, some in there.items() if not some}
    recorded = logs.kept_as(found, state, absent) if absent else {}
    for doubt in shelf.doubts:
        print_error(doubt)
    missing = 0
    for task_id in wanted:
        some = there[task_id]
        if not some and not _silent(found, state, task_id, recorded, len(wanted) > 1):
            missing += 1
        for one in some:
            missing += not _put(one, header=len(wanted) > 1, attempts=len(some) > 1 or one.attempt > 1)
    return missing


def _put(one: logs.Log, header: bool, attempts: bool) -> bool:
    title = f"==> task {one.task_id}: {one.path} <==\n" if header else ""
    if attempts and one.attempt:
        title += f"=== taskfarmer: attempt {one.attempt}, {one.farmer} ===\n"
    try:
        write_untrusted(_blocks(one, title))
    except OSError as error:
        if error.filename == "stdout":
            raise
        gone = " has no log" if isinstance(error, FileNotFoundError) else ""
        print_error(f"task {one.task_id}{gone}: {one.path}: {error.strerror}")
        return False
    return True


def _blocks(one: logs.Log, header: str) -> Iterator[bytes]:
    """The bytes of a log; with a header before it, it ends with a line feed."""
    last = b"\n"
    blocks = one.blocks()
    first = next(blocks, b"")
    if header:
        yield header.encode("utf-8", "surrogateescape")
    for data in chain((first,), blocks):
        yield data
        last = data[-1:] or last
    if header and last != b"\n":
        yield b"\n"


def _silent(
    found: Workdir, state: State, task_id: int, recorded: dict[int, tuple[int, str, bool]], header: bool
) -> bool:
    """Whether a task without a log wrote nothing, as with `--logs packed` there is none then; else say why."""
    why = locate_task(state, task_id)
    if why == _RECORDED and task_id in recorded:
        _, mode, well = recorded[task_id]
        if mode == "packed":
            if header:
                write_untrusted([f"==> task {task_id}: nothing was written <==\n".encode()])
            return True
        if mode == "none":
            why = "it is recorded, and its farmer ran with --logs none"
        elif mode == "failed":
            what = "only those of tasks that fail are kept" if well else "it wrote nothing"
            why = f"it is recorded, and its farmer ran with --logs failed: {what}"
    print_error(f"task {task_id} has no log ({found.log(task_id)}): {why}")
    return False


def _search(shelf: logs.LogStore, state: State, pattern: re.Pattern[bytes], wanted: list[int] | None) -> int:
    """Print the lines that match with the task's ID before each; how many they were."""
    count = 0

    def matches() -> Iterator[bytes]:
        nonlocal count
        for one in shelf.all(state.tasks) if wanted is None else chain(*shelf.find(set(wanted)).values()):
            try:
                for line in _lines(one.blocks(holes=False)):
                    if pattern.search(line):
                        count += 1
                        yield b"%d:%s\n" % (one.task_id, line)
            except OSError as error:
                print_error(f"task {one.task_id}: {one.path}: {error.strerror}")

    put_lines(matches())
    for doubt in shelf.doubts:
        print_error(doubt)
    return count


def _lines(blocks: Iterator[bytes]) -> Iterator[bytes]:
    """Lines without their ends; one that does not end is cut into pieces."""
    rest = b""
    for data in blocks:
        *whole, rest = (rest + data).split(b"\n")
        yield from whole
        if len(rest) > LONGEST_LINE:
            yield rest
            rest = b""
    if rest:
        yield rest


def locate_task(state: State, task_id: int) -> str:
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
    return _RECORDED


def _among(state: State, intervals: str, task_id: int) -> bool:
    return any(0 <= task_id - state.first_id(one) < one.count for one in parse_intervals(intervals))
