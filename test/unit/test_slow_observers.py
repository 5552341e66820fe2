"""Silence with slow file operations: dead farmers are expelled eventually, and a hanging file system expels none.

All tests use a clock that only advances when they set it. `slow_work` is the work of an observer between two checks.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from taskfarmer.peers import watch as watching
from taskfarmer.peers.heartbeat import Presence
from taskfarmer.peers.identity import Identity, new_identity
from taskfarmer.peers.watch import Watch
from taskfarmer.storage.layout import Workdir

LEASE = 60.0
OPERATION = 2.0
BETWEEN_LOOKS = 12
"""File operations between two checks, as measured: an exchange and the views are twenty and more."""


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now

    def time(self) -> float:
        return 1e9


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(watching, "time", clock)
    return clock


@pytest.fixture
def workdir(tmp_path: Path) -> Workdir:
    (tmp_path / "farmers").mkdir()
    return Workdir.at(str(tmp_path))


@pytest.fixture
def them(workdir: Workdir, clock: Clock) -> Iterator[Presence]:
    """A farmer of another node."""
    identity = replace(new_identity(2, "0", {}), farmer="far-7-00000000", host="far", boot="another", pid=7)
    presence = Presence(workdir, identity)
    yield presence
    presence.close()


@pytest.fixture
def watch(workdir: Workdir, clock: Clock) -> Watch:
    me: Identity = new_identity(2, "0", {})
    return Watch(workdir, me, LEASE)


def slow_work(watch: Watch, clock: Clock, operations: int = BETWEEN_LOOKS, each: float = OPERATION) -> None:
    """Do file operations, with a pulse after every three of them."""
    for number in range(operations):
        clock.now += each
        if number % 3 == 2:
            watch.serve(clock.now)


def test_a_dead_farmer_is_expelled_although_each_check_is_late(watch: Watch, clock: Clock, them: Presence) -> None:
    """With 2 s per operation and a lease of 60 s no check is punctual, but the lease expires nevertheless."""
    begin = clock.now
    why = None
    while why is None:
        assert clock.now - begin < 3 * LEASE, "never expelled"
        why = watch.verdict(them.identity.farmer)
        slow_work(watch, clock)
    assert "no heartbeat" in why
    assert clock.now - begin >= LEASE


@pytest.mark.parametrize("each", [0.5, 2.0, 20.0, 600.0])
def test_a_dead_farmer_is_expelled_with_operations_of_any_duration(
    watch: Watch, clock: Clock, them: Presence, each: float
) -> None:
    looks = 0
    while watch.verdict(them.identity.farmer) is None:
        looks += 1
        assert looks <= 20
        slow_work(watch, clock, each=each)


@pytest.mark.parametrize("each", [2.0, 20.0, 600.0])
def test_a_live_farmer_with_equally_slow_operations_is_not_expelled(
    watch: Watch, clock: Clock, them: Presence, each: float
) -> None:
    """It sends heartbeats between its operations, with up to nine operations in a row."""
    for turn in range(200):
        assert watch.verdict(them.identity.farmer) is None
        slow_work(watch, clock, 3, each)
        if turn % 3 == 2:
            them.beat()


@pytest.mark.parametrize("hang", [LEASE, 100 * LEASE])
def test_no_farmer_is_expelled_if_the_file_system_hangs_for_all(
    watch: Watch, clock: Clock, them: Presence, hang: float
) -> None:
    """If it hangs during the check or before, the other farmer sends a heartbeat after that, just after our check."""
    farmer = them.identity.farmer
    for _ in range(6):
        assert watch.verdict(farmer) is None
        clock.now += hang
        assert watch.verdict(farmer) is None
        clock.now += 1.0
        assert watch.verdict(farmer) is None
        assert watch.suspicious(farmer) is None or watch.silence(farmer) < LEASE / 2
        them.beat()


def test_one_check_after_a_hang_does_not_raise_suspicion(watch: Watch, clock: Clock, them: Presence) -> None:
    farmer = them.identity.farmer
    watch.verdict(farmer)
    clock.now += 100 * LEASE
    watch.verdict(farmer)
    assert watch.suspicious(farmer) is None
    for _ in range(3):
        clock.now += 3.0
        watch.verdict(farmer)
    assert watch.suspicious(farmer) is not None


def test_an_observer_that_was_stopped_does_not_count_that_time(watch: Watch, clock: Clock, them: Presence) -> None:
    farmer = them.identity.farmer
    watch.verdict(farmer)
    before = watch.silence(farmer)
    clock.now += 1000 * LEASE
    assert watch.silence(farmer) - before <= LEASE / 8
