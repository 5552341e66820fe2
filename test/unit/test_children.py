"""Child processes that a farmer forks for background work."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from taskfarmer.forked import Child

SCRIPT = """
import atexit, os, sys
from taskfarmer.forked import Child
atexit.register(os.write, 2, b"left ")
sys.stdout.write("held ")
def work():
    sys.stdout.write(f"read {sys.stdin.read()!r} ")
child = Child(work)
child.join(20)
sys.stdout.write(f"status {child.exitcode}")
"""


def _wait() -> None:
    signal.pause()


def _exit(status: object) -> Callable[[], None]:
    def work() -> None:
        raise SystemExit(status)

    return work


def _fail() -> None:
    raise ValueError("in a child")


@pytest.mark.parametrize(
    ("work", "status"),
    [(os.getpid, 0), (_exit(None), 0), (_exit(7), 7), (_exit("why"), 1), (_fail, 1)],
    ids=["ends", "exits", "exits with a number", "exits with a text", "fails"],
)
def test_the_status_of_a_child_shows_how_its_work_ended(work: Callable[[], None], status: int) -> None:
    child = Child(work)
    child.join(20)
    assert child.exitcode == status


def test_a_running_child_has_no_status_and_join_returns_after_its_timeout() -> None:
    child = Child(_wait)
    begin = time.monotonic()
    child.join(0.1)
    assert child.exitcode is None
    assert 0.1 <= time.monotonic() - begin < 10
    os.kill(child.pid, signal.SIGKILL)
    child.join(20)
    assert child.exitcode == -signal.SIGKILL


def test_a_child_that_other_code_has_reaped_counts_as_ended() -> None:
    child = Child(_exit(0))
    os.waitpid(child.pid, 0)
    child.join(20)
    assert child.exitcode is not None


def test_a_child_neither_flushes_nor_reads_its_parents_buffers_and_runs_no_exit_handlers() -> None:
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT],
        cwd=Path(__file__).resolve().parents[2],
        input=b"for the parent",
        capture_output=True,
        check=True,
        timeout=60,
    )
    assert done.stdout == b"held read '' status 0"
    assert done.stderr == b"left "
