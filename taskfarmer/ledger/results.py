"""Results of attempts, read from the journals.

A journal counts up to the byte that the state records, and no further: the lines after it were not committed yet, or
were written by an expelled farmer. A decision based on results needs every counted byte of every farmer. `survey`
retries until it sees them all, because a file system may show old contents of other nodes' files.
"""

from __future__ import annotations

import errno
import math
import os
import re
import time
from array import array
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TypeVar

from taskfarmer.errors import Damaged, FarmError, FarmGone, StaleView, StorageError, remedy
from taskfarmer.formats import limits
from taskfarmer.formats.durations import time_class
from taskfarmer.formats.intervals import Interval, each_interval, merge_adjacent, parse_intervals
from taskfarmer.formats.results import FINISHED, OUTCOMES, RECORDED_AS_FAILED, RETURNED, result_words
from taskfarmer.ledger.state import Settlement, State
from taskfarmer.storage import durable, reading
from taskfarmer.storage.eventually import FOR_CONTENTS, wait_until_visible
from taskfarmer.storage.layout import Workdir

_JOURNAL = re.compile(r"(.+-[0-9a-f]{8}(?:-r[0-9]+)?)(?:\.([0-9]{1,18}))?")
_NOT_READABLE = (errno.ESTALE, errno.EACCES, errno.EISDIR, errno.EINVAL, errno.ELOOP, errno.ENOTDIR)
"""Errors of one file, not of the disk: it is stale, not ours to open, or not a regular file."""
RESTORE = "restore it from a snapshot of the file system, or start a new farm in another work directory (-w)"
STATE_IS_NEW_FOR = 2.0
"""Seconds for which files are compared with the same state: the state may be stale, not the files."""
UNPROCESSED, HELD, IS_FINISHED, IS_FAILED = 0, 1, 2, 3


T = TypeVar("T")


def with_newer_states(action: Callable[[], T], patience: float = FOR_CONTENTS) -> T:
    """The result of `action`, which compares the newest state with the journals; it is repeated while they disagree.

    A file system with caches may show new journals with an old ledger, so `action` has to read the newest state each
    time.
    """
    return wait_until_visible(action, patience, 0.25)


def counted_journals(workdir: Workdir, state: State) -> dict[str, tuple[str, int]]:
    """Name -> (path, counted bytes) of every journal that is not empty.

    Lengths come from the state; if it has forgotten them, from the names of the files.
    """
    wanted = {entry.journal: entry.bytes for entry in state.farmers.values()}
    wanted.update(state.departed)
    found: dict[str, tuple[str, int]] = {}
    for name in os.listdir(workdir.results):
        match = _JOURNAL.fullmatch(name)
        if match is None:
            continue
        journal = match[1]
        size = wanted[journal] if journal in wanted else int(match[2] or 0)
        if size:
            found[journal] = (os.path.join(workdir.results, name), size)
    return found


def _nothing() -> None:
    """The default for `between`."""


def read_counted(
    workdir: Workdir,
    state: State,
    patience: float = FOR_CONTENTS,
    agrees_within: float = math.inf,
    between: Callable[[], None] = _nothing,
) -> Iterator[tuple[str, Iterator[bytes]]]:
    """The name of every journal, with the lines in exactly its counted bytes.

    A journal may have gigabytes, so its lines are read as they are consumed. StaleView if the names and lengths of the
    journals do not agree with the state within `patience` and `agrees_within` seconds; Damaged if a journal stays
    shorter. `between` is called between file operations.
    """
    end = time.monotonic() + patience
    found = wait_until_visible(lambda: _all_journals(workdir, state), min(patience, agrees_within), 0.25)
    for name, (path, size) in found.items():
        between()
        yield name, _exactly(workdir, name, path, size, end)


def _all_journals(workdir: Workdir, state: State) -> dict[str, tuple[str, int]]:
    """The counted journals; StaleView if their lengths do not add up to the number of bytes in the state."""
    try:
        found = durable.retry_stale(lambda: counted_journals(workdir, state))
    except OSError as error:
        raise _unreadable(workdir, error) from error
    total = sum(size for _, size in found.values())
    if total == state.journaled:
        return found
    raise StaleView(
        f"{_first_missing(workdir, state, found)}: missing, or this node sees an old directory: "
        f"{total} bytes of results are visible, but the ledger counts {state.journaled}; {RESTORE}"
    )


