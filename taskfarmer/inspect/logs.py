"""Where the output of tasks is, whichever `--logs` their farmers had: read-only, and nothing is decided from it.

An attempt's output is in `logs/log_<ID>`, in pieces of a farmer's packed file, or in a file of its own: one that was
set aside, or the scratch file that it writes, or wrote when its farmer was killed.
"""

from __future__ import annotations

import errno
import os
import re
import stat
from array import array
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import chain
from typing import NamedTuple

from taskfarmer.errors import FarmError, hit_a_limit
from taskfarmer.formats import packs
from taskfarmer.ledger import State, logowner, results
from taskfarmer.storage import reading
from taskfarmer.storage.layout import Workdir

BLOCK = 1 << 16
_HEAD_BLOCK = 1 << 14
"""Bytes that are read around a head line: those of several pieces if tasks write little."""
_LOG = re.compile(r"log_(\d{1,18})")
_LATEST_ASIDE = 9
"""The last attempt whose name for an earlier log is looked for."""
_SET_ASIDE = re.compile(r"(.+-[0-9a-f]{8})\.(\d{1,18})\.(\d{1,9})")
_PACK = re.compile(r".+-[0-9a-f]{8}")
_FLAGS = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK


class Log(NamedTuple):
    """Output of a task: pieces of a file, or all of it. `attempt` is 0 for `log_<ID>`, which may have several.

    `pieces` has the start and the size of each, one after the other.

    Of a `log_<ID>` only the parts of the farm with the ID `farm` count, with `first` also the text before all headers.
    """

    task_id: int
    attempt: int
    path: str
    farmer: str = ""
    pieces: array[int] | None = None
    farm: str = ""
    first: bool = True

    def blocks(self, holes: bool = True) -> Iterator[bytes]:
        """Its bytes; OSError if they cannot be read, also if something else is in the file's place.

        Without `holes`, what was never written into a sparse file is left out: that may be terabytes.
        """
        blocks = self._blocks(holes)
        return blocks if self.attempt else own_parts(blocks, self.task_id, self.farm.encode(), self.first)

    def has_parts(self) -> bool:
        """Whether a `log_<ID>` that several farms may have written has anything of this farm."""
        try:
            return next((True for _ in self.blocks()), False) or (self.first and not os.path.getsize(self.path))
        except OSError:
            return True  # it is said when the log is printed

    def _blocks(self, holes: bool) -> Iterator[bytes]:
        fd = os.open(self.path, _FLAGS)
        try:
            there = os.fstat(fd)
            if not stat.S_ISREG(there.st_mode):
                raise OSError(None, "something else is in its place; move it away")
            left = there.st_size  # pieces of one file: more than all of it is a lie
            for start, size in ((0, None),) if self.pieces is None else _pairs(self.pieces):
                end = None if size is None else start + min(size, left)
                left -= size or 0
                while True:
                    start = start if holes else _data_from(fd, start)
                    data = os.pread(fd, BLOCK if end is None else max(0, min(BLOCK, end - start)), start)
                    if not data:
                        break
                    yield data
                    start += len(data)
        finally:
            os.close(fd)


