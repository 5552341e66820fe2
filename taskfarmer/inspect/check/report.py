"""The findings of a check, as data."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import NamedTuple

from taskfarmer.errors import AGAIN, FarmError, StorageError, hit_a_limit, remedy
from taskfarmer.storage import reading

MOST = 20
"""Findings of one kind that are listed; the others are counted."""


class Finding(NamedTuple):
    """One problem or note. A `note` is not an error. If `view` is set, rebuilding the views fixes the problem."""

    path: str
    text: str
    note: bool = False
    view: bool = False


@dataclass
class Report:
    """The result of a check. The counts are the check's own, not those recorded in the ledger."""

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
        """Whether all errors are about views, which can be rebuilt."""
        return all(finding.view for finding in self.errors)


class Unreadable(Exception):
    """The check cannot continue; the reason is among the findings."""


class FindingLog:
    """Collects findings. Only the first few of each `kind` are kept; the others are counted."""

    def __init__(self) -> None:
        self._listed: list[Finding] = []
        self._more: Counter[tuple[str, str, bool, bool]] = Counter()
        self._count: Counter[tuple[str, str]] = Counter()

    def add(self, path: str, text: str, kind: str = "", note: bool = False, view: bool = False) -> None:
        self._count[path, kind] += 1
        if not kind or self._count[path, kind] <= MOST:
            self._listed.append(Finding(path, text, note, view))
        else:
            self._more[path, kind, note, view] += 1

    def add_error(self, error: FarmError, kind: str = "") -> None:
        """Add an error of the ledger's readers, whose message starts with the path of the file.

        The error is raised again if its cause is a limit of this process: then the file itself may be intact.
        """
        if isinstance(error.__cause__, OSError) and hit_a_limit(error.__cause__):
            raise error
        path, _, text = str(error).partition(": ")
        self.add(path, text, kind)

    @property
    def faulty(self) -> bool:
        """Whether any problem was found so far, in views or elsewhere."""
        return any(finding.view or not finding.note for finding in self._listed)

    def fatal(self, path: str, text: str) -> Unreadable:
        """Add an error without whose file nothing can be checked; returns the exception to raise."""
        self.add(path, text)
        return Unreadable()

    def all(self) -> list[Finding]:
        more = [
            Finding(path, f"{count} more of the same: {kind}", note, view)
            for (path, kind, note, view), count in self._more.items()
        ]
        return [*self._listed, *more]


@contextmanager
def opened(path: str) -> Iterator[int]:
    """A descriptor to read a regular file; OSError for any other kind of file."""
    try:
        with reading.opened(path) as fd:
            reading.regular(fd, path)
            yield fd
    except OSError as error:
        refuse_if_limited(path, error)
        raise


def listed(folder: str) -> list[str]:
    """The names in a folder; empty if the folder cannot be read: the files missing from it are reported elsewhere."""
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
    """Raise StorageError if a limit of this process was reached: the file could not be read, but may be intact."""
    if hit_a_limit(error):
        raise StorageError(f"{path}: {error.strerror}; the farm cannot be checked; {remedy(error, AGAIN)}") from error
