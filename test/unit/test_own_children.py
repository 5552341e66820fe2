"""A worker reaps the orphans that it adopts, and never a child that code in it has made."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).resolve().parents[2]
SCRIPT = """
import multiprocessing, os, pty, signal, subprocess, sys, time
from pathlib import Path
from taskfarmer.pool.ownchildren import OwnChildren
from taskfarmer.pool.processes import adopt_orphans

WORDS = ["sh", "-c", "exit 7"]


def forked():
    pid = os.fork()
    return pid or os._exit(7)


def in_a_terminal():
    pid, fd = pty.fork()
    return pid or os._exit(7)


def spawned():
    return os.posix_spawnp("sh", WORDS, os.environ)


def posix_spawned():
    return os.posix_spawn("/bin/sh", WORDS, os.environ)


def started():
    return subprocess.Popen(WORDS)


def of_multiprocessing(method):
    one = multiprocessing.get_context(method).Process(target=os._exit, args=(7,))
    one.start()
    return one


def status(child):
    if isinstance(child, int):
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if isinstance(child, subprocess.Popen):
        return child.wait()
    child.join()
    return child.exitcode


def zombies():
    mine = Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()
    return [pid for pid in mine if state(pid) == "Z"]


def state(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:  # it was reaped in the meantime
        return ""


if __name__ == "__main__":
    adopt_orphans()
    own = OwnChildren()
    own.watch()
    signal.signal(signal.SIGCHLD, lambda number, frame: own.reap_others())
    child = eval(sys.argv[1])
    subprocess.run(["bash", "-c", "for i in 1 2 3 4 5 6 7 8 9; do (sleep 0.02 &); done; sleep 0.1; (true &)"])
    end = time.monotonic() + 30
    while len(zombies()) > 1 and time.monotonic() < end:
        subprocess.run(["bash", "-c", "(true &)"])  # whatever ends lets it look again
    print(len(zombies()) < 2, status(child))
"""
WAYS = [
    "forked()",
    "in_a_terminal()",
    "spawned()",
    "posix_spawned()",
    "started()",
    "of_multiprocessing('fork')",
    "of_multiprocessing('spawn')",
]


@pytest.mark.parametrize("way", WAYS)
def test_a_child_keeps_its_status_for_the_code_that_made_it_and_orphans_are_reaped(tmp_path: Path, way: str) -> None:
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    done = subprocess.run(
        [sys.executable, str(script), way],
        env={"PATH": "/usr/bin:/bin", "PYTHONPATH": str(HERE), "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert (done.stdout, done.stderr) == ("True 7\n", "")
