"""What Slurm is asked, with a stand-in for `squeue`: once for many, nothing believed for long, nothing left behind."""

from __future__ import annotations

import os
import resource
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from farming import children, eventually

from taskfarmer import locks, slurm
from taskfarmer.ledger.liveness import Identity, introduce
from taskfarmer.model import sealed
from taskfarmer.plain import replace
from taskfarmer.slurm import Allocation, Jobs, Question, told_end
from taskfarmer.workdir import Workdir

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


def farmer(number: str, place: int = 0, **job: str) -> Identity:
    """A farmer of another job of the same cluster."""
    variables = {"SLURM_JOB_ID": number, "SLURM_CLUSTER_NAME": "here", **job}
    return replace(introduce(1, "0", variables), farmer=f"far-{place}-00000000")


def heard(ask: Callable[[], str | None]) -> str:
    found: str = eventually(ask, "an answer of Slurm", 20)
    return found


def test_a_question_for_whose_answer_nobody_comes_back_does_not_end_the_asking(squeue: Squeue) -> None:
    squeue.does("echo NODE_FAIL")
    jobs = Jobs(ME)
    assert jobs.over(farmer("7"), 0.0) is None
    assert heard(lambda: jobs.over(farmer("8"), 1.0)) == "Slurm says that its job 8 is NODE_FAIL"
    assert squeue.asked() == ["7", "8"]


def test_all_farmers_of_a_job_that_is_over_are_told_at_once_and_slurm_is_asked_once(squeue: Squeue) -> None:
    squeue.does(f"until [ -e {squeue.program}.go ]; do sleep 0.01; done; echo TIMEOUT")
    jobs = Jobs(ME)
    gang = [farmer("7", place) for place in range(3)]
    assert [jobs.over(one, 0.0) for one in gang] == [None] * 3
    Path(f"{squeue.program}.go").touch()
    heard(lambda: jobs.over(gang[0], 1.0))
    assert [jobs.over(one, 1.0) for one in gang] == ["Slurm says that its job 7 is TIMEOUT"] * 3
    assert squeue.asked() == ["7"]


def test_an_answer_counts_for_a_minute_since_a_requeued_job_keeps_its_number(squeue: Squeue) -> None:
    squeue.does("echo PREEMPTED")
    jobs = Jobs(ME)
    heard(lambda: jobs.over(farmer("7"), 0.0))
    squeue.does("echo RUNNING")
    assert jobs.over(farmer("7"), 59.0) is not None
    assert jobs.over(farmer("7"), 60.0) is None
    eventually(lambda: squeue.asked() == ["7", "7"], "Slurm is asked anew")
    eventually(lambda: jobs.over(farmer("7"), 61.0) is None and jobs._question is None, "its answer")
    assert jobs.over(farmer("7"), 62.0) is None


def test_jobs_that_run_on_do_not_keep_others_from_being_asked_about(squeue: Squeue) -> None:
    squeue.does("echo RUNNING")
    jobs = Jobs(ME)
    for beat in range(4):
        for number in ("7", "8", "9", "10"):
            jobs.over(farmer(number), 30.0 * beat)
        eventually(lambda: jobs._question is None or not jobs._question._lives(), "the end of squeue")
    assert set(squeue.asked()) == {"7", "8", "9", "10"}


@pytest.mark.parametrize(
    "job", [{"SLURM_CLUSTER_NAME": "there"}, {"SLURM_JOB_ID": "1"}, {"SLURM_JOB_ID": "--me"}, {"SLURM_JOB_ID": ""}]
)
def test_slurm_is_not_asked_about_what_is_no_other_job_of_this_cluster(squeue: Squeue, job: dict[str, str]) -> None:
    squeue.does("echo FAILED")
    jobs = Jobs(ME)
    assert jobs.over(replace(farmer("7"), job={**farmer("7").job, **job}), 0.0) is None
    assert jobs._question is None


def test_an_element_of_an_array_is_asked_for_by_that_name(squeue: Squeue, workdir: Workdir) -> None:
    """The number of one element is that of the whole array, too."""
    squeue.does(f"echo {int(time.time() + 1000)}")
    element = {"SLURM_ARRAY_JOB_ID": "10", "SLURM_ARRAY_TASK_ID": "4"}
    Jobs(ME).over(farmer("10", **element), 0.0)
    eventually(lambda: squeue.asked() == ["10_4"], "Slurm is asked for its state")
    end_of(Allocation(workdir, {**ME, **element}, time.monotonic()))
    assert squeue.asked() == ["10_4"] * 2


# --- nothing is left behind ---------------------------------------------------------------------------


def test_squeue_is_taken_when_it_is_gone_also_where_it_ends_after_its_answer(squeue: Squeue) -> None:
    squeue.does("echo RUNNING; exec >&-; sleep 0.3")
    before = set(children(os.getpid()))
    question = Question("7", "%T")
    assert heard(question.answer) == "RUNNING"
    assert set(children(os.getpid())) <= before


def test_a_squeue_that_hangs_is_ended_and_has_said_nothing(squeue: Squeue, monkeypatch: pytest.MonkeyPatch) -> None:
    squeue.does("echo RUNNING; exec sleep 600")
    monkeypatch.setattr(slurm, "PATIENCE", 0.3)
    before = set(children(os.getpid()))
    question = Question("7", "%T")
    eventually(lambda: question.answer() == "", "squeue is given up")
    assert set(children(os.getpid())) <= before


def test_squeue_does_not_hold_the_lock_by_which_its_farmer_is_known_to_live(squeue: Squeue, tmp_path: Path) -> None:
    squeue.does("exec sleep 600")
    path = tmp_path / "alive"
    fd = os.open(path, os.O_RDWR | os.O_CREAT)
    assert locks.hold_alive(fd)
    question = Question("7", "%T")
    eventually(squeue.asked, "squeue runs")
    os.close(fd)
    assert locks.alive_is_free(str(path))
    question.until = 0.0
    eventually(lambda: question.answer() == "", "the end of squeue")


def test_a_farmer_without_a_descriptor_to_spare_learns_nothing_and_goes_on(squeue: Squeue) -> None:
    squeue.does("echo RUNNING")
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    free = os.dup(0)
    os.close(free)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (free, hard))
        said = [Question("7", "%T").answer()]
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert said == [""]
    assert os.dup(0) == free
    os.close(free)


# --- when the allocation ends -------------------------------------------------------------------------


def end_of(allocation: Allocation) -> float | None:
    def settled() -> bool:
        allocation.look(time.monotonic())
        return allocation.settled

    eventually(settled, "the end of the allocation")
    return allocation.end


def test_what_a_farmer_of_the_job_found_out_is_believed(squeue: Squeue, workdir: Workdir) -> None:
    end = int(time.time() + 1000)
    squeue.does(f"echo {end}")
    assert end_of(Allocation(workdir, ME, time.monotonic())) == end
    assert told_end(workdir, ME) == end
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
    assert told_end(workdir, ME) is None
    assert end_of(Allocation(workdir, ME, time.monotonic())) == end
    assert told_end(workdir, ME) == end
