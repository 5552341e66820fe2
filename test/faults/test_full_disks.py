"""If a disk has no free bytes, inodes or quota, results wait, and none is lost."""

from __future__ import annotations

import errno
import os
import re
import signal
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from support.disks import DISKS, AllBytes, AllInodes, full
from support.farming import eventually
from support.farms import Farm, Farmer
from taskfarmer.storage import durable
from taskfarmer.views import files
from taskfarmer.worker.output.limit import has_room

TROUBLE = 74
AGAIN = 75
IMPATIENT = """
import sys
import taskfarmer.farmer.farmer as farmer
import taskfarmer.farmer.growth as growth
import taskfarmer.farmer.backoff as backoff
from taskfarmer.start import taskfarmer
backoff.GIVE_UP_AFTER = farmer.RECORD_TIMEOUT = growth.PATIENCE = 0.5
farmer.RECORD_TIMEOUT_STOPPED = 1.0
sys.argv[0] = "taskfarmer"
sys.exit(taskfarmer())
"""
"""A farmer that gives up early on a full disk."""


@pytest.fixture
def disk(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Iterator[Path]:
    """A file system of the kind that the test requests, of some MiB."""
    with DISKS[request.param](tmp_path_factory.mktemp("disk")) as point:
        yield point


def waiting(farm: Farm, name: str = "go") -> str:
    """A task that runs until the file `name` exists."""
    return farm.marked(f"while ! [ -e {farm.folder}/{name} ]; do sleep 0.02; done")


def impatient(farm: Farm, *options: object) -> Farmer:
    return farm.start(words=[sys.executable, "-c", IMPATIENT, "run", str(farm.list), *map(str, options)])


def running(farm: Farm) -> list[int]:
    """The processes of tasks."""
    found = []
    for pid in farm.processes():
        try:
            if b"PROC_NUMBER=" in Path(f"/proc/{pid}/environ").read_bytes():
                found.append(pid)
        except OSError:
            continue
    return found


@pytest.mark.parametrize(
    ("disk", "of"),
    [
        pytest.param("ext4", AllBytes, id="ext4"),
        pytest.param("quota", AllBytes, id="quota"),
        pytest.param("tmpfs", AllInodes, id="tmpfs without inodes"),
        pytest.param("tmpfs", AllBytes, id="tmpfs", marks=pytest.mark.campaign),
        pytest.param("ext4", AllInodes, id="ext4 without inodes", marks=pytest.mark.campaign),
    ],
    indirect=["disk"],
)
def test_running_tasks_continue_and_are_recorded_when_there_is_free_space(
    farm: Farm, disk: Path, of: type[AllBytes] | type[AllInodes]
) -> None:
    farm.workdir = disk / "farm"
    farm.write(waiting(farm), waiting(farm, "later"), *[farm.marked("true")] * 40)
    farmer = farm.start("-n", 2, "-w", farm.workdir)
    farm.wait_for_tasks(0, 1)
    with full(disk, of):
        (farm.folder / "go").touch()
        farmer.says("running tasks continue, no new ones are started")
        assert re.search(rf"warning: {farm.workdir}/\S+: (No space left on device|Disk quota exceeded)", farmer.said)
        begun = set(os.listdir(farm.started))
        (farm.folder / "later").touch()
        eventually(lambda: not running(farm), "the running tasks end")
        # the farmer retries, and starts no task; on a busy machine it may get the space that it frees before the test
        # takes it
        time.sleep(1)
        assert set(os.listdir(farm.started)) == begun or "results can be recorded again" in farmer.said
        assert not farmer.ended
    assert farmer.wait() == 0, farmer.said
    assert "results can be recorded again" in farmer.said
    farm.no_survivors()
    report = farm.check()
    assert report.finished == set(range(42))
    assert {line.attempt for line in report.lines if line.task in (0, 1)} == {1}


@pytest.mark.parametrize("disk", ["ext4", "quota"], indirect=True)
def test_tasks_that_would_fail_because_of_a_full_disk_wait_for_free_space(farm: Farm, disk: Path) -> None:
    """The two running tasks write into a full disk and fail; the other claimed tasks are not started.

    The test removes the farmer's ballast first: the farmer frees it when results cannot be recorded, and a running
    task might get that space.
    """
    farm.workdir = disk / "farm"
    output = "head -c 10000 /dev/zero"
    farm.write(*["true"] * 30, *[f"{waiting(farm)}; {output}"] * 32)
    farmer = farm.start("-n", 2, "-w", farm.workdir)
    eventually(lambda: len(os.listdir(farm.started)) == 2, "two of the waiting tasks have started")
    first = os.listdir(farm.started)
    for ballast in (farm.workdir / "farmers").glob("*.ballast"):
        ballast.unlink()
    with full(disk):
        (farm.folder / "go").touch()
        farmer.says("not starting tasks until this is resolved")
        eventually(lambda: not running(farm), "nothing runs any more")
    assert farmer.wait() == 1, farmer.said
    report = farm.check()
    assert set(map(int, first)) <= report.failed
    assert len(report.failed) <= 4, farmer.said
    assert len(report.finished) + len(report.failed) == 62
    assert not [name for name in os.listdir(farm.workdir / "logs") if not name.startswith("log_")]


@pytest.mark.parametrize(
    ("disk", "of"),
    [("ext4", AllBytes), ("quota", AllBytes), ("tmpfs", AllInodes)],
    indirect=["disk"],
    ids=["space", "quota", "inodes"],
)
def test_each_kind_of_full_disk_is_detected(disk: Path, of: type[AllBytes] | type[AllInodes]) -> None:
    """If empty files can still be created, one task that fails because of a quota would be followed by all others."""
    fd = os.open(disk, os.O_RDONLY)
    try:
        assert has_room(fd)
        with full(disk, of):
            assert not has_room(fd)
            names = os.listdir(disk)
        assert has_room(fd)
    finally:
        os.close(fd)
    assert not [name for name in names if name.startswith(".")]


@pytest.mark.parametrize("disk", ["tmpfs", pytest.param("ext4", marks=pytest.mark.campaign)], indirect=True)
def test_on_a_disk_that_stays_full_the_farmer_reports_how_many_results_it_could_not_record(
    farm: Farm, disk: Path
) -> None:
    """ext4 gives the farmer the space of its ballast, so that its last results may fit there."""
    farm.workdir = disk / "farm"
    farm.write(*[waiting(farm)] * 3, farm.marked("[ $TASKFARMER_ATTEMPT = 2 ] || sleep 1000"), *["true"] * 30)
    farmer = impatient(farm, "-n", 4, "-w", farm.workdir, "--grace", 1)
    farm.wait_for_tasks(0, 1, 2, 3)
    with full(disk):
        (farm.folder / "go").touch()
        farmer.says("running tasks continue, no new ones are started")
        farmer.signal(signal.SIGUSR1)
        status = farmer.wait()
        farm.no_survivors()
        # the signal may come before the last of the three tasks has seen that it may finish
        ended = re.search(r"this farmer: (\d) finished", farmer.said)
        recorded = len(farm.check(views=False).finished)
    assert ended
    if status == TROUBLE:
        assert f"not recorded: {ended[1]} result" in farmer.said, farmer.said
        assert recorded == 0
    else:
        assert (status, recorded) == (AGAIN, int(ended[1])), farmer.said
    assert farm.run("-n", 4, "-w", farm.workdir).wait() == 0
    report = farm.check()
    assert report.finished == set(range(34))
    assert 2 in {line.attempt for line in report.lines if line.task == 3}


@pytest.mark.parametrize("of", [AllBytes, AllInodes], ids=["space", "inodes"])
@pytest.mark.parametrize("disk", ["tmpfs"], indirect=True)
def test_no_farm_is_created_on_a_full_disk_and_the_error_names_the_cause(
    farm: Farm, disk: Path, of: type[AllBytes] | type[AllInodes]
) -> None:
    farm.write("true")
    with full(disk, of):
        farmer = farm.run("-w", disk / "farm")
        assert farmer.wait() == 2
        assert re.search(rf"{disk}\S*: No space left on device", farmer.said)
        assert "Traceback" not in farmer.said
    assert farm.run("-w", disk / "farm").wait() == 0


@pytest.mark.parametrize("disk", ["tmpfs"], indirect=True)
def test_a_list_without_enough_space_for_its_farm_is_refused_and_leaves_no_files(farm: Farm, disk: Path) -> None:
    farm.list.write_text(f"true {'x' * 1000}\n" * 40_000)
    farmer = farm.run("-w", disk / "farm")
    assert farmer.wait() == 2
    assert re.search(rf"{disk}/farm/tasks\S*: No space left on device; the task list was not imported", farmer.said)
    assert os.listdir(disk) == []


@pytest.mark.parametrize("disk", ["tmpfs"], indirect=True)
def test_a_list_that_grows_beyond_the_free_space_does_not_stop_running_tasks(farm: Farm, disk: Path) -> None:
    farm.write(waiting(farm), "true")
    farmer = impatient(farm, "-n", 2, "-w", disk / "farm")
    farm.wait_for_tasks(0)
    with open(farm.list, "a") as file:
        file.write(f"true {'x' * 1000}\n" * 40_000)
    farmer.says("the task list was not imported")
    (farm.folder / "go").touch()
    assert farmer.wait() == TROUBLE, farmer.said
    farm.workdir = disk / "farm"
    assert farm.check().finished == {0, 1}


@pytest.mark.parametrize("disk", ["tmpfs"], indirect=True)
def test_a_full_file_system_for_logs_does_not_fail_tasks(farm: Farm, disk: Path) -> None:
    farm.write(waiting(farm), *["echo a line"] * 60)
    farmer = farm.start("-n", 2, "--logs-dir", disk / "logs")
    farm.wait_for_tasks(0)
    with full(disk, AllInodes):
        (farm.folder / "go").touch()
        farmer.says("cannot be opened")
        farmer.says("No space left on device")
    assert farmer.wait() == 0, farmer.said
    assert farm.check().finished == set(range(61))


@pytest.mark.parametrize("kind", ["scratch", "TMPDIR"])
@pytest.mark.parametrize("disk", ["tmpfs"], indirect=True)
def test_a_full_scratch_space_or_tmp_only_costs_the_lock(farm: Farm, disk: Path, kind: str) -> None:
    farm.environment = {"SCRATCH" if kind == "scratch" else "TMPDIR": str(disk)}
    farm.write(waiting(farm), *["sleep 0.05"] * 20)
    first = farm.start("-n", 2)
    farm.wait_for_tasks(0)
    for name in disk.glob("*/*.lock"):
        name.unlink()
    with full(disk), full(disk, AllInodes):
        second = farm.start("-n", 2)
        (farm.folder / "go").touch()
        assert first.wait() == 0, first.said
        assert second.wait() == 0, second.said
        assert farm.check().finished == set(range(21))


@pytest.mark.parametrize("disk", ["tmpfs"], indirect=True)
def test_a_farm_is_created_although_scratch_space_is_full(farm: Farm, disk: Path) -> None:
    farm.environment = {"SCRATCH": str(disk)}
    farm.write(*["true"] * 5)
    with full(disk), full(disk, AllInodes):
        farmer = farm.run()
        assert farmer.wait() == 0, farmer.said
        assert f"SCRATCH={disk}: cannot create a private directory for locks there" in farmer.said
        asked = farm.run("-w", farm.folder / "other", "--lock-dir", disk)
        assert asked.wait() == 2
        assert f"--lock-dir {disk}" in asked.said
    assert farm.check().finished == set(range(5))


def grow(path: str, data: bytes, timeline: bool = False) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_APPEND)
    try:
        files.extend_timeline(path, fd, [data], len(files.TIMELINE_END)) if timeline else files.append(path, fd, [data])
    finally:
        os.close(fd)


