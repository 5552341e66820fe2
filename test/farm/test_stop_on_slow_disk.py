"""A farmer that is stopped while a file operation takes two seconds exits before Slurm kills it (KillWait, 30 s).

The library benchmarks/slow.c slows operations down from a moment that the test chooses, and counts them. The tests
limit their number, because the seconds vary on a busy machine. All farmers of this test run at the same time, because
they mostly wait.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from support.farming import eventually, need
from support.farms import Farm, Farmer

SOURCE = Path(__file__).parents[2] / "benchmarks" / "slow.c"
OPERATION = 2.0
SECONDS = 25.0
MOST = 14
"""Operations of the farmer and its workers; some of them run concurrently."""
PATIENCE = 240.0
"""Seconds to wait on a machine that is busy with other work."""


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    need(shutil.which("cc"), "there is no C compiler")
    made = tmp_path_factory.mktemp("slow") / "slow.so"
    subprocess.run(["cc", "-shared", "-fPIC", "-O1", "-o", made, SOURCE, "-ldl"], check=True)
    return made


@dataclass
class Scene:
    """The farmer's state when operations become slow, and the number of slow operations before the signal."""

    name: str
    tasks: Callable[[Farm], list[str]]
    options: tuple[object, ...] = ("-n", 4)
    ready: Callable[[Farm], object] = lambda farm: None
    slow_operations: int = 0
    from_the_start: bool = False
    farm: Farm = field(init=False)
    farmer: Farmer = field(init=False)
    operations: int = 0
    stopped: float | None = None
    seconds: float = 0.0

    def slow(self) -> Path:
        return self.farm.folder / "slow"

    def counted(self) -> int:
        return int.from_bytes((self.farm.folder / "count").read_bytes(), sys.byteorder)

    def start(self, folder: Path, library: Path) -> None:
        folder.mkdir()
        self.farm = Farm(folder)
        (folder / "count").write_bytes(bytes(8))
        self.farm.environment = {
            "LD_PRELOAD": str(library),
            "SLOW_BELOW": str(self.farm.workdir),
            "SLOW_MICROSECONDS": str(int(OPERATION * 1e6)),
            "SLOW_WHEN": str(self.slow()),
            "SLOW_COUNT": str(folder / "count"),
        }
        self.farm.write(*self.tasks(self.farm))
        if self.from_the_start:
            self.slow().touch()
        self.farmer = self.farm.start(*self.options)

    def make_slow(self) -> None:
        self.ready(self.farm)
        self.slow().touch()

    def look(self) -> None:
        """Send the signal during a slow operation, after the given number of them, and record when the farmer exits."""
        if self.stopped is None:
            if self.counted() >= self.slow_operations:
                self.operations, self.stopped = self.counted(), time.monotonic()
                self.farmer.signal(signal.SIGTERM)
        elif not self.seconds and self.farmer.ended:
            self.seconds = time.monotonic() - self.stopped
            self.operations = self.counted() - self.operations


def stubborn(farm: Farm) -> list[str]:
    """Tasks that use the whole grace time unless the file `again` exists."""
    return [farm.marked(f"[ -e {farm.folder}/again ] || {{ trap '' TERM; while :; do sleep 0.1; done; }}")] * 4


def quick(farm: Farm) -> list[str]:
    """Tasks that finish all the time, so that there are always results to record and views to update."""
    return [farm.marked(f"[ -e {farm.folder}/again ] || sleep 0.05; echo >> {farm.folder}/ran-$PROC_NUMBER")] * 300


def some_have_run(farm: Farm) -> None:
    eventually(lambda: len(os.listdir(farm.started)) > 20, "tasks run")


LOCKS = []


def another_one_has_the_lock(farm: Farm) -> None:
    some_have_run(farm)
    file = open(farm.workdir / "lock", "r+")  # noqa: SIM115
    LOCKS.append(file)
    eventually(lambda: _locked(file.fileno()), "the lock", every=0.001)


def _locked(fd: int) -> bool:
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


@pytest.fixture
def scenes(tmp_path: Path, library: Path) -> Iterator[list[Scene]]:
    made = [
        Scene("with tasks that use their grace time", stubborn, ready=lambda farm: farm.wait_for_tasks(0, 1, 2, 3)),
        *(Scene(f"after {n} operations of an exchange", quick, ready=some_have_run, slow_operations=n) for n in (2, 6)),
        *(Scene(f"after {n} operations of several", quick, ready=some_have_run, slow_operations=n) for n in (10, 14)),
        Scene("while epochs turn", quick, ("-n", 4, "--epoch-length", 1), some_have_run, 6),
        Scene("while it waits for the lock", quick, ready=another_one_has_the_lock, slow_operations=5),
        *(Scene(f"while it makes the farm, {n}", quick, from_the_start=True, slow_operations=n) for n in (2, 7, 13)),
        Scene(
            "with packed logs", stubborn, ("-n", 4, "--logs", "packed"), lambda farm: farm.wait_for_tasks(0, 1, 2, 3)
        ),
    ]
    for number, scene in enumerate(made):
        scene.start(tmp_path / str(number), library)
    try:
        yield made
    finally:
        for file in LOCKS:
            file.close()
        LOCKS.clear()
        for scene in made:
            scene.farm.close()


def test_a_farmer_exits_before_slurm_kills_it_and_loses_no_task(scenes: list[Scene]) -> None:
    for scene in scenes:
        if not scene.from_the_start:
            scene.make_slow()
    lost = 0.0
    begin = last = time.monotonic()
    while not all(scene.seconds for scene in scenes):
        for scene in scenes:
            scene.look()
        time.sleep(0.005)
        last, before = time.monotonic(), last
        lost += max(0.0, last - before - 0.1)
        assert last - begin < PATIENCE, [(scene.name, scene.farmer.said) for scene in scenes if not scene.seconds]
    found = {scene.name: (scene.operations, round(scene.seconds, 1)) for scene in scenes}
    assert {scene.farmer.wait() for scene in scenes} == {75}, found
    assert max(operations for operations, _ in found.values()) <= MOST, found
    # if this loop has to wait for its turn, the machine is slow for farmers, too
    assert max(seconds for _, seconds in found.values()) < SECONDS + 5 * lost, (found, lost)
    for scene in scenes:
        _go_on(scene)


def _go_on(scene: Scene) -> None:
    """The next farmer settles for the one that left, and runs the remaining tasks."""
    farm = scene.farm
    recorded = {path.name: path.read_bytes() for path in (farm.workdir / "results").glob("*")}
    (farm.folder / "again").touch()
    scene.slow().unlink()
    farm.environment.clear()
    assert farm.run("-n", 8).wait() == 0, scene.farmer.said
    report = farm.check()
    tasks = len(farm.list.read_text().splitlines())
    assert report.finished == set(range(tasks)), scene.name
    assert sorted(path.name.rpartition(".")[2] for path in (farm.workdir / "farmers").iterdir()) in (
        ["json"],
        ["json", "json"],
    )
    # the results that the first farmer had recorded count: those tasks did not run again
    before = b"".join(recorded.values()).splitlines()
    ended = {int(line.split()[0]) for line in before if line.split()[5] == b"finished"}
    again = [line.task for line in report.lines if line.outcome == "finished" and line.attempt > 1]
    assert not ended & set(again), scene.name
