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
from taskfarmer.ui.stdout import write_untrusted, write_untrusted_lines

_RECORDED = "it is recorded, but its log was removed or never existed"
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
  0   all logs were printed; with --grep: a line matches
  1   a task has no log (see stderr); with --grep: no line matches
  2   wrong usage, or a task does not exist
  74  the farm is damaged or cannot be read
""",
)
@workdir_argument
@click.argument("ids", nargs=-1, metavar="[ID|FIRST-LAST]...")
@click.option("--failed", is_flag=True, help="Print the logs of all failed tasks.")
@click.option("--grep", metavar="PATTERN", help="Print lines that match a Python regular expression, as `ID:line`.")
@verbose_option
def command(workdir: str, ids: tuple[str, ...], failed: bool, grep: str | None) -> int:
    """Print the output of tasks, both standard output and standard error.

    It works with every `--logs` mode, while tasks run, and after a farmer was killed. --grep searches the logs of the
    given tasks, or of all tasks.

    Pipes and files get the bytes unchanged. On a terminal, control characters are escaped; use `| less -R` for colors.
    """
    if bool(ids) == failed and not (grep is not None and not ids):
        raise click.UsageError("give task IDs, or --failed" + ("; not both" if failed else ", or --grep PATTERN"))
    pattern = None if grep is None else _compiled(grep)
    found, farm = open_farm(workdir)
    ledger = Ledger(found, farm, "logs")
    state = ledger.refresh()
    wanted = failed_tasks(found, ledger) if failed else parse_ids(ids, state.tasks) if ids else None
    store = logs.LogStore(found, farm.farm)
    if pattern is not None:
        return 0 if _print_matches(store, state, pattern, wanted) else 1
    assert wanted is not None
    if not wanted:
        print_error("this farm has no failed tasks")
    return 1 if _print_logs(store, state, wanted) else 0


def _compiled(pattern: str) -> re.Pattern[bytes]:
    try:
        return re.compile(os.fsencode(pattern))
    except re.error as error:
        raise click.UsageError(f"--grep {pattern!r} is not a valid regular expression: {error}") from error


def failed_tasks(workdir: Workdir, ledger: Ledger) -> list[int]:
    """The IDs of the tasks that are recorded as failed."""
    if not ledger.state.failed:
        return []
    place = results.with_newer_states(
        lambda: results.survey(workdir, ledger.refresh(), agrees_within=results.STATE_IS_NEW_FOR)
    ).place
    return [task_id for task_id, where in enumerate(place) if where == results.IS_FAILED]


def _print_logs(store: logs.LogStore, state: State, wanted: list[int]) -> int:
    """Print the logs of tasks. Return the number of tasks without one."""
    found = store.find(set(wanted))
    without = {task_id for task_id, some in found.items() if not some}
    modes = logs.recorded_modes(store.workdir, state, without) if without else {}
    for warning in store.warnings:
        print_error(warning)
    missing = 0
    for task_id in wanted:
        some = found[task_id]
        if not some and not _explain(store.workdir, state, task_id, modes, len(wanted) > 1):
            missing += 1
        for log in some:
            missing += not _print_log(log, header=len(wanted) > 1, attempts=len(some) > 1 or log.attempt > 1)
    return missing


def _print_log(log: logs.Log, header: bool, attempts: bool) -> bool:
    """Print a log, with a header line and a line for the attempt if wanted. Return whether that was possible."""
    title = f"==> task {log.task_id}: {log.path} <==\n" if header else ""
    if attempts and log.attempt:
        title += f"=== taskfarmer: attempt {log.attempt}, {log.farmer} ===\n"
    try:
        write_untrusted(_blocks(log, title))
    except OSError as error:
        if error.filename == "stdout":
            raise
        gone = " has no log" if isinstance(error, FileNotFoundError) else ""
        print_error(f"task {log.task_id}{gone}: {log.path}: {error.strerror}")
        return False
    return True


def _blocks(log: logs.Log, header: str) -> Iterator[bytes]:
    """The bytes of a log. With a header before it, the log ends with a line feed."""
    last = b"\n"
    blocks = log.blocks()
    first = next(blocks, b"")
    if header:
        yield header.encode("utf-8", "surrogateescape")
    for data in chain((first,), blocks):
        yield data
        last = data[-1:] or last
    if header and last != b"\n":
        yield b"\n"


def _explain(
    workdir: Workdir, state: State, task_id: int, modes: dict[int, tuple[int, str, bool]], header: bool
) -> bool:
    """Explain why a task has no log. Return True if it wrote nothing: with `--logs packed` it then has no log."""
    why = locate_task(state, task_id)
    if why == _RECORDED and task_id in modes:
        _, mode, succeeded = modes[task_id]
        if mode == "packed":
            if header:
                write_untrusted([f"==> task {task_id}: no output <==\n".encode()])
            return True
        if mode == "none":
            why = "it is recorded, and its farmer ran with --logs none"
        elif mode == "failed":
            reason = "only logs of failed tasks are kept" if succeeded else "it wrote nothing"
            why = f"it is recorded, and its farmer ran with --logs failed: {reason}"
    print_error(f"task {task_id} has no log ({workdir.log(task_id)}): {why}")
    return False


def _print_matches(store: logs.LogStore, state: State, pattern: re.Pattern[bytes], wanted: list[int] | None) -> int:
    """Print matching lines, each after the ID of its task. Return their number."""
    count = 0

    def matches() -> Iterator[bytes]:
        nonlocal count
        for log in store.all(state.tasks) if wanted is None else chain(*store.find(set(wanted)).values()):
            try:
                for line in _lines(log.blocks(skip_holes=True)):
                    if pattern.search(line):
                        count += 1
                        yield b"%d:%s\n" % (log.task_id, line)
            except OSError as error:
                print_error(f"task {log.task_id}: {log.path}: {error.strerror}")

    write_untrusted_lines(matches())
    for warning in store.warnings:
        print_error(warning)
    return count


def _lines(blocks: Iterator[bytes]) -> Iterator[bytes]:
    """Lines without line feeds. A line that is too long is split."""
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
    """The state of a task in words, according to the ledger alone."""
    for farmer, entry in state.farmers.items():
        if _contains(state, entry.claims, task_id):
            return f"it is claimed by {farmer}, and has not started or not written anything yet"
    number = state.segment_of(task_id)
    if number is None:
        return f"it is not in this farm, which has {state.tasks} tasks"
    segment = state.segments[number]
    if task_id - segment.first >= segment.next or _contains(state, state.returned, task_id):
        return "it is unprocessed"
    return _RECORDED


def _contains(state: State, intervals: str, task_id: int) -> bool:
    return any(0 <= task_id - state.first_id(one) < one.count for one in parse_intervals(intervals))
