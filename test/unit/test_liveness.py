"""Which farmers are dead: at once if there is evidence, after silence only if the observer itself was punctual."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest

from taskfarmer import procfs
from taskfarmer.formats.sealed import sealed
from taskfarmer.peers import heartbeat
from taskfarmer.peers import watch as watching
from taskfarmer.peers.heartbeat import Presence, running_of
from taskfarmer.peers.identity import Identity, new_identity
from taskfarmer.peers.watch import Watch
from taskfarmer.storage import durable
from taskfarmer.storage.layout import Workdir

LEASE = 60.0
BEAT = 3.0


class Clock:
    """A monotonic clock that only advances when the test sets it."""

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
def create_presence(workdir: Workdir, clock: Clock) -> Iterator[Callable[[Identity], Presence]]:
    """Create a farmer's files that show it is alive; they are removed at the end."""
    made: list[Presence] = []

    def create_presence(identity: Identity) -> Presence:
        made.append(Presence(workdir, identity))
        return made[-1]

    yield create_presence
    for presence in made:
        presence.close()


@pytest.fixture
def me() -> Identity:
    return new_identity(2, "0", {})


@pytest.fixture
def elsewhere(me: Identity) -> Identity:
    """A farmer on another node."""
    return replace(me, farmer="far-7-00000000", host="far", boot="another", pid=7)


def observe(watch: Watch, clock: Clock, farmer: str, seconds: float, step: float = BEAT) -> str | None:
    """Check a farmer every `step` seconds for `seconds`; the first verdict."""
    for _ in range(int(seconds / step)):
        why = watch.verdict(farmer)
        if why:
            return why
        clock.now += step
    return watch.verdict(farmer)


def gone_process() -> int:
    child = subprocess.Popen(["true"])
    child.wait()
    return child.pid


def test_the_heartbeat_interval_is_a_twentieth_of_the_lease_within_bounds() -> None:
    assert [heartbeat.beat_interval(lease) for lease in (0.1, 3, 60, 600, 86400)] == [0.2, 0.2, 3.0, 30.0, 30.0]


def test_many_farmers_send_fewer_heartbeats_but_at_least_eight_in_a_lease() -> None:
    assert [heartbeat.beat_interval(600, farmers) for farmers in (1, 16, 400, 1000, 10**5)] == [30, 30, 30, 70, 75]
    assert [heartbeat.beat_interval(60, farmers) for farmers in (1, 10, 1000)] == [3, 3, 7.5]
    assert heartbeat.beat_interval(1, 10**5) == 0.2


def test_two_missed_heartbeats_are_measured_with_the_interval_of_the_silent_farmer(
    workdir: Workdir, clock: Clock, me: Identity, elsewhere: Identity, create_presence: Callable[[Identity], Presence]
) -> None:
    """It may know of more farmers than we do, and send heartbeats less often."""
    presence = create_presence(elsewhere)
    presence.every = 2 * BEAT
    presence.beat()
    watch = Watch(workdir, me, LEASE)
    assert observe(watch, clock, elsewhere.farmer, 3 * BEAT) is None
    assert watch.suspicious(elsewhere.farmer) is None
    assert observe(watch, clock, elsewhere.farmer, BEAT) is None
    assert watch.suspicious(elsewhere.farmer) == 4 * BEAT


@pytest.mark.parametrize("every", [1e9, -1, "soon", None, float("inf")])
def test_silence_for_the_lease_is_death_independent_of_the_contents_of_heartbeats(
    workdir: Workdir,
    clock: Clock,
    elsewhere: Identity,
    me: Identity,
    create_presence: Callable[[Identity], Presence],
    every: Any,
) -> None:
    presence = create_presence(elsewhere)
    presence.every = every
    presence.beat()
    watch = Watch(workdir, me, LEASE)
    assert observe(watch, clock, elsewhere.farmer, LEASE - BEAT) is None
    clock.now += BEAT
    assert "no heartbeat" in str(watch.verdict(elsewhere.farmer))


