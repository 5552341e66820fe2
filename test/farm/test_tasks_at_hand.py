"""A slot has its next task at hand while its farmer is busy, but not where it might come too late for it."""

from __future__ import annotations

import os
import signal
import time

from farming import eventually
from farms import Farm

SLOTS = 4
TURNS = 5
TOLD_WITHIN = 0.15
KNOWN = 5 * SLOTS
"""Tasks after which a farmer knows how long they take."""


def goes_on_without_its_farmer(farm: Farm, *options: object) -> bool:
    """Whether tasks begin while the farmer is stopped; all that ran have ended when this is answered."""

    def witnesses(ending: str) -> int:
        return sum(name.endswith(ending) for name in os.listdir(farm.started))

    def in_the_middle() -> bool:
        newest = max(entry.stat().st_mtime for entry in os.scandir(farm.started))
        return witnesses("begun") - witnesses("ended") == SLOTS and time.time() - newest > TOLD_WITHIN

    farm.write(*[f": > {farm.started}/$PROC_NUMBER.begun; sleep 0.6; : > {farm.started}/$PROC_NUMBER.ended"] * 200)
    farmer = farm.start("-n", SLOTS, *options)
    eventually(lambda: witnesses("begun") >= KNOWN, "some tasks begin")
    times = 0
    for _ in range(TURNS):
        eventually(in_the_middle, "all slots have a task, and the farmer was told of those before", every=0.005)
        farmer.signal(signal.SIGSTOP)
        begun = witnesses("begun")
        eventually(lambda: witnesses("ended") == witnesses("begun"), "what was begun ends")
        times += witnesses("begun") > begun
        farmer.signal(signal.SIGCONT)
        eventually(lambda before=begun: witnesses("begun") > before + SLOTS, "it goes on")
    farmer.signal(signal.SIGUSR1)
    assert farmer.wait() == 75, farmer.said
    farm.check()
    return times > TURNS // 2


def test_tasks_go_on_while_their_farmer_is_busy(farm: Farm) -> None:
    assert goes_on_without_its_farmer(farm)


def test_no_task_waits_in_a_slot_where_the_end_is_near(farm: Farm) -> None:
    """What fitted when it was handed out may fit no more when the task before it has ended."""
    assert not goes_on_without_its_farmer(farm, "--timeout", 150)
