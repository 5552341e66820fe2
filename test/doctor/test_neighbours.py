"""The checks of a farmer during its work: the proof with a neighbour's alive file, and the mounts."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from support.doctors import environment
from support.farming import eventually, mounts
from taskfarmer.peers.lockproof import LockProof
from taskfarmer.peers.lockproofs import prove_lock
from taskfarmer.storage.mountchecks import quick_checks

NEIGHBOUR = """
import os, sys, time
from taskfarmer.storage import locks
from taskfarmer.formats.sealed import sealed
fd = os.open(sys.argv[1], os.O_RDWR | os.O_CREAT)
held = sys.argv[2] == "holds" and locks.hold_alive(fd)
for beat in range(100_000):
    os.pwrite(fd, sealed({"beat": 100_000 + beat, "running": [], "held": held}), 0)
    time.sleep(0.02)
"""


@contextmanager
def neighbour(alive: Path, how: str = "holds") -> Iterator[subprocess.Popen[bytes]]:
    """A process that holds the lock on a file and writes heartbeats into it, as a farmer does."""
    process = subprocess.Popen([sys.executable, "-c", NEIGHBOUR, str(alive), how], env=environment())
    try:
        eventually(lambda: alive.exists() and alive.read_bytes(), "the first heartbeat")
        yield process
    finally:
        process.kill()
        process.wait(20)


def proven(proof: LockProof, alive: Path) -> str:
    return eventually(lambda: prove_lock(proof, str(alive), time.monotonic()).replace("unknown", ""), "a verdict")


def test_a_neighbours_lock_is_found_to_be_shared_or_local(directory: Path, tmp_path: Path) -> None:
    with mounts(directory, tmp_path / "one", tmp_path / "two") as (one, two), neighbour(one / "it.alive"):
        assert proven(LockProof(staleness=0.2), two / "it.alive") == "local"
        assert proven(LockProof(staleness=0.2), one / "it.alive") == "shared"


@pytest.mark.parametrize("why", ["killed", "does not hold"])
def test_a_neighbour_that_is_dead_or_holds_no_lock_proves_nothing(directory: Path, why: str) -> None:
    alive = directory / "it.alive"
    proof = LockProof(staleness=0.0)
    with neighbour(alive, "holds" if why == "killed" else "nothing") as process:
        before = alive.read_bytes()
        prove_lock(proof, str(alive), 0.0)
        eventually(lambda: alive.read_bytes() != before, "another heartbeat")
        if why == "killed":
            process.kill()
            process.wait(20)
        verdicts = {prove_lock(proof, str(alive), float(second)) for second in range(1, 1000)}
    assert verdicts == {"unknown"}


def test_the_quick_check_writes_nothing_and_names_the_file_system(directory: Path) -> None:
    before = directory.stat().st_mtime_ns
    checks = quick_checks(str(directory), str(directory))
    assert checks[0].name == "file system"
    assert " on /" in checks[0].found
    assert directory.stat().st_mtime_ns == before
    assert list(directory.iterdir()) == []
