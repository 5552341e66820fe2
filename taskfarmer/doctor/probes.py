"""What one node can prove alone: each probe works in a directory of its own and returns what it saw.

A probe ends after a bounded time on any file system that answers at all. It leaves files in its directory;
who made that directory removes it.
"""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial

from taskfarmer.doctor.apart import ForkedCall, Line
from taskfarmer.doctor.findings import Exclusion, Links, Renames, Times
from taskfarmer.peers.trylock import try_lock
from taskfarmer.storage import durable, locks

RACERS = 4
NAMES = 16
LONGEST = 1.2
"""Seconds that a probe may take, once the least number of its rounds is done."""
_LEAST = 3
_SIZES = (100, 9000)
_LOOKS = 50
"""A millisecond apart at least: FUSE file systems show no file for a moment, the longer the busier the node is."""
_YES = "yes"


# --- names --------------------------------------------------------------------------------------------


def links(folder: str, racers: int = RACERS, names: int = NAMES) -> Links:
    """Let processes race for names as farmers do for revisions, and read who won each."""
    with ExitStack() as started:
        runners = [started.enter_context(ForkedCall(partial(_race, folder, names, number))) for number in range(racers)]
        for runner in runners:
            runner.nod()
        replies: list[list[str]] = [runner.result() for runner in runners]
    won = [_winner(folder, name) for name in range(names)]
    if all(winner is None for winner in won):
        return Links(names, racers, 0, 0, replies[0][0] if replies[0] else "no reply")
    forked = unheard = raced = 0
    for name, winner in enumerate(won):
        told = [number for number, reply in enumerate(replies) if name < len(reply) and reply[name] == _YES]
        if winner is None and not any(name < len(reply) for reply in replies):
            continue
        raced += 1
        forked += winner is None or any(number != winner for number in told)
        unheard += winner is not None and not told
    forked += not _stays(folder, won)
    return Links(raced, racers, forked, unheard)


def _race(folder: str, names: int, number: int, line: Line) -> list[str]:
    line.wait()
    replies = []
    end = time.monotonic() + LONGEST
    for name in range(names):
        if name >= _LEAST and time.monotonic() > end:
            break
        prepared = os.path.join(folder, f"prepared-{name}-{number}")
        durable.prepare(prepared, b"%d\n" % number)
        answer = durable.publish(prepared, os.path.join(folder, f"name-{name}"))
        replies.append(_YES if answer is None else answer.strerror or str(answer.errno))
    return replies


def _winner(folder: str, name: int) -> int | None:
    try:
        return int(durable.read(os.path.join(folder, f"name-{name}")))
    except (FileNotFoundError, ValueError):
        return None


def _stays(folder: str, won: list[int | None]) -> bool:
    """Whether a name that is taken is refused to one who comes late, and keeps what it has."""
    name = next(number for number, winner in enumerate(won) if winner is not None)
    prepared = os.path.join(folder, "prepared-late")
    durable.prepare(prepared, b"%d\n" % len(won))
    answer = durable.publish(prepared, os.path.join(folder, f"name-{name}"))
    return answer is not None and _winner(folder, name) == won[name]


def renames(folder: str) -> Renames:
    """Replace a file again and again while another process reads it."""
    path = os.path.join(folder, "replaced")
    contents = [bytes([65 + place]) * size for place, size in enumerate(_SIZES)]
    durable.replace(path, contents[0])
    with ForkedCall(partial(_read_all_the_time, path, contents)) as reader:
        reader.wait()
        end = time.monotonic() + LONGEST / 4
        replaced = 0
        while replaced < _LEAST or (replaced < 200 and time.monotonic() < end):
            replaced += 1
            durable.replace(path, contents[replaced % 2])
        reader.nod()
        reads, unseen, missing, torn = reader.result()
    return Renames(replaced, reads, unseen, missing, torn)


def _read_all_the_time(path: str, contents: list[bytes], line: Line) -> list[int]:
    reads = unseen = missing = torn = 0
    line.nod()
    while not line.gone():
        reads += 1
        looks = 0
        while looks < _LOOKS:
            try:
                torn += durable.read(path) not in contents
                break
            except FileNotFoundError:
                looks += 1
                time.sleep(0.001)
        missing += looks == _LOOKS
        unseen += 0 < looks < _LOOKS
    return [reads, unseen, missing, torn]


# --- locks --------------------------------------------------------------------------------------------


def exclusion(folder: str) -> Exclusion:
    """Whether a `flock` of one process keeps another one of this node out, and lets it in afterwards."""
    path = os.path.join(folder, f"locked-{durable.random_name()}")
    durable.prepare(path, b"")
    with ForkedCall(partial(_hold, path)) as holder:
        holder.wait()
        meanwhile = try_lock(path)
        holder.nod()
        held: bool = holder.result()
    if not held or meanwhile == "unsupported":
        return "unsupported"
    return "excludes" if meanwhile == "refused" and try_lock(path) == "granted" else "fails"


def _hold(path: str, line: Line) -> bool:
    fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    held = locks.hold_alive(fd)
    line.nod()
    line.wait()
    return held


# --- times --------------------------------------------------------------------------------------------


def commits(folder: str) -> Times:
    """How long a commit takes: prepare and sync a file, link it, sync the directory."""

    def commit(number: int) -> None:
        prepared = os.path.join(folder, "revision")
        durable.prepare(prepared, bytes(1000))
        durable.publish(prepared, os.path.join(folder, f"revision-{number}"))
        durable.sync_directory(folder)

    return _timed(commit, 30)


def lock_cycles(folder: str) -> Times | None:
    """How long it takes to take and leave the farm's lock; None where it cannot be taken."""
    path = os.path.join(folder, "cycle")
    lock = locks.FarmLock(path)
    got = []

    def cycle(_: int) -> None:
        with lock.held(patience=0.0) as held:
            got.append(held)

    times = _timed(cycle, 50)
    lock.close()  # on FUSE the folder of an open file cannot be removed
    return times if all(got) else None


def syncs(folder: str) -> tuple[Times, bool]:
    """How long `fsync` of a small file takes, and whether a directory can be synced."""
    path = os.path.join(folder, "synced")
    durable.prepare(path, b"")
    fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:

        def sync(number: int) -> None:
            os.pwrite(fd, bytes([number]) * 100, 0)
            durable.sync(fd)

        times = _timed(sync, 20)
    finally:
        os.close(fd)
    return times, _directory_syncs(folder)


def _directory_syncs(folder: str) -> bool:
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        durable.sync(fd)
    except OSError:
        return False
    finally:
        os.close(fd)
    return True


def server_clock(folder: str) -> float:
    """By how much the clock that stamps files is ahead of ours."""
    path = os.path.join(folder, "stamped")
    before = time.time()
    durable.prepare(path, b"now\n")
    after = time.time()
    stamp = os.stat(path).st_mtime
    return stamp - min(max(stamp, before), after)


def _timed(action: Callable[[int], None], most: int) -> Times:
    taken: list[float] = []
    end = time.monotonic() + LONGEST / 4
    while len(taken) < _LEAST or (len(taken) < most and time.monotonic() < end):
        start = time.monotonic()
        action(len(taken))
        taken.append(time.monotonic() - start)
    return Times(len(taken), statistics.median(taken), max(taken))