@dataclass
class LogStore:
    """The logs of a farm. `warnings` are lines for people about files that cannot be read."""

    workdir: Workdir
    farm: str
    warnings: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._first = logowner.owns(self.workdir, self.farm)

    def _log(self, task_id: int, path: str) -> Log:
        return Log(task_id, 0, path, farm=self.farm, first=self._first)

    def find(self, wanted: set[int]) -> dict[int, list[Log]]:
        """The logs of some tasks, those of earlier attempts first."""
        found: dict[int, list[Log]] = {task_id: [] for task_id in wanted}
        for task_id in wanted:
            for path in self._files(task_id):
                log = self._log(task_id, path)
                if self.workdir.has_own_logs or log.has_parts():
                    found[task_id].append(log)
        for log in self._others(wanted):
            found[log.task_id].append(log)
        for logs in found.values():
            if len(logs) > 1:
                logs.sort(key=lambda log: log.attempt or _first_attempt(log))
        return found

    def _files(self, task_id: int) -> list[str]:
        """`log_<ID>`; if a crash left none, the names that later attempts give to a log that they take over."""
        path = self.workdir.log(task_id)
        if os.path.lexists(path):
            return [path]
        return [aside for n in range(2, _LATEST_ASIDE + 1) if os.path.lexists(aside := f"{path}.{n}")]

    def all(self, tasks: int) -> Iterator[Log]:
        """Every log of a farm with so many tasks: files by ID, then what is packed as it was written."""
        numbers = (int(match[1]) for name in _names(self.workdir.logs) if (match := _LOG.fullmatch(name)))
        for task_id in sorted(number for number in numbers if number < tasks):
            yield self._log(task_id, self.workdir.log(task_id))
        for log in self._others(None):
            if log.task_id < tasks:
                yield log

    def _others(self, wanted: set[int] | None) -> Iterator[Log]:
        """What farmers of this farm keep of tasks (None: of all) elsewhere than in `log_<ID>`."""
        names = _names(self.workdir.packed)
        aside = set()
        for name in names:
            match = _SET_ASIDE.fullmatch(name)
            if match and self._ours(match[1]):
                log = Log(int(match[2]), int(match[3]), os.path.join(self.workdir.packed, name), match[1])
                aside.add((log.task_id, log.attempt))
                if wanted is None or log.task_id in wanted:
                    yield log
        for farmer in names:
            if _PACK.fullmatch(farmer) and self._ours(farmer):
                for log in self._packed(farmer, wanted):
                    if (log.task_id, log.attempt) not in aside:
                        yield log

    def _ours(self, farmer: str) -> bool:
        """Whether a farmer is of this farm: several may have the same --logs-dir."""
        return os.path.exists(self.workdir.identity(farmer))

    def _packed(self, farmer: str, wanted: set[int] | None) -> Iterator[Log]:
        """The logs in a farmer's packed file, then the scratch files of attempts whose output is not all in it.

        If all are wanted, each log follows its last piece, to save memory.
        """
        path = self.workdir.pack(farmer)
        logs: dict[tuple[int, int], array[int]] = {}  # by task and attempt
        missing: dict[tuple[int, int], int] = {}  # bytes of further pieces
        scratch: dict[tuple[int, int], tuple[int, int]] = {}
        users: dict[tuple[int, int], tuple[int, int]] = {}  # the attempts that use the scratch files
        for head, start, size in self._pieces(path):
            attempt = head.task_id, head.attempt
            if head.scratch is not None:
                scratch.pop(users.get(head.scratch, attempt), None)
                users[head.scratch] = attempt
                scratch[attempt] = head.scratch
                continue
            left = missing.pop(attempt, head.total) - size
            if left > 0:
                missing[attempt] = left
            else:
                scratch.pop(attempt, None)
            if size and (wanted is None or head.task_id in wanted):
                logs.setdefault(attempt, array("Q")).extend((start, size))
                if wanted is None and left <= 0:
                    yield Log(*attempt, path, farmer, logs.pop(attempt))
        for attempt, pieces in logs.items():
            if attempt not in scratch:
                yield Log(*attempt, path, farmer, pieces)
        for attempt, (slot, number) in scratch.items():
            where = self.workdir.scratch(farmer, slot, number)
            if (wanted is None or attempt[0] in wanted) and os.path.isfile(where):
                yield Log(*attempt, where, farmer)

    def _pieces(self, path: str) -> Iterator[tuple[packs.Head, int, int]]:
        try:
            with reading.opened(path) as fd:
                yield from _PackReader(fd, reading.regular(fd, path)).pieces()
        except FileNotFoundError:
            pass
        except OSError as error:
            if hit_a_limit(error):
                raise
            self.warnings.append(f"{path}: {error.strerror}; the output in it is not shown")


def own_parts(blocks: Iterator[bytes], task_id: int, farm: bytes, first: bool) -> Iterator[bytes]:
    """The parts of a `log_<ID>` that are one farm's: those below its headers and, with `first`, before all headers.

    The header of a first attempt at the beginning is left out, as if the log were this farm's alone.
    """
    ours, printed = first, False
    rest = b""
    for data in chain(blocks, (b"",)):
        rest += data
        while match := packs.ATTEMPT.search(rest):
            is_header = int(match[2]) == task_id  # else the task printed the log of another one
            text, rest = rest[: match.start() if is_header else match.end()], rest[match.end() :]
            if ours and text:
                yield text
                printed = True
            if is_header:
                ours = match[3] == farm
                if ours and (printed or int(match[1]) > 1):
                    yield match[0]
                    printed = True
        # a header that began here may end in the next block
        end = len(rest) if not data else max(0, len(rest) - packs.LONGEST_ATTEMPT)
        if ours and end:
            yield rest[:end]
            printed = True
        rest = rest[end:]


