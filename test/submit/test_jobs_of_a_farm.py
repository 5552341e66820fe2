"""Which jobs are listed, with which details, from the data of farmers and the answers of the scheduler."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from taskfarmer.formats.sealed import sealed
from taskfarmer.launch.jobs import FarmerInfo, Job, jobs_at_work
from taskfarmer.launch.records import Submission
from taskfarmer.storage.layout import Workdir


def worker(host: str, verdict: str, **variables: str) -> FarmerInfo:
    return FarmerInfo(variables, host, 4, 6, verdict)


class Queue:
    """A `squeue` that prints a given answer, and records its arguments."""

    def __init__(self, folder: Path) -> None:
        self.workdir = Workdir.at(str(folder / "farm"))
        os.makedirs(self.workdir.jobs)
        self.asked = folder / "asked"
        self.program = folder / "squeue"
        self.environ = {"PATH": f"{folder}:{os.environ['PATH']}"}

    def list_jobs(
        self, answer: str, workers: list[FarmerInfo], submitted: tuple[Submission, ...] = ()
    ) -> tuple[list[Job], list[str]]:
        self.program.write_text(f"#!/bin/bash\necho \"$*\" >>'{self.asked}'\ncat <<'END'\n{answer}\nEND\n")
        self.program.chmod(0o755)
        before = dict(os.environ)
        os.environ.update(self.environ)  # programs are searched in our PATH
        try:
            return jobs_at_work(self.workdir, workers, submitted, self.environ, 30)
        finally:
            os.environ.clear()
            os.environ.update(before)


@pytest.fixture
def queue(tmp_path: Path) -> Queue:
    return Queue(tmp_path)


def submission(job: str) -> Submission:
    return Submission(f"20261120-120000-{job:0>8}", "slurm", job, "", 5.0, "joe", "/home/joe", ("sbatch",))


def test_the_farmers_of_a_job_are_counted_together_and_the_scheduler_is_asked_once(queue: Queue) -> None:
    workers = [
        worker("n1", "alive", SLURM_JOB_ID="7", SLURM_CLUSTER_NAME="c"),
        worker("n2", "unknown", SLURM_JOB_ID="7", SLURM_CLUSTER_NAME="c"),
        worker("n3", "gone", SLURM_JOB_ID="12", SLURM_ARRAY_JOB_ID="10", SLURM_ARRAY_TASK_ID="4"),
    ]
    answer = "7|RUNNING|2|1800000000|None\n10_4|RUNNING|1|1800000001|None\n10_[5-9]|PENDING|1|N/A|Resources"
    jobs, warnings = queue.list_jobs(answer, workers, (submission("10"), submission("3")))
    assert warnings == []
    assert [(one.job, one.state, one.nodes, one.slots, one.held, one.ends) for one in jobs] == [
        ("7", "RUNNING", 2, 8, 12, 1800000000.0),
        ("10_4", "RUNNING", 1, 4, 6, 1800000001.0),
        ("10_[5-9]", "PENDING", 1, 0, 0, None),
    ]
    assert [(one.farmers_alive, one.farmers_gone, one.farmers_unknown) for one in jobs] == [
        (1, 0, 1),
        (0, 1, 0),
        (0, 0, 0),
    ]
    assert [one.cluster for one in jobs] == ["c", None, None]
    assert [one.submitted for one in jobs] == [None, 5.0, 5.0]
    (asked,) = queue.asked.read_text().splitlines()
    assert "-j 3,7,10 " in asked


def test_a_job_with_farmers_is_shown_although_its_scheduler_has_forgotten_it(queue: Queue) -> None:
    jobs, _ = queue.list_jobs("3|COMPLETED|1|0|None", [worker("n1", "unknown", SLURM_JOB_ID="7")], (submission("3"),))
    assert [(one.job, one.state, one.nodes) for one in jobs] == [("7", "GONE", 1)]


def test_the_end_of_a_job_comes_from_its_farmers_if_the_scheduler_does_not_report_it(queue: Queue) -> None:
    Path(queue.workdir.job("8-2")).write_bytes(sealed({"job": "8", "end": 1800000008.0}))
    workers = [
        worker("n1", "alive", SLURM_JOB_ID="7", SLURM_JOB_END_TIME="1800000007"),
        worker("n1", "alive", SLURM_JOB_ID="8", SLURM_RESTART_COUNT="2"),
        worker("n1", "alive", SLURM_JOB_ID="9"),
    ]
    jobs, _ = queue.list_jobs("7|RUNNING|1|N/A|None\n8|RUNNING|1|NONE|None\n9|RUNNING|1|NONE|None", workers)
    assert [one.ends for one in jobs] == [1800000007.0, 1800000008.0, None]


def test_the_scheduler_is_not_asked_about_an_invalid_job_id(queue: Queue) -> None:
    jobs, warnings = queue.list_jobs("", [worker("n1", "alive", SLURM_JOB_ID="--me;7")], (submission("x"),))
    assert [(one.job, one.state) for one in jobs] == [("--me;7", "GONE")]
    assert warnings == []
    assert not queue.asked.exists()
