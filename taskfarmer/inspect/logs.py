"""Finds the output of tasks, for all modes of `--logs`. Nothing here writes, and no decision depends on it.

The output of an attempt is in `logs/log_<ID>`, in pieces of a farmer's packed file, or in a separate file: one that was
set aside, or the scratch file of a task that is running, or was running when its farmer was killed.
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
"""Bytes read at a head line: if tasks write little, they contain the head lines of many pieces."""
_LOG = re.compile(r"log_(\d{1,18})")
_LAST_ATTEMPT_ASIDE = 9
"""The last attempt whose name for a renamed log is tried."""
_SET_ASIDE = re.compile(r"(.+-[0-9a-f]{8})\.(\d{1,18})\.(\d{1,9})")
_PACK = re.compile(r".+-[0-9a-f]{8}")
_FLAGS = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK


class Log(NamedTuple):
    """Output of a task: pieces of a file, or a whole file.

    `attempt` is 0 for `log_<ID>`, which may contain several attempts. Of such a file, only the sections of the farm
    with the ID `farm` belong to the log, and also the text before all headers if `headless` is true. `pieces` contains
    the start and the size of each piece in turn.
    """

    task_id: int
    attempt: int
    path: str
    farmer: str = ""
    pieces: array[int] | None = None
    farm: str = ""
    headless: bool = True

    def blocks(self, skip_holes: bool = False) -> Iterator[bytes]:
        """The bytes of the log. Raises OSError if they cannot be read, or if the file is not a regular one.

        `skip_holes` omits the holes of a sparse file, which may be terabytes.
        """
        blocks = self._blocks(skip_holes)
        return blocks if self.attempt else sections_of_farm(blocks, self.task_id, self.farm.encode(), self.headless)

    def belongs_to_farm(self) -> bool:
        """Whether a `log_<ID>` in a directory of several farms contains output of this farm, or is its empty log."""
        try:
            return next((True for _ in self.blocks()), False) or (self.headless and not os.path.getsize(self.path))
        except OSError:
            return True  # the error is reported when the log is printed

    def _blocks(self, skip_holes: bool) -> Iterator[bytes]:
        fd = os.open(self.path, _FLAGS)
        try:
            found = os.fstat(fd)
            if not stat.S_ISREG(found.st_mode):
                raise OSError(None, "not a regular file; move it away")
            left = found.st_size  # pieces that overlap must not multiply the file
            for start, size in ((0, None),) if self.pieces is None else _pairs(self.pieces):
                end = None if size is None else start + min(size, left)
                left -= size or 0
                while True:
                    start = _next_data(fd, start) if skip_holes else start
                    data = os.pread(fd, BLOCK if end is None else max(0, min(BLOCK, end - start)), start)
                    if not data:
                        break
                    yield data
                    start += len(data)
        finally:
            os.close(fd)


@dataclass
class LogStore:
    """The logs of a farm. `warnings` are messages about files that could not be read."""

    workdir: Workdir
    farm: str
    warnings: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._headless = logowner.owns(self.workdir, self.farm)

    def _log(self, task_id: int, path: str) -> Log:
        return Log(task_id, 0, path, farm=self.farm, headless=self._headless)

    def find(self, wanted: set[int]) -> dict[int, list[Log]]:
        """The logs of some tasks by ID, in the order of attempts."""
        found: dict[int, list[Log]] = {task_id: [] for task_id in wanted}
        for task_id in wanted:
            for path in self._paths(task_id):
                log = self._log(task_id, path)
                if self.workdir.has_own_logs or log.belongs_to_farm():
                    found[task_id].append(log)
        for log in self._logs_of_farmers(wanted):
            found[log.task_id].append(log)
        for logs in found.values():
            if len(logs) > 1:
                logs.sort(key=lambda log: log.attempt or _first_attempt(log))
        return found

    def _paths(self, task_id: int) -> list[str]:
        """`log_<ID>`. If a crash left none, the names that a log gets while a later attempt takes it over."""
        path = self.workdir.log(task_id)
        if os.path.lexists(path):
            return [path]
        return [aside for n in range(2, _LAST_ATTEMPT_ASIDE + 1) if os.path.lexists(aside := f"{path}.{n}")]

    def all(self, tasks: int) -> Iterator[Log]:
        """All logs of a farm with this number of tasks: first `log_<ID>` by ID, then those of each farmer."""
        numbers = (int(match[1]) for name in _names(self.workdir.logs) if (match := _LOG.fullmatch(name)))
        for task_id in sorted(number for number in numbers if number < tasks):
            yield self._log(task_id, self.workdir.log(task_id))
        for log in self._logs_of_farmers(None):
            if log.task_id < tasks:
                yield log

    def _logs_of_farmers(self, wanted: set[int] | None) -> Iterator[Log]:
        """The logs that are not in `log_<ID>`, of some tasks or (None) of all."""
        names = _names(self.workdir.packed)
        aside = set()
        for name in names:
            match = _SET_ASIDE.fullmatch(name)
            if match and self._is_of_farm(match[1]):
                log = Log(int(match[2]), int(match[3]), os.path.join(self.workdir.packed, name), match[1])
                aside.add((log.task_id, log.attempt))
                if wanted is None or log.task_id in wanted:
                    yield log
        for farmer in names:
            if _PACK.fullmatch(farmer) and self._is_of_farm(farmer):
                for log in self._packed(farmer, wanted):
                    if (log.task_id, log.attempt) not in aside:
                        yield log

    def _is_of_farm(self, farmer: str) -> bool:
        """Whether a farmer belongs to this farm: several farms may share a --logs-dir."""
        return os.path.exists(self.workdir.identity(farmer))

    def _packed(self, farmer: str, wanted: set[int] | None) -> Iterator[Log]:
        """The logs in a farmer's packed file, then the scratch files of attempts whose output it does not have.

        If all logs are wanted, each is yielded right after its last piece, to save memory.
        """
        path = self.workdir.pack(farmer)
        logs: dict[tuple[int, int], array[int]] = {}  # by task and attempt
        missing: dict[tuple[int, int], int] = {}  # bytes in pieces that must follow, by task and attempt
        scratch: dict[tuple[int, int], tuple[int, int]] = {}  # scratch file by task and attempt
        users: dict[tuple[int, int], tuple[int, int]] = {}  # task and attempt by scratch file
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
            scratch_path = self.workdir.scratch(farmer, slot, number)
            if (wanted is None or attempt[0] in wanted) and os.path.isfile(scratch_path):
                yield Log(*attempt, scratch_path, farmer)

    def _pieces(self, path: str) -> Iterator[tuple[packs.Head, int, int]]:
        """The pieces of a packed file, see `_PackReader.pieces`. An error becomes a warning."""
        try:
            with reading.opened(path) as fd:
                yield from _PackReader(fd, reading.regular(fd, path)).pieces()
        except FileNotFoundError:
            pass
        except OSError as error:
            if hit_a_limit(error):
                raise
            self.warnings.append(f"{path}: {error.strerror}; the output in it is not shown")


def sections_of_farm(blocks: Iterator[bytes], task_id: int, farm: bytes, headless: bool) -> Iterator[bytes]:
    """The sections of a `log_<ID>` below headers of one farm and, if `headless`, the text before all headers.

    The header of a first attempt at the start is omitted, as if the log belonged to this farm alone.
    """
    wanted, printed = headless, False
    rest = b""
    for data in chain(blocks, (b"",)):
        rest += data
        while match := packs.ATTEMPT_HEADER.search(rest):
            is_header = int(match[2]) == task_id  # if not, the task printed the log of another task
            text, rest = rest[: match.start() if is_header else match.end()], rest[match.end() :]
            if wanted and text:
                yield text
                printed = True
            if is_header:
                wanted = match[3] == farm
                if wanted and (printed or int(match[1]) > 1):
                    yield match[0]
                    printed = True
        # a header may start in this block and end in the next
        end = len(rest) if not data else max(0, len(rest) - packs.LONGEST_ATTEMPT_HEADER)
        if wanted and end:
            yield rest[:end]
            printed = True
        rest = rest[end:]


def recorded_modes(workdir: Workdir, state: State, wanted: set[int]) -> dict[int, tuple[int, str, bool]]:
    """From the results: the newest recorded attempt of each task, its `--logs` mode, and whether it succeeded."""
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
        pass  # the message about the missing log only gets shorter
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
    """The first attempt in a log file, according to its first line."""
    try:
        first = next(log.blocks(), b"")
    except OSError:
        return 1
    match = re.match(rb"=== taskfarmer: attempt (\d{1,9}) on ", first)
    return int(match[1]) if match else 1


class _PackReader:
    """Reads a packed file from head line to head line, without the output in between.

    If a piece is followed neither by a head line nor by the end of the file, it is torn: a full disk or a kill
    interrupted the write.
    """

    def __init__(self, fd: int, size: int) -> None:
        self._fd = fd
        self._end = size
        self._block = b""
        self._start = 0

    def pieces(self) -> Iterator[tuple[packs.Head, int, int]]:
        """Each head line, with the start and the size of its output. A torn piece ends at the next head line."""
        offset = self._search(0, self._end)
        head = self._head_at(offset)
        while head is not None:
            start = offset + head.length
            stop = offset = min(start + head.size, self._end)
            following = self._head_at(offset)
            if following is None and offset < self._end:  # a line feed is added to output without one
                offset += 1
                following = self._head_at(offset)
            if start + head.size > self._end or (following is None and offset < self._end):
                stop = self._search(start, stop)
                offset = self._search(stop, self._end)
                following = self._head_at(offset)
            yield head, start, stop - start
            head = following

    def _head_at(self, offset: int) -> packs.Head | None:
        position = offset - self._start
        if position < 0 or position + packs.LONGEST_HEAD > len(self._block):
            position = self._load(offset)
        return packs.parse_head(self._block, position) if offset < self._end else None

    def _load(self, offset: int) -> int:
        """Read a block. Return the position of `offset` in it."""
        self._block, self._start = os.pread(self._fd, _HEAD_BLOCK, offset), offset
        return 0

    def _search(self, offset: int, end: int) -> int:
        """The offset of the next head line before `end`, or `end`. After a torn piece it may be inside a line."""
        while offset < end:
            position = offset - self._start
            if position < 0 or position + packs.LONGEST_HEAD > len(self._block):
                offset = _next_data(self._fd, offset)
                position = self._load(offset)
            match = packs.HEAD.search(self._block, position)
            if match is not None:
                return min(self._start + match.start(), end)
            if len(self._block) < _HEAD_BLOCK:
                break
            offset = self._start + len(self._block) - packs.LONGEST_HEAD + 1
        return end


def _next_data(fd: int, offset: int) -> int:
    """The offset of the next data in a sparse file, so that a hole of a terabyte is skipped at once."""
    try:
        return os.lseek(fd, offset, os.SEEK_DATA)
    except OSError as error:
        return offset if error.errno != errno.ENXIO else os.fstat(fd).st_size
