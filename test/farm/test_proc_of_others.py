"""Farmers whose /proc is missing, hides processes, or belongs to another pid namespace."""

from __future__ import annotations

import os
import re
import signal

import pytest
from farming import children, eventually, lives, need, send
from farms import Farm, words_of

NOT_MOUNTED = ("unshare", "--mount", "sh", "-c", 'mount -t tmpfs none /proc && exec "$@"', "sh")
HIDDEN = (
    *("unshare", "--mount", "sh", "-c"),
    'mount -t proc -o hidepid=2 proc /proc && exec setpriv --reuid=54321 --regid=54321 --clear-groups "$@"',
    "sh",
)
STAYS = "[ $TASKFARMER_ATTEMPT -gt 1 ] || sleep 1000"
DEAF = "[ $TASKFARMER_ATTEMPT -gt 1 ] || { trap '' TERM; while :; do sleep 0.2; done; }"
OWN = """
from taskfarmer.runners import BasicRunner


class Own(BasicRunner):
    def run(self, taskid, command, logfh):
        return super().run(taskid, command, logfh)


class Deaf(Own):
    def terminate(self):
        pass
"""


@pytest.fixture
def rooted(farm: Farm) -> Farm:
    """A farm with runners of the user's own, where mounts can be made."""
    need(os.getuid() == 0, "namespaces and mounts need root")
    (farm.folder / "mine.py").write_text(OWN)
    (farm.folder / "mine.ini").write_text("[own]\nRunner = mine.Own\n[deaf]\nRunner = mine.Deaf\n")
    return farm


def test_a_farmer_with_the_proc_of_another_namespace_signals_no_process_of_others(rooted: Farm) -> None:
    rooted.write("sleep 0.3; sleep 1000 & setsid sleep 1000 &", "sleep 0.3")
    alive = rooted.folder / "alive"
    inside = f"""
        for i in $(seq 40); do sleep 1001 & others="$others $!"; done
        "$@"; status=$?
        for other in $others; do kill -0 $other && echo $other; done > {alive}
        kill $others; exit $status"""
    before = ("unshare", "--pid", "--fork", "--kill-child", "bash", "-c", inside, "bash")
    farmer = rooted.run("-n", 1, before=before)
    assert farmer.wait() == 0, farmer.said
    assert len(alive.read_text().split()) == 40
    assert len(re.findall("/proc does not show this farmer", farmer.said)) == 1
    assert "task 0 left 1 process," in farmer.said


@pytest.mark.parametrize(
    ("runner", "command"),
    [("default", STAYS), ("default", DEAF), ("own", STAYS), ("deaf", DEAF)],
    ids=["sleeps", "is deaf", "own runner", "own runner is deaf"],
)
def test_without_proc_the_tasks_of_a_stopped_farmer_are_ended(rooted: Farm, runner: str, command: str) -> None:
    rooted.write(rooted.begun(command), "true")
    farmer = rooted.start("-n", 2, "-r", runner, "--grace", 1, before=NOT_MOUNTED)
    rooted.wait_for_tasks(0)
    farmer.signal(signal.SIGTERM)
    assert farmer.wait() == 75, farmer.said
    rooted.no_survivors()
    assert rooted.run("-n", 2, "-r", runner).wait() == 0
    rooted.check()


@pytest.mark.parametrize("runner", ["default", "own"])
def test_without_proc_the_task_of_a_killed_worker_is_ended_and_run_again(rooted: Farm, runner: str) -> None:
    rooted.write(rooted.begun(STAYS))
    farmer = rooted.start("-n", 1, "-r", runner, before=NOT_MOUNTED)
    rooted.wait_for_tasks(0)
    (worker,) = children(farmer.pid)
    before = [pid for pid in rooted.processes() if pid not in (farmer.pid, worker)]
    assert before
    send(worker, signal.SIGKILL)
    assert farmer.wait() == 0, farmer.said
    assert not [pid for pid in before if lives(pid)]
    rooted.check()


def test_without_proc_what_is_left_in_a_process_group_is_ended_with_its_task(rooted: Farm) -> None:
    gate = f"until [ -e {rooted.folder}/go ]; do sleep 0.05; done"
    rooted.write("sleep 1002 & true", rooted.begun(gate))
    farmer = rooted.start("-n", 1, "--leftovers", "end", before=NOT_MOUNTED)
    rooted.wait_for_tasks(1)
    left = [pid for pid in rooted.processes() if b"1002" in words_of(pid)]
    (rooted.folder / "go").touch()
    assert left == []
    assert farmer.wait() == 0, farmer.said


def test_without_proc_a_task_waits_for_all_that_it_left(rooted: Farm) -> None:
    done = rooted.folder / "done"
    rooted.write(f"(setsid sh -c 'sleep 0.3; touch {done}' &) ; true", f"ls {done}")
    farmer = rooted.run("-n", 1, "--leftovers", "wait", before=NOT_MOUNTED)
    assert farmer.wait() == 0, farmer.said


def test_without_proc_a_command_runs_that_is_too_long_for_an_argument(rooted: Farm) -> None:
    rooted.write(f"echo there; : {'x' * 140_000}")
    farmer = rooted.run("-n", 1, before=NOT_MOUNTED)
    assert farmer.wait() == 0, farmer.said
    assert rooted.log(0) == "there\n"


@pytest.mark.parametrize(("leftovers", "seconds"), [("keep", 1003), ("wait", 0.3), ("end", 1003)])
def test_without_proc_a_users_runner_runs_every_task(rooted: Farm, leftovers: str, seconds: float) -> None:
    rooted.write(*[f"(sleep {seconds} &) ; true"] * 3)
    farmer = rooted.run("-n", 1, "-r", "own", "--leftovers", leftovers, before=NOT_MOUNTED)
    assert farmer.wait() == 0, farmer.said
    rooted.no_survivors()


def test_processes_are_ended_although_those_of_others_are_hidden(rooted: Farm) -> None:
    for folder in (rooted.folder, *rooted.folder.parents):
        if str(folder).startswith("/tmp/"):
            folder.chmod(0o755)
    for folder in (rooted.folder, rooted.started):
        os.chown(folder, 54321, 54321)
    rooted.write(rooted.begun(f"(setsid sleep 1000 &) ; {STAYS}"))
    farmer = rooted.start("-n", 1, before=HIDDEN)
    rooted.wait_for_tasks(0)
    eventually(lambda: len(rooted.processes()) >= 4, "all run")
    farmer.signal(signal.SIGTERM)
    assert farmer.wait() == 75, farmer.said
    assert farmer.said.count("hidepid") == 1, farmer.said
    rooted.no_survivors()
    rooted.check()
