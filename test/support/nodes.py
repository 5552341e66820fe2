"""Farmers as nodes: each has a private host name and pid namespace, and a private clock if requested."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterable
from pathlib import Path

from support.farming import children, eventually, is_running, need, send, tree
from support.farms import Farm, Farmer

# libfaketime 0.9 mistakes an absolute time of the monotonic clock for one of the clock that it fakes, and refuses it
SLEEP = r"""
#define _GNU_SOURCE
#include <errno.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

int clock_nanosleep(clockid_t clock, int flags, const struct timespec *until, struct timespec *left)
{
    return syscall(SYS_clock_nanosleep, clock, flags, until, left) ? errno : 0;
}
"""
# libfaketime names its shared memory by pid, and processes of different nodes have equal pids
INNER = 'mount -t tmpfs tmpfs /dev/shm && hostname "$0" && "$@"; exit $?'
BEATS_OF_A_LEASE = 20


class Clock:
    """The time of day on a node: a number of seconds ahead of ours that can be changed at any time."""

    def __init__(self, folder: Path, name: str, ahead: int) -> None:
        found = sorted(Path("/usr/lib").glob("*/faketime/libfaketime.so.1"))
        need(found, "libfaketime is missing (package faketime)")
        need(shutil.which("gcc"), "gcc is missing")
        self.path = folder / f"{name}.clock"
        self.set(ahead)
        sleep = folder / "sleep.so"
        if not sleep.exists():
            (folder / "sleep.c").write_text(SLEEP)
            subprocess.run(["gcc", "-shared", "-fPIC", "-o", str(sleep), str(folder / "sleep.c")], check=True)
        self.environment = {
            "LD_PRELOAD": f"{sleep}:{found[0]}",
            "FAKETIME_TIMESTAMP_FILE": str(self.path),
            "FAKETIME_NO_CACHE": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
            "NO_FAKE_STAT": "1",
        }

    def set(self, ahead: int) -> None:
        fresh = self.path.with_suffix(".fresh")
        fresh.write_text(f"{ahead:+d}\n")
        fresh.rename(self.path)


class Cluster:
    """A farm, and the nodes that work on it."""

    def __init__(self, folder: Path) -> None:
        need(os.getuid() == 0 and shutil.which("unshare"), "a separate node needs root and unshare")
        self.folder = folder
        self.farm = Farm(folder)
        self.nodes: dict[str, Farmer] = {}
        self.clocks: dict[str, Clock] = {}
        self.go = folder / "go"

    # --- tasks and nodes -----------------------------------------------------------------------

    def staying(self) -> str:
        """A task that runs until the file `go` exists."""
        return self.farm.marked(f"while ! [ -e {self.go} ]; do sleep 0.1; done")

    def start(self, name: str, *options: object, ahead: int | None = None) -> Farmer:
        """Start a farmer on a separate node, whose clock is `ahead` seconds ahead of ours."""
        environment: dict[str, str] = {}
        inner = ["sh", "-c", INNER, name]
        if ahead is not None:
            clock = self.clocks[name] = Clock(self.folder, name, ahead)
            inner += ["env", *(f"{variable}={value}" for variable, value in clock.environment.items())]
        before = ["unshare", "--uts", "--pid", "--fork", "--mount-proc", "--propagation", "slave", *inner]
        self.nodes[name] = self.farm.start(*options, before=before, environment=environment)
        return self.nodes[name]

    def farmer_of(self, name: str) -> int:
        """The pid of a node's farmer, as seen from here; 0 if it has exited."""
        first = children(self.nodes[name].pid)
        return next(iter(children(first[0])), 0) if first else 0

    def beats(self, workdir: Path | None = None) -> dict[str, int]:
        """The heartbeat of each farmer, by its node."""
        found = {}
        for path in ((workdir or self.farm.workdir) / "farmers").glob("*.alive"):
            try:
                found[path.name.rsplit("-", 2)[0]] = int(json.loads(path.read_bytes())["beat"])
            except (OSError, ValueError):
                continue
        return found

    def live_on(self, leases: float, workdir: Path | None = None) -> None:
        """Wait until every farmer has sent heartbeats for `leases` more leases, or has exited."""
        first: dict[str, int] = {}

        def complete() -> bool:
            first.update(self.beats(workdir))
            return set(first) == set(self.nodes)

        eventually(complete, "every farmer shows that it lives")
        wanted = leases * BEATS_OF_A_LEASE

        def lived() -> bool:
            now = self.beats(workdir)
            return all(now.get(name, 0) - beat >= wanted for name, beat in first.items()) or self.any_ended()

        eventually(lived, lambda: f"{wanted:g} beats of every farmer; {self.said()}", 120)

    def any_ended(self) -> bool:
        return any(farmer.ended for farmer in self.nodes.values())

    def said(self) -> str:
        return "\n".join(f"{name}: {farmer.said}" for name, farmer in self.nodes.items())

    # --- stops ---------------------------------------------------------------------------------

    def stop_all_nodes(self) -> list[list[int]]:
        """Stop every process of every node, as if their clocks stood still; the processes of each node."""
        stopped = [tree(farmer.pid) for farmer in self.nodes.values()]
        for pid in (pid for node in stopped for pid in node):
            send(pid, signal.SIGSTOP)
        # find processes that were started meanwhile
        stopped = [tree(farmer.pid) for farmer in self.nodes.values()]
        for pid in (pid for node in stopped for pid in node):
            send(pid, signal.SIGSTOP)
        return stopped

    def assert_none_expelled(self, tasks: int) -> None:
        """All farmers succeed, every task was recorded once, at its first attempt, and no farmer was declared dead."""
        assert {name: farmer.wait(60) for name, farmer in self.nodes.items()} == dict.fromkeys(self.nodes, 0), (
            self.said()
        )
        assert "dead" not in self.said()
        assert "Traceback" not in self.said()
        self.farm.no_survivors()
        report = self.farm.check()
        assert report.finished == set(range(tasks))
        assert sorted(line.task for line in report.lines) == list(range(tasks))
        assert {line.attempt for line in report.lines} == {1}

    def close(self) -> None:
        for pid in self.farm.processes():
            send(pid, signal.SIGCONT)
        self.farm.close()


def in_random_order(rng: random.Random, actions: Iterable[Callable[[], None]], longest: float) -> None:
    """Call all of these, in any order, within `longest` seconds."""
    order = list(actions)
    rng.shuffle(order)
    for action in order:
        action()
        time.sleep(rng.uniform(0, longest / len(order)))


def all_stopped(pids: Iterable[int]) -> bool:
    """Whether all processes are stopped or have exited."""
    return all(not is_running(pid) or process_state(pid) == "T" for pid in pids)


def process_state(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return "T"
