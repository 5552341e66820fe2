"""How a farmer learns when its allocation ends, with a stub of `squeue`: one farmer of a job asks for all."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from support.farming import eventually
from taskfarmer.formats.sealed import sealed
from taskfarmer.launch.squeue import Allocation, recorded_end
from taskfarmer.storage.layout import Workdir

ME = {"SLURM_JOB_ID": "1", "SLURM_CLUSTER_NAME": "here"}


class Squeue:
    """A `squeue` at the front of PATH that runs a given script, and records the jobs in its arguments."""

    def __init__(self, folder: Path) -> None:
        self.program = folder / "bin" / "squeue"
        self.program.parent.mkdir()
        self.notes = folder / "asked"

    def runs(self, text: str) -> None:
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


def test_the_answer_to_another_farmer_of_the_job_is_used(squeue: Squeue, workdir: Workdir) -> None:
    end = int(time.time() + 1000)
    squeue.runs(f"echo {end}")
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
    ids=["of another cluster", "of no cluster", "of the past"],
)
def test_the_answer_for_another_job_with_the_same_id_is_not_used(
    squeue: Squeue, workdir: Workdir, old: dict[str, object]
) -> None:
    end = int(time.time() + 1000)
    squeue.runs(f"echo {end}")
    os.makedirs(workdir.jobs)
    Path(workdir.job("1-0")).write_bytes(sealed({"job": "1", **old}))
    assert recorded_end(workdir, ME) is None
    assert end_of(Allocation(workdir, ME, time.monotonic())) == end
    assert recorded_end(workdir, ME) == end


def test_an_element_of_an_array_asks_by_its_array_id(squeue: Squeue, workdir: Workdir) -> None:
    """The job ID of one element is that of the whole array, too."""
    squeue.runs(f"echo {int(time.time() + 1000)}")
    element = {"SLURM_ARRAY_JOB_ID": "10", "SLURM_ARRAY_TASK_ID": "4"}
    end_of(Allocation(workdir, {**ME, **element}, time.monotonic()))
    assert squeue.asked() == ["10_4"]
