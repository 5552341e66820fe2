"""The processes of workers, as `multiprocessing` starts them."""

from __future__ import annotations

import errno
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from taskfarmer.pool.pool import Pool
from taskfarmer.proctree import adopt_orphans, children, kill_child
from taskfarmer.runners.shell import BasicRunner
from taskfarmer.worker.main import WorkerProcess

SCRIPT = """
import atexit, os, sys
from taskfarmer.worker.main import WorkerProcess
atexit.register(os.write, 2, b"left ")
sys.stdout.write("held ")
def work():
    sys.stdout.write(f"read {sys.stdin.read()!r} {os.read(0, 99)!r} ")
child = WorkerProcess(target=work)
child.start()
child.join(20)
sys.stdout.write(f"status {child.exitcode}")
"""


def started(work: Callable[[], object]) -> WorkerProcess:
    process = WorkerProcess(target=work)
    process.start()
    return process


def _wait() -> None:
    signal.pause()


def _exit(status: object) -> Callable[[], None]:
    def work() -> None:
        raise SystemExit(status)

    return work


def _fail() -> None:
    raise ValueError("in a child")


@pytest.fixture
def pool() -> Iterator[Pool]:
    wakeup, written = os.pipe()
    yield Pool(1, lambda slot: None, BasicRunner(), 1.0, wakeup)  # type: ignore[arg-type, return-value]
    os.close(wakeup)
    os.close(written)


@pytest.mark.parametrize(
    ("work", "status"),
    [(os.getpid, 0), (_exit(None), 0), (_exit(7), 7), (_exit("why"), 1), (_fail, 1)],
    ids=["ends", "exits", "exits with a number", "exits with a text", "fails"],
)
def test_the_status_of_a_child_shows_how_its_work_ended(work: Callable[[], object], status: int) -> None:
    child = started(work)
    child.join(20)
    assert child.exitcode == status


def test_a_running_child_has_no_status_and_join_returns_after_its_timeout() -> None:
    child = started(_wait)
    begin = time.monotonic()
    child.join(0.1)
    assert child.exitcode is None
    assert 0.1 <= time.monotonic() - begin < 10
    child.kill()
    child.join(20)
    assert child.exitcode == -signal.SIGKILL


def test_a_child_that_other_code_has_reaped_counts_as_ended() -> None:
    child = started(_exit(0))
    os.waitpid(child.pid or 0, 0)
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
    assert done.stdout == b"held read '' b'for the parent' status 0"
    assert done.stderr == b"left "


def _leave_a_thread() -> None:
    threading.Thread(target=time.sleep, args=(600,)).start()


def _leave_a_process() -> None:
    multiprocessing.get_context("fork").Process(target=time.sleep, args=(600,)).start()


@pytest.mark.parametrize("work", [_leave_a_thread, _leave_a_process])
def test_threads_and_processes_that_it_leaves_do_not_delay_its_end(work: Callable[[], object]) -> None:
    adopt_orphans()
    child = started(work)
    child.join(20)
    assert child.exitcode == 0
    for pid in children(os.getpid()):
        assert kill_child(pid, 20)


@pytest.mark.parametrize("taken", [False, True], ids=["lives", "has ended, its status taken"])
def test_a_process_that_is_left_does_not_keep_its_parent(taken: bool, tmp_path: Path) -> None:
    script = f"""
import os, signal
from taskfarmer.worker.main import WorkerProcess
child = WorkerProcess(target=signal.pause)
child.start()
open("pid", "w").write(str(child.pid))
if {taken}:
    child.kill()
    os.waitpid(child.pid, 0)
"""
    here = str(Path(__file__).resolve().parents[2])
    parent = subprocess.Popen(
        [sys.executable, "-c", script], cwd=tmp_path, env={**os.environ, "PYTHONPATH": here}, stdin=subprocess.DEVNULL
    )
    try:
        assert parent.wait(60) == 0
    finally:
        parent.kill()
        if not taken:
            os.kill(int((tmp_path / "pid").read_text()), signal.SIGKILL)


def test_its_state_shows_whether_it_was_stopped() -> None:
    child = started(_wait)
    assert child.pid and child.state() == 0
    os.kill(child.pid, signal.SIGSTOP)
    end = time.monotonic() + 20
    while child.state() != os.CLD_STOPPED and time.monotonic() < end:
        time.sleep(0.01)
    assert child.state() == os.CLD_STOPPED and child.exitcode is None
    child.kill()
    child.join(20)
    assert child.state() == os.CLD_EXITED and child.exitcode == -signal.SIGKILL


def test_output_that_stdout_does_not_take_keeps_no_process_from_starting() -> None:
    script = """
import os, sys
from taskfarmer.worker.main import WorkerProcess
os.dup2(os.open("/dev/full", os.O_WRONLY), 1)
sys.stdout = open(1, "w", closefd=False)
sys.stdout.write("held")
child = WorkerProcess(target=os.getpid)
child.start()
child.join(20)
os.write(2, str(child.exitcode).encode())
os._exit(0)
"""
    done = subprocess.run(
        [sys.executable, "-c", script],
        cwd=Path(__file__).resolve().parents[2],
        capture_output=True,
        check=True,
        timeout=60,
    )
    assert done.stderr == b"0"


def test_a_fork_that_fails_leaves_no_descriptors_open(monkeypatch: pytest.MonkeyPatch, pool: Pool) -> None:
    def fails() -> int:
        raise BlockingIOError(errno.EAGAIN, "no process")

    before = len(os.listdir("/proc/self/fd"))
    monkeypatch.setattr(os, "fork", fails)
    for _ in range(3):
        pool.start_after = 0.0
        pool.ensure_workers(1)
        assert pool.trouble is not None and not pool.workers
    assert len(os.listdir("/proc/self/fd")) == before
