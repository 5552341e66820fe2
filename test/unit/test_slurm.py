"""How a farmer finds out when its allocation ends, with a stand-in for `squeue`: one of a job asks for all."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest
from farming import eventually

from taskfarmer.formats.sealed import sealed
from taskfarmer.launch.squeue import Allocation, recorded_end
from taskfarmer.storage.layout import Workdir

ME = {"SLURM_JOB_ID": "1", "SLURM_CLUSTER_NAME": "here"}


class Squeue:
    """A `squeue` in front of the path that does what it is told, and notes about which jobs it was asked."""

    def __init__(self, folder: Path) -> None:
        self.program = folder / "bin" / "squeue"
        self.program.parent.mkdir()
        self.notes = folder / "asked"

    def does(self, text: str) -> None:
        self.program.write_text(f'#!/bin/bash\necho "$4" >>{self.notes}\n{text}\n')
        self.program.chmod(0o755)

    def asked(self) -> list[str]:
        return self.notes.read_text().split() if self.notes.exists() else []


@pytest.fixture
def squeue(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Squeue:
    found = Squeue(tmp_path)
    monkeypatch.setenv("PATH", f"{found.program.parent}:{os.environ['PATH']}")
    return found


@pytest.fixture
def workdir(tmp_path: Path) -> Workdir:
    (tmp_path / "farm").mkdir()
    return Workdir.at(str(tmp_path / "farm"))


def end_of(allocation: Allocation) -> float | None:
    def settled() -> bool:
        allocation.update(time.monotonic())
        return allocation.settled

    eventually(settled, "the end of the allocation")
    return allocation.end


def test_what_a_farmer_of_the_job_found_out_is_believed(squeue: Squeue, workdir: Workdir) -> None:
    end = int(time.time() + 1000)
    squeue.does(f"echo {end}")
    assert end_of(Allocation(workdir, ME, time.monotonic())) == end
    assert recorded_end(workdir, ME) == end
    assert end_of(Allocation(workdir, ME, time.monotonic())) == end
    assert squeue.asked() == ["1"]


@pytest.mark.parametrize(
    "old",
    [
        {"cluster": "there", "end": time.time() + 5000},
        {"end": time.time() + 5000},
        {"cluster": "here", "end": time.time() - 5000},
    ],
    ids=["of another cluster", "of no cluster", "of a time gone by"],
)
def test_what_is_of_another_job_with_the_same_number_is_not_believed(
    squeue: Squeue, workdir: Workdir, old: dict[str, object]
) -> None:
    end = int(time.time() + 1000)
    squeue.does(f"echo {end}")
    os.makedirs(workdir.jobs)
    Path(workdir.job("1-0")).write_bytes(sealed({"job": "1", **old}))
    assert recorded_end(workdir, ME) is None
    assert end_of(Allocation(workdir, ME, time.monotonic())) == end
    assert recorded_end(workdir, ME) == end


def test_an_element_of_an_array_asks_by_that_name(squeue: Squeue, workdir: Workdir) -> None:
    """The number of one element is that of the whole array, too."""
    squeue.does(f"echo {int(time.time() + 1000)}")
    element = {"SLURM_ARRAY_JOB_ID": "10", "SLURM_ARRAY_TASK_ID": "4"}
    end_of(Allocation(workdir, {**ME, **element}, time.monotonic()))
    assert squeue.asked() == ["10_4"]
