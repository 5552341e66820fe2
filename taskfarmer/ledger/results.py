"""Results: what was run, read back out of the journals.

A journal counts up to the byte that the state says, and not a byte further: behind that stand lines
that were not committed yet, or that a ghost wrote. Whoever decides anything from results must see
every byte that counts, of every farmer; `survey` looks again until it does, because a file system may
show other nodes' files as they were seconds ago.
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
"""Errors of one file, not of the disk: it is old, not ours to open, or no regular file."""
RESTORE = "restore it from a snapshot of the file system, or start anew in another work directory (-w)"
STATE_IS_NEW_FOR = 2.0
"""Seconds for which files are compared with the same state: the state may be the one that is old, not the files."""
UNPROCESSED, HELD, IS_FINISHED, IS_FAILED = 0, 1, 2, 3


T = TypeVar("T")


def with_newer_states(action: Callable[[], T], patience: float = FOR_CONTENTS) -> T:
    """The result of `action`, which compares the newest state with the journals; called again while they disagree.

    A file system with caches may show new journals beside an old ledger, so each call has to look for a newer state.
    """
    return wait_until_visible(action, patience, 0.25)


def counted_journals(workdir: Workdir, state: State) -> dict[str, tuple[str, int]]:
    """Name -> (path, bytes that count) of every journal with anything in it.

    Lengths come from the state; those that it has forgotten, from the names of the files.
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
    """Between two file operations there is nothing to do."""


def read_counted(
    workdir: Workdir,
    state: State,
    patience: float = FOR_CONTENTS,
    agrees_within: float = math.inf,
    between: Callable[[], None] = _nothing,
) -> Iterator[tuple[str, Iterator[bytes]]]:
    """Every journal's name and the lines in exactly its bytes that count.

    A journal may have gigabytes: it is read as its lines are taken. StaleView if the names and lengths of the journals
    do not agree with the state, within `patience` seconds and `agrees_within`; Damaged if a journal stays shorter.
    `between` is called between file operations.
    """
    end = time.monotonic() + patience
    found = wait_until_visible(lambda: _all_journals(workdir, state), min(patience, agrees_within), 0.25)
    for name, (path, size) in found.items():
        between()
        yield name, _exactly(workdir, name, path, size, end)


def _all_journals(workdir: Workdir, state: State) -> dict[str, tuple[str, int]]:
    """The counted journals; StaleView if their lengths do not add up to the bytes that the state counts."""
    try:
        found = durable.retry_stale(lambda: counted_journals(workdir, state))
    except OSError as error:
        raise _unreadable(workdir, error) from error
    total = sum(size for _, size in found.values())
    if total == state.journaled:
        return found
    raise StaleView(
        f"{_first_missing(workdir, state, found)}: missing, or this node sees an old directory: "
        f"{total} bytes of results can be seen where the ledger counts {state.journaled}; {RESTORE}"
    )


def _unreadable(workdir: Workdir, error: OSError) -> FarmError:
    """The error to raise where the names of the journals cannot be read."""
    if error.errno in (errno.ENOENT, errno.ENOTDIR):
        return FarmGone(f"{workdir.results}: {error.strerror}; the farm's results are gone; {RESTORE}")
    return StorageError(f"{workdir.results}: {error.strerror}; results cannot be read; {remedy(error, RESTORE)}")


def _first_missing(workdir: Workdir, state: State, found: Mapping[str, tuple[str, int]]) -> str:
    """A journal that counts and cannot be seen; the folder where only the name of the file told that it counts."""
    wanted = {entry.journal: entry.bytes for entry in state.farmers.values()} | dict(state.departed)
    missing = sorted(name for name, size in wanted.items() if size and name not in found)
    return workdir.journal(missing[0]) if missing else workdir.results


def find_renamed(workdir: Workdir, name: str) -> str:
    """Where a journal is since an epoch turned. It may have grown beyond our state before its length was its name."""
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
    """The lines in the first `size` bytes of a journal, which are waited for until `end`."""
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
                why = error.strerror or "no file to read"
                raise StorageError(f"{path}: {why}; results cannot be read; {remedy(error, RESTORE)}") from error
        if done == size:
            return
        if time.monotonic() > end:
            raise Damaged(f"{path}: {there} bytes where the ledger counts {size}; run: taskfarmer check WORKDIR")
        time.sleep(0.1)


