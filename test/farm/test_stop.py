"""`taskfarmer stop`: the farmers of a farm stop because of a request in its work directory."""

from __future__ import annotations

import subprocess
import sys

import pytest

from support.farming import TEST, eventually
from support.farms import Farm

AGAIN = 75


def verb(farm: Farm, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "taskfarmer", words[0], str(farm.workdir), *words[1:]],
        capture_output=True,
        text=True,
        env={**farm.environment, "PYTHONPATH": str(TEST.parent), "PATH": "/usr/bin:/bin"},
        timeout=60,
    )


def test_all_farmers_stop_and_later_ones_are_not_affected(farm: Farm) -> None:
    farm.write(*[farm.marked(f"[ -e {farm.folder}/go ] || exec sleep 1000")] * 4)
    farmers = [farm.start("-n", 2, "--lease", 4) for _ in range(2)]
    farm.wait_for_tasks(0, 1, 2, 3)
    told = verb(farm, "stop", "--wait")
    assert (told.returncode, told.stderr) == (0, "")
    assert "requested 2 farmers to stop" in told.stdout
    assert [farmer.wait() for farmer in farmers] == [AGAIN, AGAIN]
    assert all("stopped by taskfarmer stop" in farmer.said for farmer in farmers)
    farm.no_survivors()
    assert farm.check().unprocessed == {0, 1, 2, 3}
    (farm.folder / "go").touch()
    assert farm.run().process.returncode == 0
    assert farm.check().complete


def test_now_leaves_the_tasks_no_time(farm: Farm) -> None:
    farm.write(farm.marked("trap '' TERM; while :; do sleep 0.1; done"))
    farmer = farm.start("--lease", 4, "--grace", 1000)
    farm.wait_for_tasks(0)
    assert verb(farm, "stop", "--now").returncode == 0
    assert farmer.wait() == AGAIN, farmer.said
    farm.no_survivors()
    assert farm.attempts(0) == [(1, "returned")]


def test_a_stop_request_can_be_followed_by_one_without_grace_time(farm: Farm) -> None:
    farm.write(farm.marked("trap '' TERM; while :; do sleep 0.1; done"))
    farmer = farm.start("--lease", 4, "--grace", 1000)
    farm.wait_for_tasks(0)
    assert verb(farm, "stop").returncode == 0
    farmer.says("taskfarmer stop: stopping: terminating running tasks")
    assert verb(farm, "stop", "--now").returncode == 0
    assert farmer.wait() == AGAIN, farmer.said


def test_no_request_is_written_if_no_farmer_works(farm: Farm) -> None:
    farm.write("true")
    assert farm.run().process.returncode == 0
    told = verb(farm, "stop")
    assert (told.returncode, told.stdout) == (0, "no farmers are running\n")
    assert not (farm.workdir / "stop").exists()


@pytest.mark.parametrize("made", [False, True])
def test_a_directory_that_is_not_a_farm_is_refused(farm: Farm, made: bool) -> None:
    if made:
        farm.workdir.mkdir()
    told = verb(farm, "stop")
    assert told.returncode == 2
    assert str(farm.workdir) in told.stderr
    assert "Traceback" not in told.stderr


@pytest.mark.parametrize("content", [b"", b"nonsense\n", b'{"farmers":7,"now":true}\n'])
def test_a_corrupt_request_stops_no_farmer(farm: Farm, content: bytes) -> None:
    farm.write(f"while [ ! -e {farm.folder}/go ]; do sleep 0.1; done")
    farmer = farm.start("--lease", 4)
    eventually((farm.workdir / "farm.json").exists, "the farm")
    (farm.workdir / "stop").write_bytes(content)
    (farm.folder / "go").touch()
    assert farmer.wait() == 0, farmer.said