def test_many_idle_farmers_together_watch_all_the_others(workdir: Workdir, me: Identity) -> None:
    """The farmers of a job of five hundred were killed together; they are next to each other in the ring."""
    names = [f"nid{number:06d}-4711-{number * 2654435761 % 2**32:08x}" for number in range(1000)]
    seen = set()
    for name in names[500:]:
        mine = Watch(workdir, replace(me, farmer=name), LEASE).sample(names, 6)
        assert len(mine) == len(set(mine)) == 6
        assert name not in mine
        assert mine[:2] == Watch(workdir, replace(me, farmer=name), LEASE).successors(names)
        seen |= {*mine}
    assert len(seen.intersection(names[:500])) > 400


def test_a_sample_stays_as_it_is_when_others_come_and_go(workdir: Workdir, me: Identity) -> None:
    names = [f"nid{number:06d}-4711-{number * 2654435761 % 2**32:08x}" for number in range(100)]
    watch = Watch(workdir, me, LEASE)
    before = {*watch.sample(names, 10)}
    assert len(before & {*watch.sample([*names[:50], *names[51:], "zzz-1-00000000"], 10)}) >= 8


def test_a_farmer_whose_process_has_exited_is_dead_at_once(
    workdir: Workdir, clock: Clock, me: Identity, create_presence: Callable[[Identity], Presence]
) -> None:
    other = replace(me, farmer="near-1-00000000", pid=gone_process())
    create_presence(other).close()
    assert "is gone" in str(Watch(workdir, me, LEASE).verdict(other.farmer))


def test_a_farmer_whose_pid_now_belongs_to_another_process_is_dead(
    workdir: Workdir, me: Identity, create_presence: Callable[[Identity], Presence]
) -> None:
    other = replace(me, farmer="near-1-00000000", pid=os.getpid(), pid_start="1")
    create_presence(other).close()
    assert "is gone" in str(Watch(workdir, me, LEASE).verdict(other.farmer))


def test_a_farmer_whose_process_runs_is_not_dead(
    workdir: Workdir, me: Identity, create_presence: Callable[[Identity], Presence]
) -> None:
    other = replace(me, farmer="near-1-00000000")
    create_presence(other).close()
    assert Watch(workdir, me, LEASE).verdict(other.farmer) is None


def test_a_farmer_whose_tasks_still_hold_its_alive_lock_is_not_dead(
    workdir: Workdir, me: Identity, create_presence: Callable[[Identity], Presence]
) -> None:
    other = replace(me, farmer="near-1-00000000", pid=gone_process())
    presence = create_presence(other)
    assert presence.locked
    watch = Watch(workdir, me, LEASE)
    assert watch.verdict(other.farmer) is None
    presence.close()
    assert "is gone" in str(watch.verdict(other.farmer))


@pytest.mark.parametrize(
    "differs",
    [{"pid_namespace": 1}, {"boot": "another"}, {"host": "far"}, {"boot": "another", "host": "far"}],
    ids=["pid namespace", "boot", "host name", "node"],
)
def test_a_missing_process_is_evidence_only_on_its_node(
    workdir: Workdir,
    clock: Clock,
    me: Identity,
    create_presence: Callable[[Identity], Presence],
    differs: dict[str, Any],
) -> None:
    """If machines were resumed from one snapshot, only their host names differ."""
    other = replace(me, farmer="near-1-00000000", pid=gone_process(), **differs)
    create_presence(other).close()
    watch = Watch(workdir, me, LEASE)
    assert observe(watch, clock, other.farmer, LEASE - BEAT) is None
    clock.now += BEAT
    assert "no heartbeat for 60 s" in str(watch.verdict(other.farmer))


@pytest.mark.parametrize("unknown", [{"boot": ""}, {"pid_namespace": 0}])
def test_two_farmers_without_kernel_information_are_not_on_one_node(
    workdir: Workdir, me: Identity, create_presence: Callable[[Identity], Presence], unknown: dict[str, Any]
) -> None:
    mine = replace(me, **unknown)
    other = replace(mine, farmer="near-1-00000000", pid=gone_process())
    create_presence(other).close()
    assert Watch(workdir, mine, LEASE).verdict(other.farmer) is None