def kept_as(workdir: Workdir, state: State, wanted: set[int]) -> dict[int, tuple[int, str, bool]]:
    """(attempt, word of `--logs`, whether it ended well) of the newest recorded attempt of tasks, by their results."""
    found: dict[int, tuple[int, str, bool]] = {}
    try:
        for _, lines in results.read_counted(workdir, state, patience=1.0):
            for line in lines:
                words = line.split(b" ")
                if len(words) == 13 and words[0].isdigit() and words[1].isdigit() and int(words[0]) in wanted:
                    task_id, attempt = int(words[0]), int(words[1])
                    if attempt >= found.get(task_id, (0, "", False))[0]:
                        found[task_id] = attempt, words[11].decode("ascii", "replace"), words[5] == b"finished"
    except (FarmError, OSError):
        pass  # it is told without that
    return found


def _pairs(numbers: array[int]) -> Iterator[tuple[int, int]]:
    return zip(numbers[::2], numbers[1::2], strict=True)


def _names(folder: str) -> list[str]:
    try:
        return sorted(os.listdir(folder))
    except OSError as error:
        if hit_a_limit(error):
            raise
        return []


def _first_attempt(log: Log) -> int:
    """The attempt that a log file begins with, by its first line."""
    try:
        first = next(log.blocks(), b"")
    except OSError:
        return 1
    match = re.match(rb"=== taskfarmer: attempt (\d{1,9}) on ", first)
    return int(match[1]) if match else 1


class _PackReader:
    """Reads a packed file from head line to head line, without the output in between.

    A piece that is neither followed by a head line nor by the end of the file was torn: by a full disk, or a kill.
    """

    def __init__(self, fd: int, size: int) -> None:
        self._fd = fd
        self._end = size
        self._block = b""
        self._start = 0

    def pieces(self) -> Iterator[tuple[packs.Head, int, int]]:
        """Each head line, with the start and the size of its output. A torn piece ends before the next head line."""
        place = self._search(0, self._end)
        head = self._head_at(place)
        while head is not None:
            start = place + head.length
            stop = place = min(start + head.size, self._end)
            following = self._head_at(place)
            if following is None and place < self._end:  # a line feed ends output that has none at its end
                place += 1
                following = self._head_at(place)
            if start + head.size > self._end or (following is None and place < self._end):
                stop = self._search(start, stop)
                place = self._search(stop, self._end)
                following = self._head_at(place)
            yield head, start, stop - start
            head = following

    def _head_at(self, place: int) -> packs.Head | None:
        offset = place - self._start
        if offset < 0 or offset + packs.LONGEST_HEAD > len(self._block):
            offset = self._load(place)
        return packs.parse_head(self._block, offset) if place < self._end else None

    def _load(self, place: int) -> int:
        self._block, self._start = os.pread(self._fd, _HEAD_BLOCK, place), place
        return 0

    def _search(self, place: int, end: int) -> int:
        """Where the next head line starts; `end` if there is none. After a torn piece it is not at a line's start."""
        while place < end:
            offset = place - self._start
            if offset < 0 or offset + packs.LONGEST_HEAD > len(self._block):
                place = _data_from(self._fd, place)
                offset = self._load(place)
            match = packs.HEAD.search(self._block, offset)
            if match is not None:
                return min(self._start + match.start(), end)
            if len(self._block) < _HEAD_BLOCK:
                break
            place = self._start + len(self._block) - packs.LONGEST_HEAD + 1
        return end


def _data_from(fd: int, place: int) -> int:
    """Where the next bytes are that were written: a sparse file of a terabyte is passed over at once."""
    try:
        return os.lseek(fd, place, os.SEEK_DATA)
    except OSError as error:
        return place if error.errno != errno.ENXIO else os.fstat(fd).st_size
