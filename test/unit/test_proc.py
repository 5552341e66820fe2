"""/proc is trusted only if it shows us: it may be missing, hide processes, or belong to another pid namespace."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from support.farming import eventually, need
from taskfarmer import procfs

HERE = Path(__file__).resolve().parents[2]
TELL = """
import os, subprocess, sys
from taskfarmer import procfs
child = subprocess.Popen(["sleep", "60"])
start = procfs.start_of(child.pid)
seen = [procfs.sight(), procfs.runs(child.pid, "1"), procfs.runs(1, "1")]
seen.append(procfs.stat(child.pid)[1:2] == [str(os.getpid())])
child.kill()
child.wait()
print(*seen, procfs.runs(child.pid, start or "1"))
"""
NAMESPACES = {
    "whole": ("unshare --pid --fork --mount-proc", "whole False False True False"),
    "missing": (
        "unshare --mount sh -c 'mount -t tmpfs none /proc && exec \"$@\"' sh",
        "blind None None False False",
    ),
    "foreign": ("unshare --pid --fork sh -c '\"$@\"; exit $?' sh", "blind None None False False"),
    "hidden": (
        "unshare --mount sh -c 'mount -t proc -o hidepid=2 proc /proc && "
        'exec setpriv --reuid=54321 --regid=54321 --clear-groups "$@"\' sh',
        "partial False None True False",
    ),
}


@pytest.mark.parametrize(("words", "seen"), NAMESPACES.values(), ids=NAMESPACES)
def test_conclusions_about_a_process_need_a_proc_that_proves_them(words: str, seen: str) -> None:
    need(os.getuid() == 0, "namespaces need root")
    done = subprocess.run(
        ["sh", "-c", f'{words} "$@"', "sh", sys.executable, "-c", TELL],
        cwd=HERE,
        env={**os.environ, "PYTHONPATH": str(HERE), "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (done.stdout.strip(), done.stderr) == (seen, "")


def test_a_process_is_distinguished_from_a_later_one_with_its_pid() -> None:
    start = procfs.start_of(os.getpid())
    assert start
    assert procfs.runs(os.getpid(), start) is True
    assert procfs.runs(os.getpid(), str(int(start) - 1)) is False
    assert procfs.runs(os.getpid(), "") is None


def test_a_zombie_has_ended() -> None:
    child = subprocess.Popen(["true"])
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    assert procfs.start_of(child.pid) == ""
    assert procfs.runs(child.pid, "1") is False
    child.wait()


FIRST_THREAD_ENDS = """
import ctypes, threading, time
threading.Thread(target=time.sleep, args=(600,)).start()
print(flush=True)
ctypes.CDLL(None).pthread_exit(None)
"""


def test_a_process_whose_first_thread_has_ended_runs_on() -> None:
    child = subprocess.Popen([sys.executable, "-c", FIRST_THREAD_ENDS], stdout=subprocess.PIPE)
    try:
        assert child.stdout
        child.stdout.readline()
        eventually(lambda: procfs.stat(child.pid)[:1] == ["Z"], "its first thread has ended")
        assert procfs.start_of(child.pid)
    finally:
        child.kill()
        child.communicate()


@pytest.mark.parametrize("pid", [-1, 0, (1 << 22) + 1, 1 << 40])
def test_an_impossible_pid_belongs_to_no_process(pid: int) -> None:
    assert procfs.runs(pid, "1") is False
