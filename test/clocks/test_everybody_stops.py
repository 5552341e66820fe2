"""All farmers stop for longer than the lease, or the file system hangs: no farmer is expelled.

If one farmer alone is stopped, it is expelled and reports it: see test/sharing/test_sharing.py.
"""

from __future__ import annotations

import random
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from support.farming import children, eventually, need, send
from support.nodes import Cluster, all_stopped, in_random_order
from support.scenes import full

NODES = ("first", "second", "third")
LEASE = 2.0
LONGER = 1.25 * LEASE


def stop_all_repeatedly(cluster: Cluster, rounds: int, seed: int) -> None:
    print(f"seed {seed}")
    rng = random.Random(seed)
    cluster.farm.write(*[cluster.staying()] * 9, *["sleep 0.05"] * 150)
    for name in NODES:
        cluster.start(name, "-n", 3, "--lease", LEASE)
    cluster.farm.wait_for_tasks(*range(9))
    cluster.live_on(0.1)
    for _ in range(rounds):
        stopped = [pid for node in cluster.stop_all_nodes() for pid in node]
        eventually(lambda: all_stopped(stopped), "everything stands still")  # noqa: B023
        time.sleep(LONGER)
        in_random_order(rng, [lambda pid=pid: send(pid, signal.SIGCONT) for pid in stopped], LEASE / 4)
        cluster.live_on(rng.uniform(0.1, 0.4))
    cluster.go.touch()
    cluster.assert_none_expelled(159)


def test_farmers_that_were_all_stopped_for_longer_than_the_lease_expel_no_farmer(cluster: Cluster) -> None:
    stop_all_repeatedly(cluster, rounds=2, seed=1)


@pytest.mark.campaign
@pytest.mark.timeout(600)
@pytest.mark.parametrize("seed", range(10, 12))
def test_farmers_that_are_all_stopped_repeatedly_expel_no_farmer(cluster: Cluster, seed: int) -> None:
    stop_all_repeatedly(cluster, rounds=12, seed=seed)


@contextmanager
def mount(source: Path, point: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Another mount of a folder; yields its server."""
    point.mkdir()
    server = subprocess.Popen(["bindfs", "-f", "--multithreaded", str(source), str(point)])
    try:
        eventually(point.is_mount, "the file system is mounted")
        yield server
    finally:
        send(server.pid, signal.SIGCONT)
        subprocess.run(["umount", "-l", str(point)], check=False)
        server.terminate()
        server.wait(20)


def the_file_system_hangs(cluster: Cluster, rounds: int, seed: int) -> None:
    """Each node has a separate mount; all of them stop responding for a while, and then respond again."""
    need(shutil.which("bindfs") and Path("/dev/fuse").exists(), "bindfs or /dev/fuse is missing")
    print(f"seed {seed}")
    rng = random.Random(seed)
    farm = cluster.farm
    server_side = cluster.folder / "served"
    server_side.mkdir()
    farm.workdir = server_side / "farm"
    farm.write(*[cluster.staying()] * 9, *["sleep 0.05"] * 150)
    with ExitStack() as mounts:
        servers = []
        for name in NODES:
            point = cluster.folder / name
            servers.append(mounts.enter_context(mount(server_side, point)))
            cluster.start(name, "-n", 3, "--lease", LEASE, "-w", point / "farm")
        try:
            farm.wait_for_tasks(*range(9))
            cluster.live_on(0.1)
            for _ in range(rounds):
                for server in servers:
                    send(server.pid, signal.SIGSTOP)
                eventually(lambda: all_stopped(server.pid for server in servers), "the servers stand still")
                time.sleep(LONGER)
                actions = [lambda pid=server.pid: send(pid, signal.SIGCONT) for server in servers]
                in_random_order(rng, actions, LEASE / 4)
                cluster.live_on(rng.uniform(0.1, 0.4))
            cluster.go.touch()
            cluster.assert_none_expelled(159)
        finally:
            for server in servers:
                send(server.pid, signal.SIGCONT)
            cluster.close()


def test_farmers_expel_no_farmer_after_the_file_system_hung_for_longer_than_the_lease(cluster: Cluster) -> None:
    the_file_system_hangs(cluster, rounds=2, seed=2)


@pytest.mark.campaign
@pytest.mark.timeout(600)
@pytest.mark.parametrize("seed", range(20, 22))
def test_farmers_expel_no_farmer_if_the_file_system_hangs_repeatedly(cluster: Cluster, seed: int) -> None:
    the_file_system_hangs(cluster, rounds=12, seed=seed)


def test_a_farmer_that_waits_for_free_space_to_release_its_tasks_sends_heartbeats(cluster: Cluster) -> None:
    """If it was stopped on a full disk, other farmers must not declare it dead while it retries."""
    farm = cluster.farm
    farm.workdir.mkdir()
    disk = ["mount", "-t", "tmpfs", "-o", "size=4m,mode=700", "tmpfs", str(farm.workdir)]
    need(not subprocess.run(disk).returncode, "no tmpfs can be mounted")
    try:
        farm.write(*[cluster.staying()] * 6)
        for name in ("leaving", "staying"):
            cluster.start(name, "-n", 3, "--grace", 1, "--lease", LEASE)
        farm.wait_for_tasks(*range(6))
        cluster.live_on(0.1)
        with full(farm.workdir):
            send(cluster.farmer_of("leaving"), signal.SIGUSR1)
            eventually(lambda: not children(cluster.farmer_of("leaving")), "its workers are gone")
            cluster.live_on(0.4)
        assert cluster.nodes["leaving"].wait() == 75, cluster.said()
        assert "dead" not in cluster.said()
        cluster.go.touch()
        assert cluster.nodes["staying"].wait() == 0, cluster.said()
        report = farm.check()
        assert sorted(report.attempts.values()) == [1, 1, 1, 2, 2, 2]
    finally:
        cluster.close()
        subprocess.run(["umount", "-l", str(farm.workdir)], check=True)
