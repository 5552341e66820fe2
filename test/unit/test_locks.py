"""The farm's lock: how long farmers wait for it if it is stuck, and if it is only busy."""

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
def held_by_another_process(path: Path) -> Iterator[None]:
    fd = os.open(path, os.O_RDWR | os.O_CREAT)
    fcntl.flock(fd, fcntl.LOCK_EX)
    yield
    os.close(fd)


def try_lock(lock: FarmLock, patience: float) -> bool:
    """Whether the lock was acquired."""
    with lock.held(patience) as got:
        return got


def test_waits_for_a_lock_that_one_process_keeps_count_as_failed_until_it_is_free(tmp_path: Path) -> None:
    lock = FarmLock(str(tmp_path / "lock"))
    with held_by_another_process(tmp_path / "lock"):
        assert not try_lock(lock, 0.1)
        assert not try_lock(lock, 0.1)
        assert lock.in_vain == 2
    assert try_lock(lock, 0.1)
    assert lock.in_vain == 0


def test_a_wait_for_a_lock_that_changes_hands_does_not_count_as_failed(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    lock = FarmLock(str(path))
    first = subprocess.Popen(["flock", "-F", path, "sh", "-c", f": > {tmp_path}/first; sleep 0.5"])
    eventually((tmp_path / "first").exists, "the first has it")
    second = subprocess.Popen(["flock", "-F", path, "sh", "-c", f": > {tmp_path}/second; exec sleep 1000"])
    try:
        lock.in_vain = 1
        assert not try_lock(lock, 4.0)
        assert (tmp_path / "second").exists()
        assert lock.in_vain == 0
        assert not try_lock(lock, 0.1)
        assert lock.in_vain == 1
    finally:
        for process in (first, second):
            process.terminate()
            process.wait()


def test_a_wait_counts_as_failed_if_the_kernel_shows_no_holder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lock = FarmLock(str(tmp_path / "lock"))
    monkeypatch.setattr("taskfarmer.storage.locks._holder", lambda path: None)
    with held_by_another_process(tmp_path / "lock"):
        assert not try_lock(lock, 0.1)
    assert lock.in_vain == 1


@pytest.mark.parametrize(("elsewhere", "seen"), [(False, True), (True, True), (True, False)])
def test_a_refused_lock_without_a_holder_on_this_node_excludes_other_nodes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, elsewhere: bool, seen: bool
) -> None:
    lock = FarmLock(str(tmp_path / "lock"))
    monkeypatch.setattr("taskfarmer.procfs.shows_whole_kernel", lambda: True)  # this test may run in a container
    if elsewhere:  # the kernel of this node does not show the holder of a real one (test/sharing)
        monkeypatch.setattr("taskfarmer.storage.locks._holder", lambda path: b"" if seen else None)
    with held_by_another_process(tmp_path / "lock"):
        assert not lock.excludes
        assert not try_lock(lock, 0.2)
    assert lock.excludes is (elsewhere and seen)
    assert try_lock(lock, 0.1)
    assert lock.excludes is (elsewhere and seen)


def test_a_lock_that_another_container_may_hold_proves_nothing_about_nodes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lock = FarmLock(str(tmp_path / "lock"))
    monkeypatch.setattr("taskfarmer.procfs.shows_whole_kernel", lambda: False)
    monkeypatch.setattr("taskfarmer.storage.locks._holder", lambda path: b"")
    with held_by_another_process(tmp_path / "lock"):
        assert not try_lock(lock, 0.2)
    assert not lock.excludes
