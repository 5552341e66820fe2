"""Storms: farmers are killed, stopped past their lease, interrupted and replaced at random; nothing is lost or doubled.

The file system is plain, or two mounts of one folder whose locks are silently their own. Half of the farmers
are nodes by their own account: a host name and a pid namespace each, so that only silence tells that they
are dead. What happens when is drawn from a seed, which is printed.
"""

from __future__ import annotations

import random
import shutil
import signal
import subprocess
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from checker import Report, check
from farming import Farmer, Field, mounts

LEASE = 2.0
EPOCH_LENGTH = 8
LYING_CACHES = ("-o", "attr_timeout=1,entry_timeout=1,negative_timeout=1")


def nodes_can_be_had() -> bool:
    words = ["unshare", "--uts", "--pid", "--fork", "--mount-proc", "hostname", "somewhere"]
    return bool(shutil.which("unshare")) and subprocess.run(words, capture_output=True).returncode == 0


@dataclass
class Storm:
    """`farmers` farmers at a time on `places` in turn, for `seconds` or until `strikes` have fallen."""

    field: Field
    seed: int
    places: tuple[Path, ...]
    seconds: float
    strikes: int = 10**9
    farmers: int = 8
    running: list[Farmer] = field(default_factory=list)
    asleep: list[tuple[float, Farmer]] = field(default_factory=list)
    did: Counter[str] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        self.random = random.Random(self.seed)
        self.nodes = nodes_can_be_had()
        self.started = 0

    def start(self, *options: object) -> Farmer:
        number, self.started = self.started, self.started + 1
        node = f"node{number}" if self.nodes and number // len(self.places) % 2 else None
        through = self.places[number % len(self.places)]
        words = ("--proc", 2, "--lease", LEASE, "--epoch-length", EPOCH_LENGTH, "--grace", 1, *options)
        return self.field.start(*words, node=node, through=through)

    def strike(self, farmer: Farmer) -> None:
        kind = self.random.choices(("kill", "kill tree", "stop", "interrupt"), (4, 2, 2, 2))[0]
        if kind == "kill":
            farmer.signal(signal.SIGKILL)
        elif kind == "kill tree":
            farmer.kill_tree()
        elif kind == "stop":
            farmer.signal(signal.SIGSTOP)
            self.asleep.append((time.monotonic() + LEASE * self.random.uniform(0.5, 4.0), farmer))
        else:
            farmer.signal(signal.SIGUSR1)
        self.did[kind] += 1

    def wake(self, everybody: bool = False) -> None:
        now = time.monotonic()
        for when, farmer in list(self.asleep):
            if everybody or now >= when:
                farmer.signal(signal.SIGCONT)
                self.asleep.remove((when, farmer))

    def rage(self) -> None:
        end = time.monotonic() + self.seconds
        while time.monotonic() < end and sum(self.did.values()) < self.strikes:
            for farmer in [farmer for farmer in self.running if farmer.ended]:
                self.running.remove(farmer)
                self.did[f"exit {farmer.process.returncode}"] += 1
            while len(self.running) < self.farmers:
                self.running.append(self.start())
            self.wake()
            sleeping = [farmer for _, farmer in self.asleep]
            awake = [farmer for farmer in self.running if farmer not in sleeping and farmer.pid]
            if awake:
                self.strike(self.random.choice(awake))
            # strikes are events of the storm itself, spread over time; nothing waits for them
            time.sleep(self.random.expovariate(2.5))

    def calm(self) -> Farmer:
        """End of the storm: ghosts wake, some are dead without a trace, and one farmer does what is left."""
        self.wake(everybody=True)
        for number, farmer in enumerate(self.running):
            if number % 2:
                farmer.kill_tree()
            else:
                farmer.signal(signal.SIGUSR1)
        for farmer in self.running:
            self.did[f"exit {farmer.wait()}"] += 1
        drain = self.start("--wait", "--proc", 16)
        drain.wait(120)
        return drain


def judge(storm: Storm, drain: Farmer, tasks: int) -> Report:
    report = check(storm.field.workdir, views=True)
    runs = storm.field.runs()
    print(
        f"seed {storm.seed}: {dict(storm.did)}, {storm.started} farmers; {len(report.finished)} of {tasks} finished, "
        f"{sum(runs.values())} runs ({sum(runs.values()) / tasks - 1:.1%} again), "
        f"revision {report.state.get('revision')}"
    )
    assert report.problems == [], f"{drain.process.returncode}\n{drain.said}"
    assert (drain.process.returncode, len(report.finished)) == (0, tasks), drain.said
    assert [task for task in report.finished if not runs.get(task)] == []
    for farmer in storm.field.farmers:
        assert "Traceback" not in farmer.said, farmer.said
    # numbers of files stay bounded however many revisions there were
    assert len(list((storm.field.workdir / "ledger").glob("*/*"))) <= 4 * EPOCH_LENGTH + len(storm.field.farmers)
    return report


def storm_over(field: Field, places: tuple[Path, ...], seed: int, seconds: float, tasks: int, **more: int) -> None:
    print(f"seed {seed}")
    field.appending(tasks, then="sleep 0.$(($$ % 6 + 1))")
    storm = Storm(field, seed, places, seconds, **more)
    storm.rage()
    judge(storm, storm.calm(), tasks)


def test_a_storm_on_a_plain_file_system_loses_nothing_and_records_nothing_twice(field: Field) -> None:
    storm_over(field, (field.folder,), seed=random.randrange(10**6), seconds=10, tasks=200)


@pytest.mark.timeout(240)
def test_a_storm_on_two_mounts_with_lying_locks_loses_nothing_and_records_nothing_twice(
    field: Field, tmp_path_factory: pytest.TempPathFactory
) -> None:
    points = tmp_path_factory.mktemp("mounts")
    with mounts(field.folder, points / "one", points / "two") as places:
        try:
            storm_over(field, places, seed=random.randrange(10**6), seconds=30, tasks=500)
        finally:
            field.close()


@pytest.mark.campaign
@pytest.mark.timeout(7200)
@pytest.mark.parametrize("seed", range(1, 6))
@pytest.mark.parametrize("kind", ["plain", "lying", "lying, stale"])
def test_a_campaign_of_storms(field: Field, tmp_path_factory: pytest.TempPathFactory, kind: str, seed: int) -> None:
    tasks, strikes = 5000, 1000
    if kind == "plain":
        storm_over(field, (field.folder,), seed, 3600, tasks, strikes=strikes)
        return
    points = tmp_path_factory.mktemp("mounts")
    with mounts(
        field.folder, points / "one", points / "two", options=LYING_CACHES if "stale" in kind else ()
    ) as places:
        try:
            storm_over(field, places, seed, 3600, tasks, strikes=strikes)
        finally:
            field.close()


def test_the_mounts_of_the_storm_do_lie_about_locks(tmp_path: Path) -> None:
    script = (
        "import fcntl, sys; file = open(sys.argv[1] + '/f', 'a'); fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB); "
        "print(1, flush=True); input()"
    )
    source = tmp_path / "source"
    source.mkdir()
    with mounts(source, tmp_path / "one", tmp_path / "two") as places:
        holders = []
        try:
            for place in places:
                words = ["python3", "-c", script, str(place)]
                holders.append(subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE))
            assert [holder.stdout and holder.stdout.readline() for holder in holders] == [b"1\n", b"1\n"]
        finally:
            for holder in holders:
                holder.communicate(b"\n")
