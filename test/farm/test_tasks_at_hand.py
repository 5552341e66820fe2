"""A slot has its next task queued while its farmer is busy, but not if that task might start too late."""

from __future__ import annotations

import os
import signal
import time

from support.farming import eventually
from support.farms import Farm

SLOTS = 4
TURNS = 5
TOLD_WITHIN = 0.15
KNOWN = 5 * SLOTS
"""Number of tasks after which a farmer can estimate their duration."""


def goes_on_without_its_farmer(farm: Farm, *options: object) -> bool:
    """Whether tasks start while the farmer is stopped; all tasks that ran have finished when this returns."""

    def witnesses(ending: str) -> int:
        return sum(name.endswith(ending) for name in os.listdir(farm.started))

    def in_the_middle() -> bool:
        newest = max(entry.stat().st_mtime for entry in os.scandir(farm.started))
        return witnesses("begun") - witnesses("ended") == SLOTS and time.time() - newest > TOLD_WITHIN

    farm.write(*[f": > {farm.started}/$PROC_NUMBER.begun; sleep 0.6; : > {farm.started}/$PROC_NUMBER.ended"] * 200)
    farmer = farm.start("-n", SLOTS, *options)
    eventually(lambda: witnesses("begun") >= KNOWN, "some tasks have started")
    times = 0
    for _ in range(TURNS):
        eventually(in_the_middle, "all slots have a task, and the farmer got the reports of earlier ones", every=0.005)
        farmer.signal(signal.SIGSTOP)
        begun = witnesses("begun")
        eventually(lambda: witnesses("ended") == witnesses("begun"), "the started tasks finish")
        times += witnesses("begun") > begun
        farmer.signal(signal.SIGCONT)
        eventually(lambda before=begun: witnesses("begun") > before + SLOTS, "the farmer continues")
    farmer.signal(signal.SIGUSR1)
    assert farmer.wait() == 75, farmer.said
    farm.check()
    return times > TURNS // 2


def test_tasks_start_while_their_farmer_is_busy(farm: Farm) -> None:
    assert goes_on_without_its_farmer(farm)


def test_no_task_is_queued_in_a_slot_when_the_end_is_near(farm: Farm) -> None:
    """A task that fitted when it was handed out may not fit any more when the task before it has finished."""
    assert not goes_on_without_its_farmer(farm, "--timeout", 150)
