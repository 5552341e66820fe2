"""If workers or farmers are killed with SIGKILL, no task outlives them, and none is lost."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest

from support.farming import eventually, is_running, send, tree
from support.farms import Farm, Farmer

# the farmer is the parent of the task's parent, its worker
KILL_FARMER = "kill -9 $(cut -d ' ' -f 4 /proc/$PPID/stat)"


def staying(farm: Farm, how: str = "sleep 1000") -> str:
    """A task that keeps running at its first attempt, and finishes at the second."""
    return farm.marked(f"[ $TASKFARMER_ATTEMPT -gt 1 ] || {{ {how}; }}")


def runs(pid: int, task: int) -> bool:
    """Whether a process belongs to a task; False if it has exited."""
    try:
        return b"PROC_NUMBER=%d" % task in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    except OSError:
        return False


def worker_of(farm: Farm, task: int) -> int:
    """The pid of the worker that runs a task: the parent of its process."""
    for pid in farm.processes():
        if runs(pid, task):
            while runs(pid, task):
                pid = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
            return pid
    raise AssertionError(f"task {task} does not run")


def kill_workers_first(farmer: Farmer) -> None:
    """Kill a farmer and its workers at the same instant, so that none of them can terminate the tasks."""
    pids = [farmer.pid, *farmer.workers()]
    for pid in pids:
        send(pid, signal.SIGSTOP)
    # the farmer last: the kernel continues stopped processes when their parent dies
    for pid in reversed(pids):
        send(pid, signal.SIGKILL)
    farmer.wait()


@pytest.mark.parametrize(
    "how", ["sleep 1000", "(setsid sleep 1000 &) ; sleep 1000", "trap '' TERM; while :; do sleep 0.2; done"]
)
def test_a_killed_worker_is_replaced_and_its_task_is_killed_and_retried(farm: Farm, how: str) -> None:
    farm.write(staying(farm, how), *["sleep 0.01"] * 20)
    farmer = farm.start("-n", 2)
    farm.wait_for_tasks(0)
    worker = worker_of(farm, 0)
    before = {pid for pid in tree(worker) if pid != worker}
    assert before
    send(worker, signal.SIGKILL)
    assert farmer.wait() == 0, farmer.said
    assert not [pid for pid in before if is_running(pid)]
    farm.no_survivors()
    assert farm.attempts(0) == [(1, "returned"), (2, "finished")]
    assert farm.places() == ([], list(range(21)), [])
    assert "worker for slot" in farmer.said


def test_workers_that_are_killed_repeatedly_lose_no_task(farm: Farm) -> None:
    farm.write(*[f"echo $TASKFARMER_ATTEMPT >> {farm.started}/$PROC_NUMBER; sleep 0.02"] * 150)
    farmer = farm.start("-n", 3)
    for round_number in range(12):
        eventually(lambda: farmer.workers() or farmer.ended, "there are workers")
        workers = farmer.workers()
        if farmer.ended or not workers:
            break
        send(workers[round_number % len(workers)], signal.SIGKILL)
        time.sleep(0.1)
    assert farmer.wait() == 0, farmer.said
    farm.no_survivors()
    assert "Traceback" not in farmer.said
    assert farm.places() == ([], list(range(150)), [])
    farm.check()
    assert len(os.listdir(farm.started)) == 150


def test_a_stopped_worker_does_not_keep_its_farmer_from_exiting(farm: Farm) -> None:
    farm.write(farm.marked("sleep 1000"), farm.marked("sleep 1000"))
    farmer = farm.start("-n", 2, "--grace", 1)
    farm.wait_for_tasks(0, 1)
    send(worker_of(farm, 0), signal.SIGSTOP)
    farmer.signal(signal.SIGUSR1)
    assert farmer.wait(30) == 75
    farm.no_survivors()
    assert farm.places() == ([0, 1], [], [])
    farm.check()


@pytest.mark.parametrize(
    "how", ["sleep 1000", "trap '' TERM; while :; do sleep 0.2; done", "(setsid sleep 1000 &) ; sleep 1000"]
)
def test_the_tasks_of_a_killed_farmer_are_killed_and_the_next_farmer_runs_them(farm: Farm, how: str) -> None:
    farm.write(*[staying(farm, how)] * 3, *["true"] * 10)
    farmer = farm.start("-n", 3, "--grace", 1)
    farm.wait_for_tasks(0, 1, 2)
    farmer.signal(signal.SIGKILL)
    assert farmer.wait() == -signal.SIGKILL
    farm.no_survivors(10)
    assert farm.run("-n", 3).wait() == 0
    assert farm.places() == ([], list(range(13)), [])
    report = farm.check()
    assert {line.attempt for line in report.lines if line.task < 3} == {2}


def test_a_farmer_that_is_restarted_at_once_runs_the_tasks_of_the_killed_one(farm: Farm) -> None:
    """The workers of the killed farmer still give its tasks their grace time."""
    farm.write(staying(farm, "trap '' TERM; while :; do sleep 0.2; done"), "true")
    farmer = farm.start("-n", 1, "--grace", 3)
    farm.wait_for_tasks(0)
    farmer.signal(signal.SIGKILL)
    farmer.wait()
    assert farm.processes(), "its worker is there for its grace time"
    assert farm.run("-n", 1, "--grace", 3).wait() == 0
    farm.no_survivors()
    assert farm.places() == ([], [0, 1], [])
    assert farm.attempts(0)[-1] == (2, "finished")


def test_a_task_that_survives_its_worker_and_farmer_is_not_started_a_second_time(farm: Farm) -> None:
    """No process is left to kill the task; while it lives it holds its farmer's alive lock, and so keeps its claim."""
    go = farm.folder / "go"
    farm.write(staying(farm, f"while ! [ -e {go} ]; do sleep 0.02; done"), "true")
    farmer = farm.start("-n", 1)
    farm.wait_for_tasks(0)
    kill_workers_first(farmer)
    assert farm.processes(), "the task lives on"
    second = farm.run("-n", 1, "--grace", 1)
    assert farm.check(views=False).held == {0}
    assert 0 not in farm.view("finished")
    go.touch()
    farm.no_survivors(10)
    assert farm.run("-n", 1).wait() == 0, second.said
    assert farm.places() == ([], [0, 1], [])
    assert farm.log(0).count("attempt 2") == 1
    farm.check()


