"""timeline.json: complete JSON at any moment, a slice per attempt, names for farmers and slots, after any exit."""

from __future__ import annotations

import json
import os
import signal
import time
from itertools import pairwise
from typing import Any

import pytest

from support.farms import Farm


def overlaps(slices: list[dict[str, Any]]) -> list[tuple[dict[str, Any], dict[str, Any]]]:
    """Pairs of slices of one slot that overlap by more than the rounding to microseconds."""
    found = []
    lanes: dict[tuple[int, int], list[dict[str, Any]]] = {}
    for one in slices:
        lanes.setdefault((one["pid"], one["tid"]), []).append(one)
    for lane in lanes.values():
        lane.sort(key=lambda one: (one["ts"], one["ts"] + one["dur"]))
        for first, second in pairwise(lane):
            if first["ts"] + first["dur"] > second["ts"] + 2:
                found.append((first, second))
    return found


def test_it_is_complete_after_every_update(farm: Farm) -> None:
    """A reader at the instant of a write sees a part of it; a moment later the file is complete."""
    farm.write(*["sleep 0.05", "echo 'ünd \"quotes\"'", "false"] * 60)
    farmer = farm.start("-n", 2)
    counts = set()
    torn = 0
    while not farmer.ended:
        path = farm.workdir / "timeline.json"
        if path.exists():
            try:
                counts.add(len(json.loads(path.read_bytes())))
                torn = 0
            except ValueError:
                torn += 1
        assert torn < 20
        time.sleep(0.002)
    assert farmer.wait() == 1
    # a farmer publishes its results every few seconds, and when it exits
    assert len(counts | {len(farm.timeline())}) >= 2
    slices = farm.slices()
    assert sorted(one["args"]["id"] for one in slices) == list(range(180))
    assert not overlaps(slices)
    farm.check()


def test_it_is_written_while_the_farmer_runs(farm: Farm) -> None:
    farm.write("true", farm.marked(f"while ! [ -e {farm.folder}/go ]; do sleep 0.02; done"))
    farmer = farm.start("-n", 2)
    farm.wait_for_tasks(1)
    end = time.monotonic() + 20
    while not farm.slices() and time.monotonic() < end:
        time.sleep(0.05)
    assert [one["args"]["id"] for one in farm.slices()] == [0]
    (farm.folder / "go").touch()
    assert farmer.wait() == 0


def test_a_slice_contains_the_outcome_and_resource_usage_of_its_attempt(farm: Farm) -> None:
    burn = "t=$SECONDS; while [ $((SECONDS - t)) -lt 1 ]; do :; done"
    memory = "head -c 200000000 /dev/zero | tail -c 200000000 > /dev/null"
    farm.write("exit 3", "kill -TERM $$", burn, memory, "sleep 0.5", b"echo caf\xe9")
    begin = time.time()
    assert farm.run("-n", 2).wait() == 1
    end = time.time()
    slices = {one["args"]["id"]: one for one in farm.slices()}
    assert sorted(slices) == list(range(6))
    assert (slices[0]["args"]["exit_status"], slices[0]["args"]["signal"]) == (3, 0)
    assert (slices[1]["args"]["exit_status"], slices[1]["args"]["signal"]) == (0, 15)
    assert [slices[task]["args"]["outcome"] for task in range(6)] == ["failed"] * 2 + ["finished"] * 4
    assert slices[0]["name"] == "exit 3"
    assert slices[2]["args"]["user_s"] + slices[2]["args"]["system_s"] > 0.002
    assert slices[4]["args"]["user_s"] + slices[4]["args"]["system_s"] < 0.2
    assert slices[3]["args"]["peak_kb"] > 150_000
    assert slices[4]["dur"] > 500_000
    for one in slices.values():
        assert one["ph"] == "X" and one["cat"] == "task" and one["args"]["attempt"] == 1
        assert begin * 1e6 - 2 <= one["ts"] <= one["ts"] + one["dur"] <= end * 1e6 + 2
    assert not overlaps(list(slices.values()))


def test_farmers_and_slots_have_names(farm: Farm) -> None:
    farm.write(*["sleep 0.3"] * 8)
    farmers = [farm.start("-n", 2, environment={"SLURM_JOB_ID": str(4000 + number)}) for number in range(2)]
    assert [farmer.wait() for farmer in farmers] == [0, 0]
    names = [event for event in farm.timeline() if event["ph"] == "M"]
    processes = {event["pid"]: event["args"]["name"] for event in names if event["name"] == "process_name"}
    used = {one["pid"] for one in farm.slices()}
    assert used <= set(processes)
    for number in used:
        host, word, pid, job, job_id = processes[number].split()
        assert (host, word, job) == (os.uname().nodename, "pid", "job")
        index = [farmer.pid for farmer in farmers].index(int(pid))
        assert job_id == str(4000 + index)
    slots = {(event["pid"], event["tid"]) for event in names if event["name"] == "thread_name"}
    assert {(one["pid"], one["tid"]) for one in farm.slices()} <= slots
    assert not overlaps(farm.slices())


@pytest.mark.parametrize("way", ["by itself", "SIGUSR1", "SIGINT", "--timeout", "SIGKILL", "worker killed"])
def test_every_attempt_is_recorded_after_every_kind_of_exit(farm: Farm, way: str) -> None:
    stay = "[ $TASKFARMER_ATTEMPT -gt 1 ] || sleep 1000" if way != "by itself" else "sleep 0.2"
    farm.write("true", "false", farm.marked(stay))
    farmer = farm.start("-n", 1, "--grace", 1, *(["--timeout", 2] if way == "--timeout" else []))
    farm.wait_for_tasks(2)
    if way == "worker killed":
        os.kill(farmer.workers()[0], signal.SIGKILL)
    elif way.startswith("SIG"):
        farmer.signal(signal.Signals[way])
    farmer.wait()
    farm.no_survivors(10)
    if way != "SIGKILL":
        found = {(one["args"]["id"], one["args"]["attempt"]): one["args"]["outcome"] for one in farm.slices()}
        first = "finished" if way == "by itself" else "returned"
        last = {(2, 2): "finished"} if way == "worker killed" else {}
        assert found == {(0, 1): "finished", (1, 1): "failed", (2, 1): first, **last}
    else:
        json.loads((farm.workdir / "timeline.json").read_bytes())
    assert farm.run("-n", 1).wait() == 1
    found = {(one["args"]["id"], one["args"]["attempt"]) for one in farm.slices()}
    assert {(0, 1), (1, 1)} <= found
    assert (2, 1 if way == "by itself" else 2) in found
    assert not overlaps(farm.slices())
    farm.check()


@pytest.mark.parametrize("damage", ["removed", "cut", "garbage", "a directory", "appended to"])
def test_it_is_rebuilt_if_it_was_corrupt(farm: Farm, damage: str) -> None:
    farm.write(*["true"] * 30)
    assert farm.run().wait() == 0
    path = farm.workdir / "timeline.json"
    if damage == "removed":
        path.unlink()
    elif damage == "cut":
        path.write_bytes(path.read_bytes()[:1000])
    elif damage == "garbage":
        path.write_bytes(os.urandom(500))
    elif damage == "a directory":
        path.unlink()
        path.mkdir()
    else:
        with open(path, "ab") as file:
            file.write(b"notes of the user\n")
    farm.append("true\n")
    assert farm.run().wait() == 0
    assert sorted(one["args"]["id"] for one in farm.slices()) == list(range(31))
    farm.check()
