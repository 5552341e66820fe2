"""The farm's lock: how long a farmer waits for it if it is stuck."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from taskfarmer.storage.locks import FarmLock


class Clock:
    """Time that passes only while somebody sleeps."""

    now = 0.0

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += max(seconds, 1e-6)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    one = Clock()
    monkeypatch.setattr("taskfarmer.storage.locks.time", one)
    return one


@contextmanager
def held_by_another(path: Path) -> Iterator[None]:
    fd = os.open(path, os.O_RDWR | os.O_CREAT)
    fcntl.flock(fd, fcntl.LOCK_EX)
    yield
    os.close(fd)


def test_each_wait_that_times_out_halves_the_next_one_until_the_lock_is_acquired(tmp_path: Path, clock: Clock) -> None:
    lock = FarmLock(str(tmp_path / "lock"))

    def waited(patience: float) -> float:
        start = clock.now
        with lock.held(patience) as got:
            assert not got
        return clock.now - start

    with held_by_another(tmp_path / "lock"):
        assert [waited(4.0) for _ in range(6)] == pytest.approx([4.0, 2.0, 1.0, 0.5, 0.25, 0.2], abs=1e-3)
        assert waited(0.1) == pytest.approx(0.1, abs=1e-3)
    with lock.held(4.0) as got:
        assert got
    with held_by_another(tmp_path / "lock"):
        assert waited(4.0) == pytest.approx(4.0, abs=1e-3)
