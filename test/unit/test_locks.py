"""The farm's lock: how long it is waited for where it is stuck, and where it is only busy."""

from __future__ import annotations

import fcntl
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from farming import eventually

from taskfarmer.storage.locks import FarmLock


@contextmanager
def held_by_somebody(path: Path) -> Iterator[None]:
    fd = os.open(path, os.O_RDWR | os.O_CREAT)
    fcntl.flock(fd, fcntl.LOCK_EX)
    yield
    os.close(fd)


def waits(lock: FarmLock, patience: float) -> bool:
    """Whether the lock was had."""
    with lock.held(patience) as got:
        return got


def test_a_lock_that_one_process_keeps_is_waited_for_in_vain_until_it_is_free(tmp_path: Path) -> None:
    lock = FarmLock(str(tmp_path / "lock"))
    with held_by_somebody(tmp_path / "lock"):
        assert not waits(lock, 0.1)
        assert not waits(lock, 0.1)
        assert lock.in_vain == 2
    assert waits(lock, 0.1)
    assert lock.in_vain == 0


def test_a_lock_that_goes_from_hand_to_hand_is_not_waited_for_in_vain(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    lock = FarmLock(str(path))
    first = subprocess.Popen(["flock", "-F", path, "sh", "-c", f": > {tmp_path}/first; sleep 0.5"])
    eventually((tmp_path / "first").exists, "the first has it")
    second = subprocess.Popen(["flock", "-F", path, "sh", "-c", f": > {tmp_path}/second; exec sleep 1000"])
    try:
        lock.in_vain = 1
        assert not waits(lock, 4.0)
        assert (tmp_path / "second").exists()
        assert lock.in_vain == 0
        assert not waits(lock, 0.1)
        assert lock.in_vain == 1
    finally:
        for process in (first, second):
            process.terminate()
            process.wait()


def test_where_the_kernel_tells_no_holder_a_wait_is_in_vain(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lock = FarmLock(str(tmp_path / "lock"))
    monkeypatch.setattr("taskfarmer.storage.locks._holder", lambda path: None)
    with held_by_somebody(tmp_path / "lock"):
        assert not waits(lock, 0.1)
    assert lock.in_vain == 1


@pytest.mark.parametrize(("elsewhere", "seen"), [(False, True), (True, True), (True, False)])
def test_a_lock_that_nobody_here_has_and_that_is_refused_keeps_nodes_apart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, elsewhere: bool, seen: bool
) -> None:
    lock = FarmLock(str(tmp_path / "lock"))
    monkeypatch.setattr("taskfarmer.procfs.shows_whole_kernel", lambda: True)  # this test may run in a container
    if elsewhere:  # of a real one the kernel of this node knows nothing (test/sharing)
        monkeypatch.setattr("taskfarmer.storage.locks._holder", lambda path: b"" if seen else None)
    with held_by_somebody(tmp_path / "lock"):
        assert not lock.excludes
        assert not waits(lock, 0.2)
    assert lock.excludes is (elsewhere and seen)
    assert waits(lock, 0.1)
    assert lock.excludes is (elsewhere and seen)


def test_a_lock_that_a_container_beside_this_one_may_have_proves_nothing_about_nodes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lock = FarmLock(str(tmp_path / "lock"))
    monkeypatch.setattr("taskfarmer.procfs.shows_whole_kernel", lambda: False)
    monkeypatch.setattr("taskfarmer.storage.locks._holder", lambda path: b"")
    with held_by_somebody(tmp_path / "lock"):
        assert not waits(lock, 0.2)
    assert not lock.excludes
