"""Processes that no signal ends, because they wait inside the kernel when a file system does not respond."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from farming import eventually, need, send
from farms import Farm

STATUS_AGAIN = 75


@pytest.fixture
def hung(tmp_path: Path) -> Iterator[Path]:
    """A file; a process that reads it waits uninterruptibly.

    It is on a FUSE file system whose server accepts the request and then waits for a second file system, whose server
    is stopped.
    """
    need(os.getuid() == 0, "bindfs mounts need root")
    need(shutil.which("bindfs") and os.path.exists("/dev/fuse"), "bindfs or /dev/fuse is missing")
    source, inner, outer = (tmp_path / name for name in ("source", "inner", "outer"))
    for folder in (source, inner, outer):
        folder.mkdir()
    (source / "file").write_text("data\n")
    servers = []
    try:
        for below, point in ((source, inner), (inner, outer)):
            servers.append(subprocess.Popen(["bindfs", "-f", "--multithreaded", str(below), str(point)]))
            eventually(lambda point=point: os.path.ismount(point), "the file system is mounted")
        send(servers[0].pid, signal.SIGSTOP)
        yield outer / "file"
    finally:
        for server in servers:
            send(server.pid, signal.SIGCONT)
        for point in (outer, inner):
            subprocess.run(["umount", "-l", str(point)], check=False)
        for server in servers:
            server.terminate()
            server.wait(20)


def name(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/comm").read_text().strip()
    except OSError:
        return ""


def test_a_process_that_survives_sigkill_is_awaited_for_a_while_and_reported(farm: Farm, hung: Path) -> None:
    farm.write(farm.marked(f"exec cat {hung}"), farm.marked("sleep 1000"), "true")
    farmer = farm.start("-n", 2, "--grace", 1)
    farm.wait_for_tasks(0, 1)
    (stuck,) = eventually(lambda: [pid for pid in farm.processes() if name(pid) == "cat"], "the task reads the file")
    begin = time.monotonic()
    farmer.signal(signal.SIGUSR1)
    assert farmer.wait(40) == STATUS_AGAIN, farmer.said
    assert time.monotonic() - begin < 30
    assert "could not kill processes" in farmer.said
    assert str(stuck) in farmer.said
    assert farm.processes() == [stuck]
    assert farm.places() == ([0, 1, 2], [], [])
    assert farm.check().problems == []
