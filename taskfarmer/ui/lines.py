"""A farmer's progress line and its closing messages."""

from __future__ import annotations

from taskfarmer.options import Ending, Exit, Progress
from taskfarmer.ui.printable import shell_word


def progress(now: Progress) -> str:
    """Return a line like `120/500 done, 3 failed, 8 running here, 2 farmers`; failed tasks count as done."""
    return (
        f"{now.finished + now.failed}/{now.tasks} done, {now.failed} failed, {now.running_here} running here, "
        f"{_count(now.farmers, 'farmer')}"
    )


def closing(ending: Ending, workdir: str, status: int) -> tuple[list[str], list[str]]:
    """Return the last lines of a farmer that exits with `status`: a summary, and what the user should do.

    Even a quiet farmer logs the second list. It is empty if all is well.
    """
    return _summary(ending), [*_failures(ending, workdir), *_unfinished(ending, status)]


def _summary(ending: Ending) -> list[str]:
    own = [f"{ending.finished} finished", f"{ending.failed} failed"]
    if ending.returned:
        own.append(f"{ending.returned} released")
    stopped = f", stopped by {ending.stopped_by}" if ending.stopped_by else ""
    farm = ending.farm
    total = [f"{farm.finished} finished", f"{farm.failed} failed", f"{farm.unprocessed} unprocessed"]
    if farm.held:
        total.append(f"{farm.held} held by {_count(farm.farmers, 'farmer')}")
    return [
        f"this farmer: {', '.join(own)}, in {ending.seconds:.1f} s{stopped}",
        f"the farm: {_count(farm.tasks, 'task')}: {', '.join(total)}",
    ]


def _failures(ending: Ending, workdir: str) -> list[str]:
    if not ending.farm.failed:
        return []
    folder = shell_word(workdir)
    return [
        f"failed: {ending.farm.failed}; see {shell_word(workdir + '/failed')}; for their output: taskfarmer logs "
        f"{folder} --failed; to run them again: taskfarmer retry {folder} --failed"
    ]


def _unfinished(ending: Ending, status: int) -> list[str]:
    lines = []
    if ending.unrecorded:
        lines.append(
            f"not recorded: {_count(ending.unrecorded, 'result')}; tasks without a result in the farm's results/ will "
            f"be run again (exit status {status})"
        )
    elif ending.trouble is None and ending.farm.unprocessed:
        verb = "is" if ending.farm.unprocessed == 1 else "are"
        unprocessed = f"{_count(ending.farm.unprocessed, 'task')} {verb} unprocessed"
        lines.append(f"{unprocessed}: run the same command again ({_status(status)})")
    elif ending.trouble is None and ending.stale_claims:
        lines.append(
            "some tasks are still held by a farmer that has exited, and will soon be released: run the same command "
            f"again (exit status {status})"
        )
    elif ending.trouble is None and ending.not_imported:
        lines.append(
            f"the last lines of the task list are not in the farm yet: run the same command again ({_status(status)})"
        )
    elif ending.trouble is None and ending.others_hold and ending.farm.failed:
        lines.append(
            f"other farmers still hold tasks: exit status {status}; the last farmer exits with the status of the farm"
        )
    return lines


def _status(status: int) -> str:
    return f"exit status {status}" + ("" if status == Exit.AGAIN else " because of --exit-zero")


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
