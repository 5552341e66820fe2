"""If clocks of nodes are wrong or jump, no farmer is declared dead, and times stay plausible."""

from __future__ import annotations

import time

from support.nodes import Cluster

HOUR, DAY = 3600, 86400
LEASE = 3


def test_clocks_an_hour_ahead_or_set_by_a_day_expel_no_farmer_and_durations_are_right(cluster: Cluster) -> None:
    """If the clock is set while a task runs, the duration of the task stays right."""
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
    cluster.assert_none_expelled(209)
    end = time.time()

    lines = farm.check().lines
    stayed = sorted(line.journal.split("-")[0] for line in lines if line.task < 9)
    assert stayed == ["ahead"] * 3 + ["jumping"] * 3 + ["right"] * 3
    for line in lines:
        # the node's clock when its farmer started
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
