"""Task IDs on the command line: numbers, and ranges of them."""

from __future__ import annotations

import re
from collections.abc import Iterable

from taskfarmer.errors import UsageError

_RANGE = re.compile(r"(\d{1,18})(?:-(\d{1,18}))?", re.ASCII)


def parse_ids(words: Iterable[str], tasks: int) -> list[int]:
    """The IDs that `3`, `5-7` and the like stand for, each once, in their order of appearance.

    UsageError where a word is none, or names a task that a farm of `tasks` tasks does not have.
    """
    found: dict[int, None] = {}
    for word in words:
        match = _RANGE.fullmatch(word)
        if match is None:
            raise UsageError(f"{word!r} is no task ID: write a number, or a range like 3-7")
        first, last = int(match[1]), int(match[2] or match[1])
        if last < first:
            raise UsageError(f"{word!r} is no range: it ends before it begins")
        if last >= tasks:
            raise UsageError(f"task {last} is not in this farm, {_known(tasks)}")
        found.update(dict.fromkeys(range(first, last + 1)))
    return list(found)


def _known(tasks: int) -> str:
    return f"which has the tasks 0 to {tasks - 1}" if tasks else "which has no tasks"