def _unreadable(workdir: Workdir, error: OSError) -> FarmError:
    """The error if the names of the journals cannot be read."""
    if error.errno in (errno.ENOENT, errno.ENOTDIR):
        return FarmGone(f"{workdir.results}: {error.strerror}; the farm's results are gone; {RESTORE}")
    return StorageError(f"{workdir.results}: {error.strerror}; results cannot be read; {remedy(error, RESTORE)}")


def _first_missing(workdir: Workdir, state: State, found: Mapping[str, tuple[str, int]]) -> str:
    """A counted journal that is not visible; the directory if only its name contains its length."""
    wanted = {entry.journal: entry.bytes for entry in state.farmers.values()} | dict(state.departed)
    missing = sorted(name for name, size in wanted.items() if size and name not in found)
    return workdir.journal(missing[0]) if missing else workdir.results


def find_renamed(workdir: Workdir, name: str) -> str:
    """The path of a journal after an epoch has changed its name. Its length may be newer than our state."""
    try:
        entries = durable.retry_stale(lambda: os.listdir(workdir.results))
    except OSError as error:
        raise _unreadable(workdir, error) from error
    for entry in entries:
        match = _JOURNAL.fullmatch(entry)
        if match is not None and match[1] == name:
            return os.path.join(workdir.results, entry)
    return workdir.journal(name)


def _exactly(workdir: Workdir, name: str, path: str, size: int, end: float) -> Iterator[bytes]:
    """The lines in the first `size` bytes of a journal, waiting for them until `end`."""
    done = there = 0
    while True:
        try:
            with reading.opened(path) as fd:
                there = reading.regular(fd, path)
                if there >= size:
                    os.lseek(fd, done, os.SEEK_SET)
                    for line in reading.lines(fd, limits.RESULT, size - done):
                        done += len(line)
                        yield line
        except FileNotFoundError:
            path, there = find_renamed(workdir, name), 0
        except OSError as error:
            if error.errno not in reading.STALE:
                why = error.strerror or "not a file"
                raise StorageError(f"{path}: {why}; results cannot be read; {remedy(error, RESTORE)}") from error
        if done == size:
            return
        if time.monotonic() > end:
            raise Damaged(f"{path}: {there} bytes, but the ledger counts {size}; run: taskfarmer check WORKDIR")
        time.sleep(0.1)


def checked_lines(path: str, lines: Iterable[bytes]) -> Iterator[list[bytes]]:
    """The words of each line; Damaged if a line is corrupt."""
    for number, line in enumerate(lines, start=1):
        words = result_words(line[:-1])
        if not line.endswith(b"\n"):
            raise Damaged(f"{path}: line {number} is incomplete or too long; {RESTORE}")
        if words is None or words[5] not in OUTCOMES:
            raise Damaged(f"{path}: line {number} is corrupt (checksum mismatch); {RESTORE}")
        yield words


@dataclass
class Survey:
    """The place of each task of a farm, as arrays by task ID.

    `place` is UNPROCESSED, HELD, IS_FINISHED or IS_FAILED; `attempt` is the newest recorded attempt.
    """

    place: bytearray
    attempt: array[int]
    finished: int = 0
    failed: int = 0


def survey(
    workdir: Workdir,
    state: State,
    patience: float = FOR_CONTENTS,
    agrees_within: float = math.inf,
    between: Callable[[], None] = _nothing,
) -> Survey:
    """Determine the place of each task from the state and every counted byte of results.

    The errors are those of `read_counted`, and Damaged if the results do not add up to the state.
    """
    found = Survey(bytearray(state.tasks), array("L", [0]) * state.tasks)
    for name, lines in read_counted(workdir, state, patience, agrees_within, between):
        for words in checked_lines(workdir.journal(name), lines):
            _record(found, workdir.journal(name), words)
    _unrecord(found, state)
    found.finished = found.place.count(IS_FINISHED)
    found.failed = found.place.count(IS_FAILED)
    if (found.finished, found.failed) != (state.finished, state.failed):
        raise Damaged(
            f"{workdir.results}: {found.finished} finished and {found.failed} failed in the results, but "
            f"{state.finished} and {state.failed} in the ledger; run: taskfarmer check WORKDIR"
        )
    return found


