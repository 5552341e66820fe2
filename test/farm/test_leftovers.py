"""Processes that a task leaves when its first process has exited: kept, awaited, or killed with it."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from support.farming import children, eventually, is_running, need, send
from support.farms import TEST, Farm

RUNNERS = """
import subprocess

from taskfarmer.runners import BasicRunner


class Argv(BasicRunner):
    def argv(self, taskid, command):
        return super().argv(taskid, f"nice {command}")


class Run(BasicRunner):
    def run(self, taskid, command, logfh):
        return super().run(taskid, command, logfh)


class Waits:
    '''Starts a helper that exits at once, runs the task, and only then reads the helper's exit status.'''

    def run(self, taskid, command, logfh):
        helper = subprocess.Popen(['sh', '-c', 'exit 7'])
        subprocess.run(['bash', '-c', command], stdout=logfh, stderr=logfh)
        return helper.wait()
"""
NAMES = {"argv": "Argv", "run": "Run", "waits": "Waits"}
ANY_RUNNER = pytest.mark.parametrize("runner", ["default", "argv", "run"])
IN_ITS_GROUP = "sleep 1000 > /dev/null 2>&1 &"
IN_A_SESSION = "(setsid sleep 1000 > /dev/null 2>&1 &) ;"


@pytest.fixture
def plugged(farm: Farm) -> Farm:
    """A farm with custom runners."""
    (farm.folder / "mine.py").write_text(RUNNERS)
    (farm.folder / "mine.ini").write_text("".join(f"[{name}]\nRunner = mine.{kind}\n" for name, kind in NAMES.items()))
    return farm


def script(farm: Farm, text: str) -> str:
    """A command without syntax that only bash understands, so that each runner can prefix it with a word."""
    path = farm.folder / f"script{len(list(farm.folder.glob('script*')))}"
    path.write_text(f"#!/bin/bash\n{text}\n")
    path.chmod(0o755)
    return str(path)


def sleepers(farm: Farm) -> list[int]:
    """The processes of this test that are `sleep 1000`."""
    return [pid for pid in farm.processes() if words(pid) == [b"sleep", b"1000"]]


def words(pid: int) -> list[bytes]:
    """The command line of a process; empty if it has exited."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")[:-1]
    except OSError:
        return []


# --- keep --------------------------------------------------------------------------------------------


@ANY_RUNNER
@pytest.mark.parametrize("how", [IN_ITS_GROUP, IN_A_SESSION], ids=["in its group", "in a session"])
def test_processes_of_a_task_are_kept_until_the_farmer_exits_and_the_task_is_named(
    plugged: Farm, runner: str, how: str
) -> None:
    plugged.write(
        "true",
        script(plugged, f"{how} {how} true"),
        plugged.marked(f"until [ -e {plugged.folder}/go ]; do sleep 0.05; done"),
    )
    farmer = plugged.start("-n", 1, "-r", runner)
    plugged.wait_for_tasks(2)
    eventually(lambda: len(sleepers(plugged)) >= 2, "they run on")
    (plugged.folder / "go").touch()
    assert farmer.wait() == 0, farmer.said
    assert farmer.said.count("task 1 left 2 processes") == 1, farmer.said
    assert farmer.said.count(" left ") == 1, farmer.said
    plugged.no_survivors()
    plugged.check()


def test_a_task_is_named_that_left_processes_as_the_last_one(farm: Farm) -> None:
    farm.write(f"{IN_A_SESSION} true")
    farmer = farm.run("-n", 1, "-q")
    assert farmer.wait() == 0
    assert "task 0 left 1 process," in farmer.said
    farm.no_survivors()


def test_the_right_task_is_named_although_its_worker_serves_several_slots(farm: Farm) -> None:
    """If a process is in another session, only its environment shows which task started it."""
    gate = f"until [ -e {farm.folder}/go ]; do sleep 0.05; done"
    leaves = {3: IN_A_SESSION, 8: f"{IN_ITS_GROUP} {IN_A_SESSION}", 14: IN_ITS_GROUP}
    # processes of a running task do not count as left behind yet
    farm.write(*(farm.marked(f"{leaves.get(n, IN_A_SESSION)} {'true' if n in leaves else gate}") for n in range(17)))
    farmer = farm.start("-n", 17)
    farm.wait_for_tasks(*range(17))
    eventually(lambda: farmer.said.count(" left ") >= 3, lambda: farmer.said)
    (farm.folder / "go").touch()
    said = dict(re.findall(r"task (\d+) left (\d+) process", farmer.said))
    assert said == {"3": "1", "8": "2", "14": "1"}, farmer.said
    assert farmer.wait() == 0
    farm.no_survivors()


def test_many_tasks_that_leave_processes_are_counted(farm: Farm) -> None:
    farm.write(*[f"{IN_ITS_GROUP} true"] * 12)
    farmer = farm.run("-n", 2)
    assert farmer.wait() == 0
    assert len(re.findall(r"task \d+ left", farmer.said)) == 5, farmer.said
    assert "12 tasks left 12 processes" in farmer.said
    assert farmer.said.count("warning") == 7, farmer.said
    farm.no_survivors()


