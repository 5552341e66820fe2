"""What a check finds, as data."""

from __future__ import annotations

import errno
import os
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import NamedTuple

from taskfarmer.errors import AGAIN, NotAFarm, StorageError, hit_a_limit, remedy
from taskfarmer.formats import limits
from taskfarmer.storage import reading

MOST = 20
"""Findings of one kind that are told; the rest is counted."""


class Finding(NamedTuple):
    """Something to tell. A `note` is no fault. `view` says that making the views anew mends it."""

    path: str
    text: str
    note: bool = False
    view: bool = False


@dataclass
class Report:
    """What `check` found. The counts are its own, not those that the ledger claims."""

    revision: int = -1
    tasks: int = 0
    unprocessed: int = 0
    held: int = 0
    finished: int = 0
    failed: int = 0
    farmers: int = 0
    findings: list[Finding] = field(default_factory=list)

    @property
    def errors(self) -> list[Finding]:
        return [finding for finding in self.findings if not finding.note]

    @property
    def disagreeing_views(self) -> bool:
        return any(finding.view for finding in self.findings)

    @property
    def only_views(self) -> bool:
        """Whether nothing is wrong but the views, which can be made anew."""
        return all(finding.view for finding in self.errors)


class Unreadable(Exception):
    """The check cannot go on; why is among the findings."""


class ProblemLog:
    """Gathers findings, of those of one `kind` only the first few."""

    def __init__(self) -> None:
        self.told: list[Finding] = []
        self._more: Counter[tuple[str, str, bool, bool]] = Counter()
        self._count: Counter[tuple[str, str]] = Counter()

    def tell(self, path: str, text: str, kind: str = "", note: bool = False, view: bool = False) -> None:
        self._count[path, kind] += 1
        if not kind or self._count[path, kind] <= MOST:
            self.told.append(Finding(path, text, note, view))
        else:
            self._more[path, kind, note, view] += 1

    @property
    def faulty(self) -> bool:
        """Whether anything is wrong so far, in views or elsewhere."""
        return any(finding.view or not finding.note for finding in self.told)

    def give_up(self, path: str, text: str) -> Unreadable:
        """The exception to raise where nothing can be checked without this file."""
        self.tell(path, text)
        return Unreadable()

    def all(self) -> list[Finding]:
        more = [
            Finding(path, f"{count} more of the same: {kind}", note, view)
            for (path, kind, note, view), count in self._more.items()
        ]
        return [*self.told, *more]


@contextmanager
def opened(path: str) -> Iterator[int]:
    """A descriptor of a regular file to read from; OSError for anything else in its place."""
    try:
        with reading.opened(path) as fd:
            reading.regular(fd, path)
            yield fd
    except OSError as error:
        refuse_if_limited(path, error)
        raise


def read(path: str, most: int = limits.DOCUMENT) -> bytes:
    """The whole file of at most so many bytes."""
    try:
        return reading.read(path, most)
    except OSError as error:
        refuse_if_limited(path, error)
        raise


def listed(folder: str) -> list[str]:
    """The names in a folder, none where it cannot be read: what is missed in it is told where it is missed."""
    try:
        return sorted(names_in(folder))
    except OSError:
        return []


def names_in(folder: str) -> list[str]:
    try:
        return os.listdir(folder)
    except OSError as error:
        refuse_if_limited(folder, error)
        raise


def refuse_if_limited(path: str, error: OSError) -> None:
    """Raise FarmError if an error is not about the file, which may then be sound: it could not be looked at."""
    too_long = error.errno == errno.ENAMETOOLONG
    if too_long or hit_a_limit(error):
        kind = NotAFarm if too_long else StorageError
        raise kind(f"{path}: {error.strerror}; the farm cannot be checked; {remedy(error, AGAIN)}") from error
