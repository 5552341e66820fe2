"""Doctors in real processes, alone or on separate nodes, and their JSON reports."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from support.farming import as_node, children, need, send, tree

TOP = Path(__file__).parents[2]
FOLDER = ".taskfarmer-doctor"
WORDS = [sys.executable, "-m", "taskfarmer", "doctor"]


def environment(**more: str) -> dict[str, str]:
    mine = {name: value for name, value in os.environ.items() if name != "SCRATCH" and not name.startswith("SLURM_")}
    return {**mine, "PYTHONPATH": str(TOP), **more}


class Doctor:
    """A running doctor. As a `node` it has a private host name and pid namespace."""

    def __init__(self, directory: Path, *options: object, node: str | None = None, **variables: str) -> None:
        words = [*WORDS, str(directory), "--json", *map(str, options)]
        self.node = node
        if node:
            words = as_node(node, words)
        self.process = subprocess.Popen(
            words,
            env=environment(**variables),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )

    def wait(self, seconds: float = 90.0) -> Report:
        out, err = self.process.communicate(timeout=seconds)
        return Report(self.process.returncode, out.decode(), err.decode())

    @property
    def pid(self) -> int:
        pid = self.process.pid
        for _ in range(2 if self.node else 0):
            pid = next(iter(children(pid)), 0)
        return pid

    def kill(self) -> None:
        """Kill it and its child processes with SIGKILL."""
        for pid in reversed(tree(self.process.pid)):
            send(pid, signal.SIGKILL)
        self.process.communicate(timeout=30)


class Report:
    """The exit status of a doctor, and its findings."""

    def __init__(self, status: int, out: str, error: str) -> None:
        self.status = status
        self.out = out
        self.error = error

    @property
    def json(self) -> dict[str, Any]:
        assert self.out, self.error
        found: dict[str, Any] = json.loads(self.out)
        return found

    def check(self, name: str) -> dict[str, str]:
        found: dict[str, str] = next(check for check in self.json["checks"] if check["name"] == name)
        return found

    @property
    def states(self) -> dict[str, str]:
        return {check["name"]: check["state"] for check in self.json["checks"]}


def examine(directory: Path, *options: object, **variables: str) -> Report:
    """Run one doctor alone."""
    return Doctor(directory, *options, **variables).wait()


def need_nodes() -> None:
    need(os.getuid() == 0, "namespaces of nodes need root")
    need(shutil.which("unshare") and shutil.which("hostname"), "util-linux or hostname is not installed")
    done = subprocess.run(
        ["unshare", "--uts", "--pid", "--fork", "--mount-proc", "--propagation", "slave", "true"], capture_output=True
    )
    need(done.returncode == 0, "no namespaces can be had")


@contextmanager
def doctors(*places: Path, options: tuple[object, ...] = (), count: int | None = None) -> Iterator[list[Doctor]]:
    """Start a doctor on a separate node for each place; all have exited afterwards."""
    need_nodes()
    nodes = count or len(places)
    started = [Doctor(place, "--nodes", nodes, *options, node=f"node{number}") for number, place in enumerate(places)]
    try:
        yield started
    finally:
        for doctor in started:
            if doctor.process.poll() is None:
                doctor.kill()


def together(*places: Path, options: tuple[object, ...] = ()) -> list[Report]:
    """The reports of doctors that run at the same time, each on a separate node."""
    with doctors(*places, options=options) as started:
        return [doctor.wait() for doctor in started]


def left_behind(directory: Path) -> list[str]:
    return sorted(path.relative_to(directory).as_posix() for path in directory.rglob("*"))
