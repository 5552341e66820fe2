"""Task IDs on the command line: numbers and ranges."""

from __future__ import annotations

import re
from collections.abc import Iterable

from taskfarmer.errors import UsageError

_RANGE = re.compile(r"(\d{1,18})(?:-(\d{1,18}))?", re.ASCII)


def parse_ids(words: Iterable[str], tasks: int) -> list[int]:
    """Parse words like `3` and `5-7`; return each ID once, in order of appearance.

    UsageError for an invalid word, or for an ID that a farm with `tasks` tasks does not have.
    """
    ids: dict[int, None] = {}
    for word in words:
        match = _RANGE.fullmatch(word)
        if match is None:
            raise UsageError(f"invalid task ID {word!r}: use a number or a range like 3-7")
        first, last = int(match[1]), int(match[2] or match[1])
        if last < first:
            raise UsageError(f"invalid range {word!r}: its last ID is before its first")
        if last >= tasks:
            raise UsageError(f"task {last} is not in this farm, {_existing_ids(tasks)}")
        ids.update(dict.fromkeys(range(first, last + 1)))
    return list(ids)


def _existing_ids(tasks: int) -> str:
    return f"which has tasks 0 to {tasks - 1}" if tasks else "which has no tasks"
