"""Tests that one node can run alone: each probe works in the given directory and returns its results.

A probe takes a bounded time on any file system that responds at all. It leaves files in its directory, which the
caller removes.
"""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial

from taskfarmer.doctor.apart import Channel, ForkedCall
from taskfarmer.doctor.findings import Exclusion, Links, Renames, Times
from taskfarmer.peers.trylock import try_lock
from taskfarmer.storage import durable, locks

RACERS = 4
NAMES = 16
LONGEST = 1.2
"""Seconds that a probe may take after its minimum number of rounds."""
_LEAST = 3
_SIZES = (100, 9000)
_TRIES = 50
"""Reads, at least a millisecond apart, before a file counts as missing: FUSE hides it for a moment on a busy node."""
_YES = "yes"


# --- names --------------------------------------------------------------------------------------------


def links(folder: str, racers: int = RACERS, names: int = NAMES) -> Links:
    """Let processes race for names, as farmers do for revisions, and read the winner of each."""
    with ExitStack() as started:
        runners = [started.enter_context(ForkedCall(partial(_race, folder, names, number))) for number in range(racers)]
        for runner in runners:
            runner.notify()
        replies: list[list[str]] = [runner.result() for runner in runners]
    won = [_winner(folder, name) for name in range(names)]
    if all(winner is None for winner in won):
        return Links(names, racers, 0, 0, replies[0][0] if replies[0] else "no reply")
    forked = unheard = raced = 0
    for name, winner in enumerate(won):
        accepted = [number for number, reply in enumerate(replies) if name < len(reply) and reply[name] == _YES]
        if winner is None and not any(name < len(reply) for reply in replies):
            continue
        raced += 1
        forked += winner is None or any(number != winner for number in accepted)
        unheard += winner is not None and not accepted
    forked += not _is_kept(folder, won)
    return Links(raced, racers, forked, unheard)


def _race(folder: str, names: int, number: int, channel: Channel) -> list[str]:
    channel.wait()
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


def _is_kept(folder: str, won: list[int | None]) -> bool:
    """Whether a late attempt to link an existing name is rejected, and the file keeps its contents."""
    name = next(number for number, winner in enumerate(won) if winner is not None)
    prepared = os.path.join(folder, "prepared-late")
    durable.prepare(prepared, b"%d\n" % len(won))
    answer = durable.publish(prepared, os.path.join(folder, f"name-{name}"))
    return answer is not None and _winner(folder, name) == won[name]


def renames(folder: str) -> Renames:
    """Replace a file repeatedly while another process reads it."""
    path = os.path.join(folder, "replaced")
    contents = [bytes([65 + place]) * size for place, size in enumerate(_SIZES)]
    durable.replace(path, contents[0])
    with ForkedCall(partial(_read_repeatedly, path, contents)) as reader:
        reader.wait()
        end = time.monotonic() + LONGEST / 4
        replaced = 0
        while replaced < _LEAST or (replaced < 200 and time.monotonic() < end):
            replaced += 1
            durable.replace(path, contents[replaced % 2])
        reader.notify()
        reads, unseen, missing, torn = reader.result()
    return Renames(replaced, reads, unseen, missing, torn)


def _read_repeatedly(path: str, contents: list[bytes], channel: Channel) -> list[int]:
    reads = unseen = missing = torn = 0
    channel.notify()
    while not channel.notified():
        reads += 1
        tries = 0
        while tries < _TRIES:
            try:
                torn += durable.read(path) not in contents
                break
            except FileNotFoundError:
                tries += 1
                time.sleep(0.001)
        missing += tries == _TRIES
        unseen += 0 < tries < _TRIES
    return [reads, unseen, missing, torn]


# --- locks --------------------------------------------------------------------------------------------


def exclusion(folder: str) -> Exclusion:
    """Whether a `flock` excludes another process of this node, and can be taken by it afterwards."""
    path = os.path.join(folder, f"locked-{durable.random_name()}")
    durable.prepare(path, b"")
    with ForkedCall(partial(_hold, path)) as holder:
        holder.wait()
        meanwhile = try_lock(path)
        holder.notify()
        held: bool = holder.result()
    if not held or meanwhile == "unsupported":
        return "unsupported"
    return "excludes" if meanwhile == "refused" and try_lock(path) == "granted" else "fails"


def _hold(path: str, channel: Channel) -> bool:
    fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    held = locks.hold_alive(fd)
    channel.notify()
    channel.wait()
    return held


# --- times --------------------------------------------------------------------------------------------


def commits(folder: str) -> Times:
    """The duration of a commit: prepare and sync a file, link it, sync the directory."""

    def commit(number: int) -> None:
        prepared = os.path.join(folder, "revision")
        durable.prepare(prepared, bytes(1000))
        durable.publish(prepared, os.path.join(folder, f"revision-{number}"))
        durable.sync_directory(folder)

    return _timed(commit, 30)


def lock_cycles(folder: str) -> Times | None:
    """The time to lock and unlock the farm's lock; None if it cannot be locked."""
    path = os.path.join(folder, "cycle")
    lock = locks.FarmLock(path)
    acquired = []

    def cycle(_: int) -> None:
        with lock.held(patience=0.0) as held:
            acquired.append(held)

    times = _timed(cycle, 50)
    lock.close()  # on FUSE, a folder that contains an open file cannot be removed
    return times if all(acquired) else None


def syncs(folder: str) -> tuple[Times, bool]:
    """The duration of `fsync` of a small file, and whether a directory can be synced."""
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
    """How far the clock of file timestamps is ahead of this node's clock, in seconds."""
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
