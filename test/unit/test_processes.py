"""Descendants of a process according to /proc."""

from __future__ import annotations

import subprocess
import sys

from support.farming import children as seen_by_tests
from taskfarmer.proctree import children

THREADS = """
import subprocess, sys, threading
child = subprocess.Popen(["sleep", "600"])
print(child.pid, flush=True)
while True:
    threads = [threading.Thread(target=int) for _ in range(4)]
    [thread.start() for thread in threads]
    [thread.join() for thread in threads]
"""


def test_a_child_of_a_process_whose_threads_come_and_go_is_always_seen() -> None:
    parent = subprocess.Popen([sys.executable, "-c", THREADS], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert parent.stdout
    child = int(parent.stdout.readline())
    try:
        for find in (children, seen_by_tests):
            assert {tuple(find(parent.pid)) for _ in range(5000)} == {(child,)}
    finally:
        subprocess.run(["kill", "-KILL", str(parent.pid), str(child)], check=True)
        parent.communicate()


LATE = """
import os, signal, sys
from taskfarmer.proctree import Tree, adopt_orphans

adopt_orphans()
child = os.fork() or os.execvp("sleep", ["sleep", "1000"])
statuses = []


def reap_own():
    if not statuses:  # the child ends right after its caller has found that it runs
        statuses.append(None)
        os.kill(child, signal.SIGTERM)
        os.waitid(os.P_PID, child, os.WEXITED | os.WNOWAIT)
        return {child}
    statuses.append(os.waitpid(child, 0)[1])
    return ()


print(Tree().end(0.0, reap_own=reap_own), statuses[-1])
"""


def test_the_status_of_a_child_that_ends_at_the_last_moment_is_left_to_its_caller() -> None:
    done = subprocess.run([sys.executable, "-c", LATE], capture_output=True, text=True, timeout=60)
    assert (done.stdout, done.stderr) == ("[] 15\n", "")
