"""The current status of a farm, as data. Reads only.

Whether a farmer on another node is dead can only be seen over time, so it is `unknown` here, with the age of its
heartbeat by this node's clock. Farmers detect dead farmers (`peers/watch.py`).
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

from taskfarmer.errors import Damaged, FarmError, StorageError, TaskFarmerError, remedy
from taskfarmer.farm import groups
from taskfarmer.formats.intervals import count_tasks, each_interval
from taskfarmer.formats.results import RECORDED_AS_FAILED, RETURNED, Result, parse_result, result_words
from taskfarmer.ledger import Ledger, State, results
from taskfarmer.ledger.segments import SegmentReader
from taskfarmer.ledger.state import Entry
from taskfarmer.peers import lockfacts
from taskfarmer.peers.heartbeat import running_of
from taskfarmer.peers.identity import Identity, load_identity, new_identity
from taskfarmer.storage import durable, locks
from taskfarmer.storage.layout import Workdir, epoch_number, is_revision
from taskfarmer.views import files

NEWEST = 10
FIRST_TAIL, SHORTEST_TAIL = 1 << 16, 1 << 12
LONGEST_TAILS = 32 << 20
"""Bytes of results to keep in memory while searching for failures; if there are more, they are read in blocks."""
LOST_PATIENCE = 2.0
"""Seconds to wait until a revision of another node is visible."""
CLOCK_SKEW = 600.0
"""Seconds by which the clocks of two nodes may differ without an outdated failure being shown."""

_SECOND_JOURNAL = re.compile(r"-r\d+$")

Verdict = Literal["alive", "gone", "unknown"]


@dataclass(frozen=True)
class FarmerStatus:
    """A registered farmer. `heartbeat_age` is approximate: the clocks of two nodes may differ."""

    farmer: str
    host: str | None
    pid: int | None
    job: str | None
    slots: int
    held: int
    running: int
    started: float | None
    verdict: Verdict
    evidence: str
    heartbeat_age: float | None


@dataclass(frozen=True)
class Failure:
    """A failed task and the outcome of its newest attempt. `signal` is 0 if no signal ended it."""

    task_id: int
    attempt: int
    farmer: str
    end: float
    outcome: str
    status: int
    signal: int
    command: bytes
    log: str


@dataclass(frozen=True)
class Status:
    workdir: str
    farm: str
    list_path: str
    handler: str
    lease: float
    group: str | None
    """The group whose members may work on the farm; None if it was created without `--shared-group`."""
    locks: str | None
    """The scope of locks, measured by farmers: `shared` between nodes, `local`, `unsupported`; None if unknown."""
    locks_between: list[str]
    revision: int
    tasks: int
    unprocessed: int
    held: int
    finished: int
    failed: int
    farmers: tuple[FarmerStatus, ...]
    failures: tuple[Failure, ...]
    warnings: tuple[str, ...]


def read_status(workdir: Workdir, ledger: Ledger) -> Status:
    """The current status of the farm."""
    state = _newest(workdir, ledger)
    warnings: list[str] = []
    me = new_identity(0, "", {})
    now = time.time()
    shared, between = lockfacts.load(workdir) or (None, [])
    return Status(
        workdir.path,
        state.farm,
        ledger.farm.list_path,
        ledger.farm.handler,
        ledger.farm.lease,
        groups.group_of(workdir) if ledger.farm.shared_group else None,
        shared,
        between,
        state.revision,
        state.tasks,
        state.unprocessed,
        state.held,
        state.finished,
        state.failed,
        tuple(_farmer(workdir, me, name, entry, now) for name, entry in sorted(state.farmers.items())),
        tuple(newest_failures(workdir, state, NEWEST, warnings)),
        (*warnings, *files.edited_by_hand(workdir)),
    )


class _RevisionLost(Damaged):
    """A revision newer than the newest one that can be read existed, and is missing."""


def _newest(workdir: Workdir, ledger: Ledger) -> State:
    """The newest revision; Damaged if there is evidence of a newer one that is lost: then the counts are outdated."""
    end = time.monotonic() + LOST_PATIENCE
    while True:
        state = ledger.refresh()
        lost = _lost(workdir, state)
        if lost is None:
            return state
        if time.monotonic() > end:
            raise _RevisionLost(
                f"{lost}: missing, so revision {state.revision} is not the newest; restore it from a snapshot of the "
                "file system, or run the list again, which continues from there with the recorded results. If only "
                f"{workdir.head} refers to it and is corrupt, remove that file"
            )
        time.sleep(0.1)


def _lost(workdir: Workdir, state: State) -> str | None:
    """The path of a missing epoch or revision newer than `state`; None without evidence of one."""
    if not os.path.isdir(workdir.epoch(state.epoch)):
        return workdir.epoch(state.epoch)
    try:
        epoch, number = durable.read(workdir.head).decode("ascii").split()
        newer = is_revision(number) and int(number) > state.revision and epoch_number(epoch) is not None
    except (OSError, ValueError):
        return None
    path = workdir.revision(epoch, int(number))
    return path if newer and os.path.isdir(workdir.epoch(epoch)) and not os.path.lexists(path) else None


# --- farmers -----------------------------------------------------------------------------------------


def _farmer(workdir: Workdir, me: Identity, name: str, entry: Entry, now: float) -> FarmerStatus:
    them = load_identity(workdir, name)
    age = _heartbeat_age(workdir, name, now)
    verdict, evidence = _verdict(workdir, me, name, them, age)
    return FarmerStatus(
        name,
        them.host if them else None,
        them.pid if them else None,
        them.job_name if them else None,
        entry.slots,
        count_tasks(each_interval(entry.claims)),
        len(running_of(workdir, name)),
        them.started if them else None,
        verdict,
        evidence,
        age,
    )


def _heartbeat_age(workdir: Workdir, farmer: str, now: float) -> float | None:
    try:
        return max(0.0, now - os.stat(workdir.alive(farmer)).st_mtime)
    except OSError:
        return None


def _verdict(
    workdir: Workdir, me: Identity, farmer: str, them: Identity | None, age: float | None
) -> tuple[Verdict, str]:
    if os.path.exists(workdir.farewell(farmer)):
        return "gone", "it left cleanly"
    if them is None:
        return "unknown", "no identity file"
    if them.shares_processes_with(me):
        runs = them.runs
        if runs:
            return "alive", f"process {them.pid} runs here"
        if runs is None:
            return "unknown", f"process {them.pid} exists here, but /proc does not show its owner"
        # tested last: a try for the lock of a running farmer could disturb its start
        if locks.alive_is_free(workdir.alive(farmer)):
            return "gone", f"process {them.pid} is gone"
        return "unknown", f"process {them.pid} is gone, but a process that it started still runs"
    if age is None:
        return "unknown", "no heartbeat"
    return "unknown", f"on another node; heartbeat about {age:.0f} s ago"


# --- failures ----------------------------------------------------------------------------------------


def newest_failures(workdir: Workdir, state: State, count: int, warnings: list[str]) -> list[Failure]:
    """Up to `count` failed tasks, the newest first.

    Reads the ends of the journals, and more of them only if necessary.
    """
    if not state.failed:
        return []
    try:
        journals = results.counted_journals(workdir, state)
    except OSError as error:
        raise StorageError(f"{workdir.results}: {error.strerror}; {remedy(error, results.RESTORE)}") from error
    open_tasks = _open_tasks(state)
    size = max(SHORTEST_TAIL, min(FIRST_TAIL, LONGEST_TAILS // max(1, len(journals))))
    while True:
        newest, seen_from = _tails(journals, size, warnings)
        failed = [
            (result, farmer)
            for result, farmer in newest.values()
            if result.outcome in RECORDED_AS_FAILED
            and result.end >= seen_from
            and result.task_id < len(open_tasks)
            and not open_tasks[result.task_id]
        ]
        if len(failed) >= min(count, state.failed) or seen_from == float("-inf"):
            break
        size *= 8
        if size * len(journals) > LONGEST_TAILS:
            failed = _search_all(workdir, state, count, warnings) or failed
            break
    failed.sort(key=lambda found: found[0].end, reverse=True)
    reader = SegmentReader(workdir)
    try:
        return [_failure(workdir, state, reader, *found, warnings) for found in failed[:count]]
    finally:
        reader.close()


def _open_tasks(state: State) -> bytearray:
    """By task ID: 1 if the task is unprocessed again or held, so that the result of an earlier attempt is outdated."""
    found = bytearray(state.tasks)
    for text in (state.returned, *(entry.claims for entry in state.farmers.values())):
        for one in each_interval(text):
            first = state.first_id(one)
            found[first : first + one.count] = b"\1" * one.count
    return found


def _search_all(workdir: Workdir, state: State, count: int, warnings: list[str]) -> list[tuple[Result, str]]:
    """The newest failures in all results, which are read twice so that memory does not grow with them."""
    newest: list[tuple[float, int, Result, str]] = []
    try:
        found = results.survey(workdir, state, LOST_PATIENCE)
        for name, lines in results.read_counted(workdir, state, LOST_PATIENCE):
            for words in results.checked_lines(workdir.journal(name), lines):
                task_id, end = int(words[0]), float(words[4])
                if words[5] not in RECORDED_AS_FAILED or found.place[task_id] != results.IS_FAILED:
                    continue
                if int(words[1]) == found.attempt[task_id] and (len(newest) < count or end > newest[0][0]):
                    newest.append((end, task_id, parse_result(words), _SECOND_JOURNAL.sub("", name)))
                    newest.sort(key=lambda one: one[:2])
                    del newest[:-count]
    except FarmError as error:
        warnings.append(f"{error}; older failures than those shown are missing")
    return [(result, farmer) for _, _, result, farmer in newest]


def _tails(
    journals: Mapping[str, tuple[str, int]], size: int, warnings: list[str]
) -> tuple[dict[int, tuple[Result, str]], float]:
    """The newest result of each task in the last `size` bytes that count of each journal.

    Also the time from which on no result is missing: a later attempt at a task ends later, so a result after that
    time cannot be outdated by one that was not read.
    """
    newest: dict[int, tuple[Result, str]] = {}
    seen_from = float("-inf")
    for name, (path, length) in journals.items():
        start = max(0, length - size)
        first = float("inf")
        for words in _results(path, start, length, warnings):
            first = min(first, float(words[4]))
            attempt = int(words[1])
            if attempt == 1 and words[5] not in RECORDED_AS_FAILED:
                continue  # a first attempt that did not fail outdates no other result
            known = newest.get(int(words[0]))
            if known is None or known[0].attempt <= attempt:
                newest[int(words[0])] = parse_result(words), _SECOND_JOURNAL.sub("", name)
        if start:
            seen_from = max(seen_from, first + CLOCK_SKEW)
    return newest, seen_from


def _results(path: str, start: int, stop: int, warnings: list[str]) -> Iterator[list[bytes]]:
    try:
        data = _read_range(path, start, stop)
    except OSError as error:
        text = f"{path}: {error.strerror or 'not readable'}; its failures are not shown"
        warnings += [text] if text not in warnings else []
        return
    for line in data.split(b"\n")[1 if start else 0 : -1]:
        words = result_words(line)
        if words is not None and words[5] != RETURNED:
            yield words


def _read_range(path: str, start: int, stop: int) -> bytes:
    try:
        return durable.read_range(path, start, stop)
    except FileNotFoundError:
        # an epoch turned in the meantime and closed the journal: the name of the file now contains its length
        return durable.read_range(f"{path}.{stop}", start, stop)


def _failure(
    workdir: Workdir, state: State, reader: SegmentReader, result: Result, farmer: str, warnings: list[str]
) -> Failure:
    command = b"?"
    number = state.segment_of(result.task_id)
    try:
        if number is not None:
            segment = state.segments[number]
            _, command = next(reader.tasks(segment, result.task_id - segment.first, 1))
    except TaskFarmerError as error:
        warnings += [str(error)] if str(error) not in warnings else []
    return Failure(
        result.task_id,
        result.attempt,
        farmer,
        result.end,
        result.outcome.decode("ascii"),
        result.status,
        result.signal,
        command,
        workdir.log(result.task_id),
    )
