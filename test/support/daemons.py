"""Daemons of a cluster: started in a private folder, stopped by their pids."""

from __future__ import annotations

import os
import random
import signal
import socket
import subprocess
from collections.abc import Iterable, Mapping
from pathlib import Path

from support.farming import eventually, is_running, send, tree

UNASKED = range(10_000, 32_000)
"""The kernel gives these ports to no connecting client: a port that is free now is free when a daemon binds it."""


def free_ports(count: int) -> list[int]:
    """Ports without a listener."""
    found: list[int] = []
    while len(found) < count:
        port = random.choice(UNASKED)
        with socket.socket() as one:
            try:
                one.bind(("127.0.0.1", port))
            except OSError:
                continue
        if port not in found:
            found.append(port)
    return found


class Daemon:
    """A process in the foreground, with all its descendants. It does not outlive a test session that is killed."""

    def __init__(self, words: Iterable[str], log: Path, environment: Mapping[str, str]) -> None:
        with open(log, "ab") as file:
            self.process = subprocess.Popen(
                ["setpriv", "--pdeathsig", "KILL", *words],
                env=dict(environment),
                cwd=log.parent,
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=file,
                start_new_session=True,
            )

    def kill(self) -> None:
        """Kill it and all its descendants with SIGKILL."""
        below = tree(self.process.pid)
        for pid in below:
            send(pid, signal.SIGKILL)
        self.process.wait(20)
        eventually(lambda: not [pid for pid in below if is_running(pid)], "the end of a daemon and its processes", 20)

    def end(self, seconds: float = 5.0) -> None:
        """Terminate it with SIGTERM, and with SIGKILL if it does not exit."""
        self.process.terminate()
        try:
            self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            pass
        self.kill()


def marked(mark: str) -> list[int]:
    """Live processes that have `mark` (NAME=value) in their environment."""
    found = []
    for name in filter(str.isdigit, os.listdir("/proc")):
        try:
            if mark.encode() + b"\0" in Path(f"/proc/{name}/environ").read_bytes() and is_running(int(name)):
                found.append(int(name))
        except OSError:
            continue
    return found
