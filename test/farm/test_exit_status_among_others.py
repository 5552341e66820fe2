"""The exit status of a farmer that has nothing left to take: 0 while others work, and the farm's for the last one."""

from __future__ import annotations

import signal

import pytest
from farming import eventually, send, tree
from farms import Farm, Farmer

FAILS = "exit 3"


def waits_for(farm: Farm, name: str) -> str:
    """A task that goes on until there is a file of this name."""
    return farm.begun(f"until [ -e {farm.folder}/{name} ]; do sleep 0.05; done")


def go(farm: Farm, name: str = "go") -> None:
    (farm.folder / name).touch()


def busy(farm: Farm, *options: object) -> Farmer:
    """A farmer that has taken the first task of the list, and nothing else."""
    farmer = farm.start("-n", 1, *options)
    farm.wait_for_tasks(0)
    return farmer


@pytest.mark.parametrize("quiet", [(), ("--quiet",)])
def test_a_farmer_that_leaves_before_others_exits_with_0_although_its_tasks_failed(
    farm: Farm, quiet: tuple[str, ...]
) -> None:
    farm.write(waits_for(farm, "go"), FAILS, "true")
    last = busy(farm)
    early = farm.run("-n", 1, *quiet)
    assert early.wait() == 0, early.said
    assert "failed: 1" in early.said
    assert "other farmers still hold tasks: exit status 0" in early.said
    go(farm)
    assert last.wait() == 1, last.said
    assert farm.places() == ([], [0, 2], [1])


def test_the_last_farmer_tells_of_failures_of_others_and_of_earlier_runs(farm: Farm) -> None:
    farm.write(FAILS)
    assert farm.run().wait() == 1
    farm.append(f"{waits_for(farm, 'go')}\ntrue\n")
    last = farm.start("-n", 1)
    farm.wait_for_tasks(1)
    assert farm.run("-n", 1).wait() == 0, "its own part is done"
    go(farm)
    assert last.wait() == 1, "although its own tasks are finished"
    assert farm.run().wait() == 1, "as any later one"


def test_a_farmer_that_is_stopped_and_gives_nothing_back_exits_with_0_while_others_work(farm: Farm) -> None:
    farm.write(waits_for(farm, "go"), farm.begun("trap 'exit 0' TERM; sleep 1000 & wait"), FAILS)
    last = busy(farm)
    stopped = farm.start("-n", 2)
    farm.wait_for_tasks(1)
    eventually(lambda: "task 2 failed" in stopped.said, "the failure is known")
    stopped.signal(signal.SIGTERM)
    assert stopped.wait() == 0, stopped.said
    go(farm)
    assert last.wait() == 1


def test_unprocessed_tasks_are_told_whoever_works(farm: Farm) -> None:
    farm.write(waits_for(farm, "go"), farm.begun("[ $TASKFARMER_ATTEMPT -gt 1 ] || sleep 1000"), FAILS)
    last = busy(farm)
    stopped = farm.start("-n", 2, "--grace", 1)
    farm.wait_for_tasks(1)
    stopped.signal(signal.SIGTERM)
    assert stopped.wait() == 75, stopped.said
    go(farm)
    assert last.wait() == 1


def test_a_farmer_that_waits_for_the_others_exits_with_the_farm_s_status(farm: Farm) -> None:
    farm.write(waits_for(farm, "go"), FAILS)
    last = busy(farm)
    waiting = farm.start("-n", 1, "--wait")
    eventually(lambda: farm.places()[2] == [1], "the failure is recorded: the task is not held any more")
    go(farm)
    assert (waiting.wait(), last.wait()) == (1, 1), waiting.said


def test_what_a_killed_farmer_held_is_not_left_to_it(farm: Farm) -> None:
    """It is no living one: the tasks are waited for, and the failure is told."""
    farm.write(farm.begun("[ $TASKFARMER_ATTEMPT -gt 1 ] || sleep 1000"), FAILS)
    killed = busy(farm, "--grace", 1)
    for pid in reversed(tree(killed.pid)):
        send(pid, signal.SIGKILL)
    killed.wait()
    after = farm.run("-n", 1, "--grace", 1)
    assert after.wait() == 1, after.said
    assert farm.places() == ([], [0], [1])