def test_a_process_that_proc_hides_has_not_exited(
    workdir: Workdir, me: Identity, create_presence: Callable[[Identity], Presence], monkeypatch: pytest.MonkeyPatch
) -> None:
    """This is the case for a process of another user with hidepid; its lock is free if a server has dropped it."""
    other = replace(me, farmer="near-1-00000000")
    create_presence(other).close()
    monkeypatch.setattr(procfs, "stat", lambda pid: [])
    assert Watch(workdir, me, LEASE).verdict(other.farmer) is None


def test_silence_for_the_lease_is_death_but_not_a_second_before(
    workdir: Workdir, clock: Clock, me: Identity, elsewhere: Identity, create_presence: Callable[[Identity], Presence]
) -> None:
    create_presence(elsewhere)
    watch = Watch(workdir, me, LEASE)
    assert observe(watch, clock, elsewhere.farmer, LEASE - BEAT) is None
    clock.now += BEAT
    assert "no heartbeat for 60 s" in str(watch.verdict(elsewhere.farmer))


def test_a_heartbeat_restarts_the_count(
    workdir: Workdir, clock: Clock, me: Identity, elsewhere: Identity, create_presence: Callable[[Identity], Presence]
) -> None:
    presence = create_presence(elsewhere)
    watch = Watch(workdir, me, LEASE)
    for _ in range(5):
        assert observe(watch, clock, elsewhere.farmer, LEASE - BEAT) is None
        presence.beat()


def test_an_unreadable_heartbeat_is_ignored(
    workdir: Workdir,
    clock: Clock,
    me: Identity,
    elsewhere: Identity,
    create_presence: Callable[[Identity], Presence],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    create_presence(elsewhere)
    watch = Watch(workdir, me, LEASE)
    watch.verdict(elsewhere.farmer)

    def hangs(path: str) -> bytes:
        raise OSError(5, "Input/output error", path)

    monkeypatch.setattr(durable, "read", hangs)
    assert observe(watch, clock, elsewhere.farmer, 3 * LEASE) is None


def test_a_farewell_note_is_effective_at_once(
    workdir: Workdir, me: Identity, elsewhere: Identity, create_presence: Callable[[Identity], Presence]
) -> None:
    create_presence(elsewhere).write_farewell(elsewhere.farmer, 0)
    assert Watch(workdir, me, LEASE).verdict(elsewhere.farmer) == "it left cleanly"


def test_after_damage_to_an_identity_only_silence_counts(
    workdir: Workdir, clock: Clock, me: Identity, create_presence: Callable[[Identity], Presence]
) -> None:
    other = replace(me, farmer="near-1-00000000", pid=gone_process())
    create_presence(other).close()
    Path(workdir.identity(other.farmer)).write_bytes(sealed(asdict(other))[:-3])
    watch = Watch(workdir, me, LEASE)
    assert watch.verdict(other.farmer) is None
    assert "no heartbeat" in str(observe(watch, clock, other.farmer, LEASE))


def test_an_identity_may_contain_members_of_a_later_version(
    workdir: Workdir, me: Identity, create_presence: Callable[[Identity], Presence]
) -> None:
    other = replace(me, farmer="near-1-00000000", pid=gone_process())
    create_presence(other).close()
    Path(workdir.identity(other.farmer)).write_bytes(sealed({**asdict(other), "mood": "good"}))
    assert "is gone" in str(Watch(workdir, me, LEASE).verdict(other.farmer))


def test_a_heartbeat_lists_the_running_tasks_however_many_there_were_before(
    workdir: Workdir, elsewhere: Identity, create_presence: Callable[[Identity], Presence]
) -> None:
    presence = create_presence(elsewhere)
    presence.beat([[slot, 100 + slot, 2] for slot in range(50)])
    assert running_of(workdir, elsewhere.farmer) == [(100 + slot, 2) for slot in range(50)]
    presence.beat([[0, 7, 1]])
    assert running_of(workdir, elsewhere.farmer) == [(7, 1)]
    presence.leave()
    assert running_of(workdir, elsewhere.farmer) == []


def test_farmers_watch_their_successors_around_the_ring(workdir: Workdir, me: Identity) -> None:
    watch = Watch(workdir, replace(me, farmer="c"), LEASE)
    assert watch.successors(["a", "b", "c", "d"]) == ["d", "a"]
    assert watch.successors(["a", "c"]) == ["a"]
    assert watch.successors(["c"]) == []