@ANY_RUNNER
def test_processes_that_exit_a_moment_after_their_task_are_not_reported(plugged: Farm, runner: str) -> None:
    plugged.write(*[script(plugged, "echo there > >(sleep 0.02; cat > /dev/null)")] * 5, "true")
    farmer = plugged.run("-n", 1, "-r", runner)
    assert farmer.wait() == 0
    assert " left " not in farmer.said


# --- wait --------------------------------------------------------------------------------------------


@ANY_RUNNER
@pytest.mark.parametrize("detached", ["", "setsid"])
def test_a_task_that_waits_is_finished_when_all_its_processes_have_exited(
    plugged: Farm, runner: str, detached: str
) -> None:
    done = plugged.folder / "done"
    late = script(plugged, f"until [ -e {plugged.folder}/go ]; do sleep 0.05; done; sleep 0.2; touch {done}")
    plugged.write(script(plugged, f"({detached} {late} &) ; touch {plugged.started}/0; exit 3"), f"ls {done}")
    farmer = plugged.start("-n", 1, "-r", runner, "--leftovers", "wait")
    plugged.wait_for_tasks(0)
    (plugged.folder / "go").touch()
    assert farmer.wait() == 1, farmer.said
    first = next(one for one in plugged.slices() if one["args"]["id"] == 0)
    assert first["args"]["exit_status"] == 3
    assert first["dur"] >= 0.2e6
    assert plugged.places() == ([], [1], [0])
    assert " left " not in farmer.said
    plugged.check()


@ANY_RUNNER
def test_a_task_that_waits_when_the_farmer_is_stopped_is_retried(plugged: Farm, runner: str) -> None:
    plugged.write(script(plugged, f"{IN_A_SESSION} touch {plugged.started}/0"), "true")
    farmer = plugged.start("-n", 1, "-r", runner, "--leftovers", "wait", "--grace", 1)
    plugged.wait_for_tasks(0)
    eventually(lambda: len(children(farmer.pid)) == 1, "the worker")
    eventually(lambda: len(sleepers(plugged)) == 1 and len(plugged.processes()) <= 4, "its first process has ended")
    farmer.signal(signal.SIGTERM)
    assert farmer.wait() == 75, farmer.said
    plugged.no_survivors()
    assert plugged.places() == ([0, 1], [], [])
    assert len(plugged.attempts(0)) == 1
    plugged.check()


# --- end ---------------------------------------------------------------------------------------------


@ANY_RUNNER
@pytest.mark.parametrize("how", [IN_ITS_GROUP, IN_A_SESSION], ids=["in its group", "in a session"])
def test_processes_are_killed_with_their_task(plugged: Farm, runner: str, how: str) -> None:
    plugged.write(
        script(plugged, f"{how} {how} exit 3"), plugged.marked(f"until [ -e {plugged.folder}/go ]; do sleep 0.05; done")
    )
    farmer = plugged.start("-n", 1, "-r", runner, "--leftovers", "end")
    plugged.wait_for_tasks(1)
    left = sleepers(plugged)
    (plugged.folder / "go").touch()
    assert left == []
    assert farmer.wait() == 1, farmer.said
    assert plugged.places() == ([], [1], [0])
    plugged.check()


@ANY_RUNNER
def test_processes_have_the_grace_time_before_they_are_killed_with_their_task(plugged: Farm, runner: str) -> None:
    heeds = script(
        plugged,
        f"trap 'touch {plugged.folder}/heeded; exit' TERM; touch {plugged.started}/a; while :; do sleep 0.05; done",
    )
    deaf = script(plugged, f"trap '' TERM; touch {plugged.started}/b; while :; do sleep 0.05; done")
    wait = f"until [ -e {plugged.started}/a -a -e {plugged.started}/b ]; do sleep 0.05; done"
    plugged.write(script(plugged, f"{heeds} & setsid {deaf} & {wait}"), "true")
    farmer = plugged.run("-n", 1, "-r", runner, "--leftovers", "end", "--grace", 1)
    assert farmer.wait() == 0, farmer.said
    assert (plugged.folder / "heeded").exists()
    first, second = sorted(plugged.slices(), key=lambda one: float(one["ts"]))
    assert second["ts"] - first["ts"] - first["dur"] >= 0.9e6, "the task ended with its first process"
    plugged.no_survivors()


def test_the_option_works_in_a_job_script(farm: Farm) -> None:
    farm.write("true")
    words = [sys.executable, "-m", "taskfarmer", "submit", farm.list, "--time", "2h", "--leftovers", "end", "--dry-run"]
    shown = subprocess.run(words, env={**os.environ, "PYTHONPATH": str(TEST.parent)}, capture_output=True, check=True)
    assert b" --leftovers=end " in shown.stdout


