"""SIGXCPU and SIGQUIT stop a farmer like the other stop signals; a task that exceeds its CPU limit fails alone."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest

from support.farming import eventually, tree
from support.farms import Farm, Farmer

AGAIN = 75
STOPS = [signal.SIGXCPU, signal.SIGQUIT]
RUNNERS = """
import subprocess

class Shell:
    def run(self, taskid, command, logfh):
        self.process = subprocess.Popen(command, shell=True, stdout=logfh, stderr=logfh)
        return self.process.wait()

    def terminate(self):
        self.process.terminate()
"""


def plugged(farm: Farm) -> tuple[object, ...]:
    """The options for a custom runner."""
    (farm.folder / "myrunners.py").write_text(RUNNERS)
    (farm.folder / "runners.ini").write_text("[shell]\nRunner = myrunners.Shell\n")
    return "-r", "shell", "--config", farm.folder / "runners.ini"


def nothing_failed(farm: Farm, farmer: Farmer, stop: signal.Signals, tasks: int) -> None:
    assert farmer.wait() == AGAIN, farmer.said
    assert f"{stop.name}: stopping: terminating running tasks" in farmer.said
    farm.no_survivors(seconds=30)
    assert farm.places() == (list(range(tasks)), [], [])
    assert {line.outcome for line in farm.check().lines} <= {"returned"}


@pytest.mark.parametrize("stop", STOPS, ids=lambda stop: stop.name)
def test_the_signal_to_the_farmer_alone_stops_it(farm: Farm, stop: signal.Signals) -> None:
    farm.write(*[farm.marked("sleep 1000")] * 4)
    farmer = farm.start("-n", 2)
    farm.wait_for_tasks(0, 1)
    farmer.signal(stop)
    nothing_failed(farm, farmer, stop, 4)


@pytest.mark.parametrize("own", [False, True], ids=["default runner", "custom runner"])
@pytest.mark.parametrize("stop", STOPS, ids=lambda stop: stop.name)
def test_the_signal_to_the_whole_job_step_fails_no_task(farm: Farm, stop: signal.Signals, own: bool) -> None:
    """Grid Engine sends SIGXCPU to each process of a job: tasks and workers get it as well as the farmer."""
    options = plugged(farm) if own else ()
    farm.write(*[farm.marked("sleep 1000 & wait $!")] * 4)
    farmer = farm.start("-n", 2, *options)
    farm.wait_for_tasks(0, 1)
    for pid in reversed(tree(farmer.pid)):  # the tasks first
        os.kill(pid, stop)
    nothing_failed(farm, farmer, stop, 4)


@pytest.mark.parametrize("own", [False, True], ids=["default runner", "custom runner"])
def test_a_task_that_exceeds_its_own_cpu_limit_has_failed(farm: Farm, own: bool) -> None:
    options = plugged(farm) if own else ()
    farm.write("ulimit -c 0; ulimit -St 1; while :; do :; done", "true")
    farmer = farm.run("-n", 2, *options)
    assert farmer.wait() == 1, farmer.said
    assert farm.places() == ([], [1], [0])
    (line,) = [line for line in farm.check().lines if line.task == 0]
    assert (line.attempt, line.outcome) == (1, "failed")


def test_a_runner_that_ignores_terminate_is_killed_after_the_grace_time(farm: Farm) -> None:
    options = plugged(farm)
    farm.write(farm.marked("trap '' TERM; while :; do sleep 0.1; done"))
    farmer = farm.start("-n", 1, "--grace", 60, *options)
    farm.wait_for_tasks(0)
    farmer.signal(signal.SIGINT)
    farmer.says("SIGINT: stopping: terminating running tasks")
    begin = time.monotonic()
    farmer.signal(signal.SIGINT)
    assert farmer.wait() == AGAIN, farmer.said
    assert time.monotonic() - begin < 50, "the second SIGINT leaves no grace time"
    farm.no_survivors(seconds=30)


def test_a_signal_during_python_startup_is_blocked_until_the_farmer_handles_it(farm: Farm) -> None:
    """A farmer blocks its stop signals from its first statement on."""
    farm.write("sleep 1000")
    farmer = farm.start("-n", 1)

    def held() -> bool:
        status = Path(f"/proc/{farmer.pid}/status").read_text()
        masks = [int(line.split()[1], 16) for line in status.splitlines() if line[:7] in ("SigBlk:", "SigCgt:")]
        return any(mask >> (signal.SIGXCPU - 1) & 1 for mask in masks)

    eventually(held, "SIGXCPU is held or handled", every=0.001)
    farmer.signal(signal.SIGXCPU)
    assert farmer.wait() == AGAIN, farmer.said