def make(path: str, data: bytes) -> None:
    os.unlink(path)
    files.create(path, [data])


@pytest.mark.parametrize("disk", ["tmpfs"], indirect=True)
@pytest.mark.parametrize(
    "write",
    [
        pytest.param(durable.prepare, id="a revision"),
        pytest.param(grow, id="a view that grows"),
        pytest.param(lambda path, data: grow(path, data, timeline=True), id="the timeline"),
        pytest.param(make, id="a view that is created"),
        pytest.param(lambda path, data: files.replace_view(path, [data]), id="a view that is rebuilt"),
    ],
)
def test_the_error_of_a_full_disk_names_the_file(disk: Path, write: Callable[[str, bytes], object]) -> None:
    path = disk / "file"
    if write is not durable.prepare:
        path.write_bytes(files.TIMELINE_END)
    with full(disk), pytest.raises(OSError) as caught:
        write(str(path), bytes(1 << 16))
    assert (caught.value.errno, caught.value.filename) == (errno.ENOSPC, str(path))


@pytest.mark.parametrize("what", ["logs", "farm"])
@pytest.mark.parametrize("disk", ["tmpfs"], indirect=True)
def test_a_farmer_that_gives_up_on_a_full_disk_waits_for_running_tasks(farm: Farm, disk: Path, what: str) -> None:
    """It gives up early. When no task runs any more it exits, and its tasks are released or it is expelled."""
    options = ["-w", disk / "farm"] if what == "farm" else ["--logs-dir", disk / "logs"]
    if what == "farm":
        farm.workdir = disk / "farm"
    # the first task to run waits longer than the others, whichever of them is faster
    role = f"if mkdir {farm.folder}/first 2>/dev/null; then name=later; else name=go; fi"
    wait = f"while ! [ -e {farm.folder}/$name ]; do sleep 0.02; done"
    farm.write(*["true"] * 30, *[farm.marked(f"{role}; {wait}")] * 32)
    farmer = impatient(farm, "-n", 2, *options)
    eventually(lambda: len(os.listdir(farm.started)) == 2, "two of the waiting tasks have started")
    with full(disk), full(disk, AllInodes):
        (farm.folder / "go").touch()
        farmer.says("no new ones are started" if what == "farm" else "not starting tasks until this is resolved")
        # more than its patience
        with pytest.raises(AssertionError):
            eventually(lambda: farmer.ended or not running(farm), "it gives up", seconds=2)
        (farm.folder / "later").touch()
        assert farmer.wait() == TROUBLE, farmer.said
        farm.no_survivors()
    assert farm.run(*options).wait() == 0
    assert farm.check().finished == set(range(62))