def _record(found: Survey, path: str, words: list[bytes]) -> None:
    if words[5] == RETURNED:
        return
    task_id, attempt = int(words[0]), int(words[1])
    if task_id >= len(found.place):
        raise Damaged(f"{path}: a result for task {task_id}, which does not exist in this farm")
    if attempt >= found.attempt[task_id]:
        found.attempt[task_id] = attempt
        found.place[task_id] = IS_FINISHED if words[5] == FINISHED else IS_FAILED


def _unrecord(found: Survey, state: State) -> None:
    """Mark tasks that are unprocessed or held in the state as such, whatever was recorded of earlier attempts."""
    texts = [(UNPROCESSED, state.returned), *((HELD, entry.claims) for entry in state.farmers.values())]
    for place, text in texts:
        for one in each_interval(text):
            first = state.first_id(one)
            found.place[first : first + one.count] = bytes([place]) * one.count


def uncounted_results(
    workdir: Workdir, state: State, farmer: str, journal: str | None = None, promised: int = 0
) -> Settlement:
    """The results of a dead farmer beyond the counted bytes: the unbroken run of complete lines for its claims.

    The file is synced first, so that the results survive. Nothing is changed. `journal` differs from the journal in the
    ledger if the farmer continued in a new one; StaleView if fewer than its `promised` bytes are visible.
    """
    entry = state.farmers[farmer]
    if journal is None or journal == entry.journal:
        journal, counted = entry.journal, entry.bytes
    else:
        counted = 0
    name, path, least = journal, workdir.journal(journal), max(counted, promised)
    claims = parse_intervals(entry.claims)
    try:
        durable.sync_file(path)
        return durable.retry_stale(lambda: _beyond(path, name, counted, least, _claimed(state, claims)))
    except FileNotFoundError:
        if least:
            raise StaleView(f"{path}: not visible, but {least} bytes of it count; {RESTORE}") from None
        return Settlement(journal, 0)
    except OSError as error:
        kind = StaleView if error.errno in _NOT_READABLE else StorageError
        advice = f"a dead farmer's results cannot be read; {remedy(error, RESTORE)}"
        raise kind(f"{path}: {error.strerror}; {advice}") from error


def _beyond(path: str, journal: str, counted: int, least: int, held: dict[tuple[int, int], Interval]) -> Settlement:
    """The results after the first `counted` bytes of a journal, of which at least `least` bytes must be visible."""
    with reading.opened(path) as fd:
        if reading.regular(fd, path) < least:
            raise StaleView(f"{path}: fewer bytes are visible than the {least} that count; {RESTORE}")
        os.lseek(fd, counted, os.SEEK_SET)
        return _unbroken(journal, counted, reading.lines(fd, limits.RESULT), held)


def _claimed(state: State, claims: Iterable[Interval]) -> dict[tuple[int, int], Interval]:
    """(task ID, attempt) -> the one-task interval, for all tasks that a farmer holds."""
    held = {}
    for one in claims:
        first = state.first_id(one)
        for place in range(one.count):
            held[first + place, one.attempt] = one.slice(place, 1)
    return held


def _unbroken(journal: str, start: int, lines: Iterable[bytes], held: dict[tuple[int, int], Interval]) -> Settlement:
    """The effect of the first complete lines, from byte `start` of the journal on, on the held tasks."""
    done: list[Interval] = []
    finished = failed = 0
    seconds = 0.0
    times: Counter[int] = Counter()
    size = start
    for line in lines:
        words = result_words(line[:-1]) if line.endswith(b"\n") else None
        if words is None:
            break
        if words[5] != RETURNED:
            one = held.pop((int(words[0]), int(words[1])), None)
            if one is None:
                break
            done.append(one)
            finished += words[5] == FINISHED
            failed += words[5] in RECORDED_AS_FAILED
        took = float(words[4]) - float(words[3])
        if words[5] == FINISHED and took >= 1:
            times[time_class(took)] += 1
        seconds += took
        size += len(line)
    return Settlement(
        journal,
        size,
        tuple(merge_adjacent(done)),
        finished=finished,
        failed=failed,
        seconds=round(seconds, 3),
        ended=len(done),
        times=times,
    )