# --- orphans and children of runners -----------------------------------------------------------------


def zombies() -> list[tuple[int, int]]:
    """(pid, parent) of all zombies."""
    found = []
    for name in filter(str.isdigit, os.listdir("/proc")):
        try:
            words = Path(f"/proc/{name}/stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if words[0] == "Z":
            found.append((int(name), int(words[1])))
    return found


@ANY_RUNNER
def test_orphans_are_reaped_while_their_task_runs(plugged: Farm, runner: str) -> None:
    ended = plugged.folder / "ended"
    orphans = f"for i in $(seq 40); do (sh -c 'sleep 0.02; echo >> {ended}' &); done"
    gate = f"until [ -e {plugged.folder}/go ]; do sleep 0.05; done"
    plugged.write(script(plugged, f"{orphans}; touch {plugged.started}/0; {gate}"))
    farmer = plugged.start("-n", 1, "-r", runner)
    plugged.wait_for_tasks(0)
    eventually(lambda: ended.exists() and len(ended.read_bytes()) == 40, "all have ended")

    def ours() -> list[int]:
        tree = set(plugged.processes())
        return [pid for pid, parent in zombies() if parent in tree]

    eventually(lambda: not ours(), lambda: f"zombies {ours()}")
    (plugged.folder / "go").touch()
    assert farmer.wait() == 0, farmer.said


def test_a_runner_gets_the_exit_status_of_its_child(plugged: Farm) -> None:
    plugged.write(*["for i in $(seq 20); do (sleep 0.02 &); done; sleep 0.3"] * 2)
    farmer = plugged.run("-n", 2, "-r", "waits")
    assert farmer.wait() == 1, farmer.said
    assert {one["args"]["exit_status"] for one in plugged.slices()} == {7}
    plugged.check()


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSEGV])
def test_a_killed_worker_with_a_custom_runner_leaves_no_process(plugged: Farm, number: int) -> None:
    again = "[ $TASKFARMER_ATTEMPT -gt 1 ] ||"
    plugged.write(plugged.marked(f"{again} {{ {IN_A_SESSION} {IN_ITS_GROUP} sleep 1000; }}"))
    farmer = plugged.start("-n", 1, "-r", "run")
    plugged.wait_for_tasks(0)
    (worker,) = children(farmer.pid)
    before = eventually(lambda: found if len(found := sleepers(plugged)) == 3 else None, "all run")
    send(worker, number)
    assert farmer.wait() == 0, farmer.said
    assert not [pid for pid in before if is_running(pid)]
    plugged.check()


# --- fork bombs --------------------------------------------------------------------------------------

BOMB = """
#define _GNU_SOURCE
#include <signal.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <time.h>
#include <unistd.h>
int main(int argc, char **argv) {
    time_t end = time(0) + 100; signal(SIGCHLD, SIG_IGN); signal(SIGTERM, SIG_IGN); prctl(PR_SET_NAME, "tfbomb");
    while (time(0) < end) {
        pid_t pid = fork();
        if (pid == 0 && argc > 1) setsid();
        if (pid < 0) usleep(1000);
    }
    return 0;
}
"""


@pytest.mark.parametrize("runner", ["default", "run"])
@pytest.mark.parametrize("how", ["", "setsid"], ids=["in a group", "in sessions"])
def test_no_process_of_a_fork_bomb_survives(plugged: Farm, runner: str, how: str) -> None:
    need(os.getuid() == 0 and shutil.which("setpriv"), "a limit for this bomb alone needs root and setpriv")
    need(shutil.which("cc"), "a C compiler is missing")
    (plugged.folder / "bomb.c").write_text(BOMB)
    assert os.system(f"cc -O1 -o {plugged.folder}/bomb {plugged.folder}/bomb.c") == 0
    for folder in (plugged.folder, *plugged.folder.parents):
        if folder.stat().st_uid == os.getuid() and str(folder).startswith("/tmp/"):
            folder.chmod(0o755)
    uid = 60000 + os.getpid() % 5000
    plugged.write(f"exec setpriv --reuid={uid} --clear-groups prlimit --nproc=150 {plugged.folder}/bomb {how}")
    farmer = plugged.start("-n", 1, "-r", runner, "--grace", 0)

    def bombs() -> list[int]:
        return [int(name) for name in filter(str.isdigit, os.listdir("/proc")) if comm(name) == "tfbomb\n"]

    try:
        eventually(lambda: len(bombs()) >= 140, "the bomb has gone off", 60)
        farmer.signal(signal.SIGTERM)
        assert farmer.wait(100) == 75, farmer.said
        assert bombs() == []
        assert "SIGKILL" not in farmer.said
    finally:
        end = time.monotonic() + 60
        while (left := bombs()) and time.monotonic() < end:
            for number in (signal.SIGSTOP, signal.SIGKILL):
                for pid in left:
                    send(pid, number)


def comm(name: str) -> str:
    try:
        return Path(f"/proc/{name}/comm").read_text()
    except OSError:
        return ""
