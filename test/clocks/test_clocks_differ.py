"""Clocks of nodes that are wrong, and clocks that jump: nobody is taken for dead, and times stay sane."""

from __future__ import annotations

import time

from nodes import Cluster

HOUR, DAY = 3600, 86400
LEASE = 3


def test_an_hour_ahead_and_a_day_forth_and_back_expel_nobody_and_every_duration_is_true(cluster: Cluster) -> None:
    """A clock that is set while a task runs changes nothing about what the task took."""
    farm = cluster.farm
    farm.write(*[cluster.staying()] * 9, *["sleep 0.02"] * 200)
    begin = time.time()
    cluster.start("right", "-n", 3, "--lease", LEASE)
    cluster.start("ahead", "-n", 3, "--lease", LEASE, ahead=HOUR)
    cluster.start("jumping", "-n", 3, "--lease", LEASE, ahead=0)
    farm.wait_for_tasks(*range(9))
    begun = time.time()
    for jump in (DAY, -DAY):
        cluster.clocks["jumping"].set(jump)
        cluster.live_on(0.5)
    go = time.time()
    cluster.go.touch()
    cluster.nobody_was_expelled(209)
    end = time.time()

    lines = farm.check().lines
    stayed = sorted(line.journal.split("-")[0] for line in lines if line.task < 9)
    assert stayed == ["ahead"] * 3 + ["jumping"] * 3 + ["right"] * 3
    for line in lines:
        # its own clock, as it was when its farmer began
        off = HOUR if line.journal.startswith("ahead") else 0
        assert begin + off - 1 <= line.start <= line.end <= end + off + 1
        if line.task < 9:
            assert go - begun - 1 <= line.end - line.start <= end - begin
    slices = {one["args"]["id"]: one for one in farm.slices()}
    for line in lines:
        shown = slices[line.task]
        assert shown["dur"] >= 0
        assert abs(shown["ts"] - line.start * 1e6) < 2
        assert abs(shown["dur"] - (line.end - line.start) * 1e6) < 2
