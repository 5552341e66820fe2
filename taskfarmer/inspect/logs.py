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
from taskfarmer.formats import limits, packs
from taskfarmer.formats.packs import Part, Runs
from taskfarmer.ledger import State, logowner, results
from taskfarmer.storage import reading
from taskfarmer.storage.layout import Workdir

BLOCK = 1 << 16
_LOG = re.compile(r"log_(\d{1,18})")
_LATEST_ASIDE = 9
"""The last attempt whose name for an earlier log is looked for."""
_SET_ASIDE = re.compile(r"(.+-[0-9a-f]{8})\.(\d{1,18})\.(\d{1,9})")
_INDEX = re.compile(r"(.+-[0-9a-f]{8})\.index")
_PACK = re.compile(r".+-[0-9a-f]{8}")
_FLAGS = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK


class Log(NamedTuple):
    """Output of a task: pieces of a file, or all of it. `attempt` is 0 for `log_<ID>`, which may have several.

    Of a `log_<ID>` only the parts of the farm with the ID `farm` count, with `first` also the text before all headers.
    """

    task_id: int
    attempt: int
    path: str
    farmer: str = ""
    pieces: tuple[tuple[int, int], ...] | None = None
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
            for start, size in self.pieces if self.pieces is not None else ((0, None),):
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
    """What a farm's logs hold. `doubts` are lines about what cannot be read, for people."""

    workdir: Workdir
    farm: str
    doubts: list[str] = field(default_factory=list)

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
        indexed = {match[1] for name in names if (match := _INDEX.fullmatch(name))}
        for farmer in sorted(indexed | {name for name in names if _PACK.fullmatch(name)}):
            if self._ours(farmer):
                for log in self._packed(farmer, wanted):
                    if (log.task_id, log.attempt) not in aside:
                        yield log

    def _ours(self, farmer: str) -> bool:
        """Whether a farmer is of this farm: several may have the same --logs-dir."""
        return os.path.exists(self.workdir.identity(farmer))

    def _packed(self, farmer: str, wanted: set[int] | None) -> Iterator[Log]:
        path = self.workdir.pack(farmer)
        known = array("Q"), array("Q")
        running: dict[str, Runs] = {}
        scratch: dict[tuple[int, int], str] = {}
        for line in self._lines(farmer):
            if isinstance(line, Runs):
                before = running.get(line.scratch)
                if before is not None:
                    scratch.pop((before.task_id, before.attempt), None)
                running[line.scratch] = line
                scratch[line.task_id, line.attempt] = line.scratch
                continue
            scratch.pop((line.task_id, line.attempt), None)
            for start, size in line.pieces:
                known[0].append(start)
                known[1].append(size)
            if line.pieces and (wanted is None or line.task_id in wanted):
                yield Log(line.task_id, line.attempt, path, farmer, line.pieces)
        for task_id, attempt, pieces in _untold(path, *known):
            if (task_id, attempt) not in scratch and (wanted is None or task_id in wanted):
                yield Log(task_id, attempt, path, farmer, tuple(pieces))
        for (task_id, attempt), name in scratch.items():
            where = os.path.join(self.workdir.running, name)
            if (wanted is None or task_id in wanted) and os.path.isfile(where):
                yield Log(task_id, attempt, where, farmer)

    def _lines(self, farmer: str) -> Iterator[Part | Runs]:
        path = self.workdir.pack_index(farmer)
        damaged = 0
        try:
            with reading.opened(path) as fd:
                reading.regular(fd, path)
                for line in reading.lines(fd, limits.INDEX_LINE):
                    found = packs.parse_line(line[:-1]) if line.endswith(b"\n") else None
                    if found is not None:
                        yield found
                    elif line.endswith(b"\n"):
                        damaged += 1
        except FileNotFoundError:
            pass
        except OSError as error:
            self.doubts.append(f"{path}: {error.strerror}; what it tells is looked for in {self.workdir.pack(farmer)}")
        if damaged:
            self.doubts.append(
                f"{path}: {damaged} lines are damaged and were passed over; what they tell is looked for in "
                f"{self.workdir.pack(farmer)}"
            )


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


def _untold(path: str, starts: array[int], sizes: array[int]) -> list[tuple[int, int, list[tuple[int, int]]]]:
    """Task, attempt and pieces of what is in a packed file and not in its index."""
    found: dict[tuple[int, int], list[tuple[int, int]]] = {}
    try:
        fd = os.open(path, _FLAGS)
    except OSError as error:
        if hit_a_limit(error):
            raise
        return []
    try:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            return []
        for begin, end in _gaps(fd, starts, sizes):
            for task_id, attempt, start, size in _pieces(fd, begin, end):
                found.setdefault((task_id, attempt), []).append((start, size))
    finally:
        os.close(fd)
    return [(*who, pieces) for who, pieces in found.items()]


def _gaps(fd: int, starts: array[int], sizes: array[int]) -> Iterator[tuple[int, int]]:
    """The ranges of a packed file that are neither told of, nor what stands between pieces that are."""
    place = 0
    length = os.fstat(fd).st_size
    for number in sorted(range(len(starts)), key=starts.__getitem__):
        start = min(starts[number], length)
        if start - place > packs.LONGEST_HEAD:
            yield place, start
        elif start - place > 2 * packs.SHORTEST_HEAD:
            head = os.pread(fd, start - place, place).lstrip(b"\n")
            found = packs.parse_head(head)
            if found is None or found[3] != len(head):
                yield place, start
        place = max(place, start + sizes[number])
    if length > place:
        yield place, length


def _pieces(fd: int, place: int, end: int) -> Iterator[tuple[int, int, int, int]]:
    """(task, attempt, start, bytes) of the pieces that begin in a range. One that was torn goes up to the next."""
    while (place := _next_head(fd, place, end)) < end:
        head = packs.parse_head(os.pread(fd, packs.LONGEST_HEAD, place))
        assert head is not None
        task_id, attempt, size, length = head
        start = place + length
        if start > end or (start == end and size):
            return  # the head line is of a piece that the index knows, or nothing follows
        place = start + size
        if place > end or not _is_boundary(fd, place, end):
            place = _next_head(fd, start, end)
            size = max(0, place - start)
        yield task_id, attempt, start, size


def _is_boundary(fd: int, place: int, end: int) -> bool:
    return place >= end - 1 or packs.parse_head(os.pread(fd, packs.LONGEST_HEAD, place).lstrip(b"\n")) is not None


def _next_head(fd: int, place: int, end: int) -> int:
    """Where the next head line begins at the beginning of a line; `end` where there is none."""
    while (place := _data_from(fd, place)) < end:
        data = os.pread(fd, min(BLOCK, end - place), place)
        at = data.find(packs.HEAD_BEGINS)
        if at < 0:
            if len(data) < BLOCK:
                return end
            place += len(data) - len(packs.HEAD_BEGINS)
            continue
        before = os.pread(fd, 1, place + at - 1) if place + at else b"\n"
        whole = os.pread(fd, packs.LONGEST_HEAD, place + at)
        if before == b"\n" and packs.parse_head(whole):
            return place + at
        place += at + 1
    return end


def _data_from(fd: int, place: int) -> int:
    """Where the next bytes are that were written: a sparse file of a terabyte is passed over at once."""
    try:
        return os.lseek(fd, place, os.SEEK_DATA)
    except OSError as error:
        return place if error.errno != errno.ENXIO else os.fstat(fd).st_size