@pytest.mark.parametrize("deaths", [1, 2])
def test_a_task_that_kills_its_farmer_is_failed_as_lost_and_the_others_complete(farm: Farm, deaths: int) -> None:
    # one slot: a death counts for each task that ran at that moment, the neighbours of the guilty one too
    farm.write("true", KILL_FARMER, *["sleep 0.01"] * 20)
    ends = []
    for _ in range(deaths + 5):
        farmer = farm.run("-n", 1, "--grace", 1, "--max-deaths", deaths)
        ends.append(farmer.wait())
        farm.no_survivors(10)
        if ends[-1] != -signal.SIGKILL:
            break
    assert ends[-1] == 1, farmer.said
    assert len(ends) > deaths + 1
    assert farm.places() == ([], [0, *range(2, 22)], [1])
    assert "lost" in farmer.said
    attempt, outcome = farm.attempts(1)[-1]
    assert (attempt, outcome) == (len(ends), "lost")


def test_a_task_that_kills_its_farmer_is_retried_for_ever_if_there_is_no_limit(farm: Farm) -> None:
    farm.write(f"[ $TASKFARMER_ATTEMPT -gt 6 ] || {KILL_FARMER}", "true")
    for _ in range(6):
        assert farm.run("-n", 1, "--grace", 1, "--max-deaths", 0).wait() == -signal.SIGKILL
        farm.no_survivors(10)
    assert farm.run("-n", 1, "--max-deaths", 0).wait() == 0
    assert farm.places() == ([], [0, 1], [])


def test_interruptions_do_not_count_as_deaths(farm: Farm) -> None:
    farm.write(farm.marked("[ $TASKFARMER_ATTEMPT -gt 5 ] || sleep 1000"))
    for _ in range(5):
        farmer = farm.start("-n", 1, "--grace", 1, "--max-deaths", 1)
        farm.wait_for_tasks(0)
        farmer.signal(signal.SIGUSR1)
        assert farmer.wait() == 75, farmer.said
        (farm.started / "0").unlink()
    assert farm.run("--max-deaths", 1).wait() == 0
    assert farm.attempts(0) == [*((number, "returned") for number in range(1, 6)), (6, "finished")]


def test_a_farmer_waits_for_the_processes_of_a_killed_one(farm: Farm) -> None:
    farm.write(staying(farm))
    first = farm.start("-n", 1, "--grace", 1, "--lease", 120)
    farm.wait_for_tasks(0)
    second = farm.start("-n", 1, "--wait")
    eventually(lambda: len([*(farm.workdir / "farmers").glob("*.alive")]) == 2, "the second farmer is there")
    first.signal(signal.SIGKILL)
    assert second.wait() == 0, second.said
    farm.no_survivors(5)
    assert farm.places() == ([], [0], [])
    farm.check()


def test_tasks_whose_results_were_not_committed_when_the_farmer_was_killed_are_retried(farm: Farm) -> None:
    """The last results may be in the result file or not; in both cases each task is recorded once."""
    farm.write(*[f"echo x >> {farm.started}/$PROC_NUMBER"] * 400, farm.marked("sleep 1000"))
    for _ in range(6):
        farmer = farm.start("-n", 2, "--grace", 1)
        eventually(lambda: len(os.listdir(farm.started)) > 50, "some tasks ran", every=0.002)
        farmer.signal(signal.SIGKILL)
        farmer.wait()
        farm.no_survivors(10)
        farm.check(views=False)
    last = farm.start("-n", 2, "--grace", 1)
    farm.wait_for_tasks(400)
    eventually(lambda: farm.check(views=False).finished == set(range(400)), "the others are recorded", 60)
    last.signal(signal.SIGUSR1)
    assert last.wait() == 75
    report = farm.check()
    assert report.finished == set(range(400))
