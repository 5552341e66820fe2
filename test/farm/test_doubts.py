"""In a Slurm job the farmer doubts failures: Slurm refuses new steps before it signals the end of the job."""

from __future__ import annotations

import signal
import time

import pytest

from support.farming import eventually
from support.farms import Farm


@pytest.fixture(autouse=True)
def job(farm: Farm) -> None:
    farm.environment = {"SLURM_JOB_ID": "77", "SLURM_JOB_END_TIME": str(int(time.time()) + 7200)}


def test_tasks_that_failed_just_before_the_job_was_stopped_are_run_again(farm: Farm) -> None:
    failing = f"[ -e {farm.folder}/again ] || exit 1"
    farm.write(*[farm.marked(failing)] * 8)
    farmer = farm.start("-n", 3, "--grace", 1)
    farm.wait_for_tasks(0, 1, 2)
    farmer.signal(signal.SIGUSR1)
    assert farmer.wait() == 75, farmer.said
    report = farm.check()
    assert (report.failed, report.finished) == (set(), set())
    assert {line.task for line in report.lines} == {0, 1, 2}, "no slot began another one"
    (farm.folder / "again").touch()
    assert farm.run("-n", 3).wait() == 0
    assert farm.places() == ([], list(range(8)), [])


def test_many_failures_share_one_period_of_doubt(farm: Farm) -> None:
    farm.write(*["true", "exit 3", "false", "true"] * 50, "exit 4")
    farmer = farm.run("-n", 3)
    assert farmer.wait() == 1, farmer.said
    report = farm.check()
    failed = {number for number in range(200) if number % 4 in (1, 2)} | {200}
    assert (report.failed, report.finished) == (failed, set(range(200)) - failed)
    assert {line.attempt for line in report.lines} == {1}
    slices = farm.slices()
    assert all(one["dur"] < 4_000_000 for one in slices), "doubt is no part of a task's time"
    first, last = (function(one["ts"] for one in slices) for function in (min, max))
    assert last - first < 50 * 5_000_000, "fewer than one in two was doubted"


def test_other_tasks_continue_while_a_failure_is_in_doubt(farm: Farm) -> None:
    farm.write(farm.marked("false"), *[farm.marked("true")] * 3)
    farmer = farm.start("-n", 2)
    farm.wait_for_tasks(0, 1, 2, 3)
    eventually(lambda: farm.check(views=False).failed == {0}, "the failure is recorded")
    assert farm.check(views=False).finished == {1, 2, 3}
    assert farmer.wait() == 1, farmer.said


def test_an_unfinished_task_is_not_doubted(farm: Farm) -> None:
    farm.write("[ $TASKFARMER_ATTEMPT -gt 1 ] || exit 85", "true")
    farmer = farm.run("-n", 1, "--warn-signal", "USR2")
    assert farmer.wait() == 0, farmer.said
    assert farm.check().finished == {0, 1}
