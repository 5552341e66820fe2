"""What a farmer tells while it runs, and at its end."""

from __future__ import annotations

from taskfarmer.options import Ending, Exit, Progress
from taskfarmer.ui.printable import shell_word


def progress(now: Progress) -> str:
    """`120/500 done, 3 failed, 8 running here, 2 farmers`; `done` are the finished and the failed."""
    return (
        f"{now.finished + now.failed}/{now.tasks} done, {now.failed} failed, {now.running_here} running here, "
        f"{_count(now.farmers, 'farmer')}"
    )


def closing(ending: Ending, workdir: str, status: int) -> tuple[list[str], list[str]]:
    """The last lines of a farmer that exits with `status`: what came of it, and what is to be done about it.

    The second list is what also a quiet farmer says, empty where all is well.
    """
    return _story(ending), [*_failures(ending, workdir), *_rest(ending, status)]


def _story(ending: Ending) -> list[str]:
    here = [f"{ending.finished} finished", f"{ending.failed} failed"]
    if ending.returned:
        here.append(f"{ending.returned} given back")
    stopped = f", stopped by {ending.stopped_by}" if ending.stopped_by else ""
    farm = ending.farm
    left = [f"{farm.finished} finished", f"{farm.failed} failed", f"{farm.unprocessed} unprocessed"]
    if farm.held:
        left.append(f"{farm.held} held by {_count(farm.farmers, 'farmer')}")
    return [
        f"this farmer: {', '.join(here)}, in {ending.seconds:.1f} s{stopped}",
        f"the farm: {_count(farm.tasks, 'task')}: {', '.join(left)}",
    ]


def _failures(ending: Ending, workdir: str) -> list[str]:
    if not ending.farm.failed:
        return []
    folder = shell_word(workdir)
    return [
        f"failed: {ending.farm.failed}; see {shell_word(workdir + '/failed')} and: taskfarmer logs {folder} --failed; "
        f"to run them again: taskfarmer retry {folder} --failed"
    ]


def _rest(ending: Ending, status: int) -> list[str]:
    lines = []
    if ending.unrecorded:
        lines.append(
            f"not recorded: {_count(ending.unrecorded, 'result')}; what is not in {_JOURNALS} is run again "
            f"(exit status {status})"
        )
    elif ending.trouble is None and ending.farm.unprocessed:
        many = "tasks are" if ending.farm.unprocessed != 1 else "task is"
        meaning = f"exit status {status}"
        if status != Exit.AGAIN:
            meaning += ", for --exit-zero"
        lines.append(f"{ending.farm.unprocessed} {many} unprocessed: run the same command again ({meaning})")
    elif ending.trouble is None and ending.stale_claims:
        lines.append(
            "tasks are held by a farmer that is gone, and are soon unprocessed: run the same command again "
            f"(exit status {status})"
        )
    elif ending.trouble is None and ending.not_imported:
        lines.append(
            "the end of the task list was not taken in: run the same command again "
            f"(exit status {status}{', for --exit-zero' if status != Exit.AGAIN else ''})"
        )
    elif ending.trouble is None and ending.others_hold and ending.farm.failed:
        lines.append(
            f"other farmers still hold tasks: exit status {status}; the last farmer exits with the farm's status"
        )
    return lines


_JOURNALS = "the farm's results/"


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