def checked_lines(path: str, lines: Iterable[bytes]) -> Iterator[list[bytes]]:
    """The words of each line; Damaged where one is not what was written."""
    for number, line in enumerate(lines, start=1):
        words = result_words(line[:-1])
        if not line.endswith(b"\n"):
            raise Damaged(f"{path}: line {number} of what counts has no end, or is too long; {RESTORE}")
        if words is None or words[5] not in OUTCOMES:
            raise Damaged(f"{path}: line {number} is not what was written (wrong checksum); {RESTORE}")
        yield words


@dataclass
class Survey:
    """Where each task of a farm is, and what became of it: arrays by task ID.

    `place` is UNPROCESSED, HELD, IS_FINISHED or IS_FAILED; `attempt` the newest recorded attempt.
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
    """Put every task into its place, from the state and from every byte of results that counts.

    Errors are those of `read_counted`, and Damaged if the results do not add up to the state.
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
            f"{workdir.results}: results say {found.finished} finished and {found.failed} failed, the ledger says "
            f"{state.finished} and {state.failed}; run: taskfarmer check WORKDIR"
        )
    return found


def _record(found: Survey, path: str, words: list[bytes]) -> None:
    if words[5] == RETURNED:
        return
    task_id, attempt = int(words[0]), int(words[1])
    if task_id >= len(found.place):
        raise Damaged(f"{path}: a result for task {task_id}, which this farm does not have")
    if attempt >= found.attempt[task_id]:
        found.attempt[task_id] = attempt
        found.place[task_id] = IS_FINISHED if words[5] == FINISHED else IS_FAILED


def _unrecord(found: Survey, state: State) -> None:
    """Tasks that the ledger has elsewhere are there, whatever an earlier attempt came to."""
    texts = [(UNPROCESSED, state.returned), *((HELD, entry.claims) for entry in state.farmers.values())]
    for place, text in texts:
        for one in each_interval(text):
            first = state.first_id(one)
            found.place[first : first + one.count] = bytes([place]) * one.count


def uncounted_results(
    workdir: Workdir, state: State, farmer: str, journal: str | None = None, promised: int = 0
) -> Settlement:
    """What a dead farmer recorded beyond what counts: the unbroken run of whole lines of its claims.

    The file is synced first, so that what is counted stays. Nothing is changed. `journal` is another one than the
    ledger knows if the farmer went on in a fresh one; StaleView if fewer than the `promised` bytes of it can be seen.
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
            raise StaleView(f"{path}: cannot be seen, but {least} bytes of it count; {RESTORE}") from None
        return Settlement(journal, 0)
    except OSError as error:
        kind = StaleView if error.errno in _NOT_READABLE else StorageError
        what = f"a dead farmer's results cannot be read; {remedy(error, RESTORE)}"
        raise kind(f"{path}: {error.strerror}; {what}") from error


def _beyond(path: str, journal: str, counted: int, least: int, held: dict[tuple[int, int], Interval]) -> Settlement:
    """The results behind the first `counted` bytes of a journal, of which `least` bytes at least must be seen."""
    with reading.opened(path) as fd:
        if reading.regular(fd, path) < least:
            raise StaleView(f"{path}: fewer bytes can be seen than the {least} that count; {RESTORE}")
        os.lseek(fd, counted, os.SEEK_SET)
        return _unbroken(journal, counted, reading.lines(fd, limits.RESULT), held)


def _claimed(state: State, claims: Iterable[Interval]) -> dict[tuple[int, int], Interval]:
    """(task ID, attempt) -> the one-task interval, for what a farmer holds."""
    held = {}
    for one in claims:
        first = state.first_id(one)
        for place in range(one.count):
            held[first + place, one.attempt] = one.slice(place, 1)
    return held


def _unbroken(journal: str, start: int, lines: Iterable[bytes], held: dict[tuple[int, int], Interval]) -> Settlement:
    """What the first whole lines, which begin at byte `start` of the journal, tell of what is held."""
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
