"""A farmer's job has ended only if its scheduler reports so with certainty.

Stubs of `squeue` and `qstat` print the output of the real ones (test/clusters uses these).
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from support.farming import eventually
from taskfarmer.farmer.jobs import SchedulerReports
from taskfarmer.peers import scheduled

SLURM = {"SLURM_JOB_ID": "1", "SLURM_CLUSTER_NAME": "here"}
GRID = {"SGE_ROOT": "/sge", "SGE_CELL": "default", "JOB_ID": "1", "SGE_TASK_ID": "undefined", "LOGNAME": "joe"}
STEP_0 = {"SLURM_STEP_ID": "0", "SLURM_UMASK": "0022"}
LINE = "{:>7} 0.75000 s.sh       joe          {:5} 11/30/2026 03:58:56 all.q@localhost                    1 {}\n"
HEAD = "job-ID  prior   name       user         state submit/start at     queue                 slots ja-task-ID\n---\n"
LONG_AGO = -1e9


class Client:
    """A client at the front of PATH. It prints a file, and records the arguments of each call."""

    def __init__(self, folder: Path, name: str) -> None:
        self.notes, self.text, self.go = folder / f"{name}-asked", folder / f"{name}-says", folder / f"{name}-go"
        self.go.touch()
        program = folder / "bin" / name
        program.write_text(
            f'#!/bin/bash\necho "$*" >>{self.notes}\nuntil [ -e {self.go} ]; do sleep 0.01; done\n. {self.text}.sh\n'
        )
        program.chmod(0o755)
        self.runs("exit 1")

    def runs(self, text: str) -> None:
        Path(f"{self.text}.sh").write_text(text + "\n")

    def prints(self, text: str) -> None:
        self.text.write_text(text)
        self.runs(f"cat {self.text}")

    def asked(self) -> list[str]:
        return self.notes.read_text().splitlines() if self.notes.exists() else []


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "bin").mkdir()
    monkeypatch.setenv("PATH", f"{tmp_path}/bin:{os.environ['PATH']}")
    return tmp_path


@pytest.fixture
def squeue(path: Path) -> Client:
    return Client(path, "squeue")


@pytest.fixture
def qstat(path: Path) -> Client:
    return Client(path, "qstat")


def reported(jobs: SchedulerReports, theirs: dict[str, str], now: float = 0.0, since: float = LONG_AGO) -> str | None:
    """What comes of asking until no question is under way."""
    eventually(lambda: (jobs.end_reason(theirs, since, now), jobs._question is None)[1], "all answers")
    return jobs.end_reason(theirs, since, now)


def slurm(number: str, **more: str) -> dict[str, str]:
    return {**SLURM, "SLURM_JOB_ID": number, **more}


# --- Slurm: jobs --------------------------------------------------------------------------------------


def test_a_job_that_has_ended_is_evidence_for_all_its_farmers_and_is_asked_about_once(squeue: Client) -> None:
    squeue.prints("TIMEOUT                       0\n")
    jobs = SchedulerReports(SLURM)
    assert reported(jobs, slurm("7")) == "Slurm reports its job 7 as TIMEOUT"
    assert [jobs.end_reason(slurm("7", SLURM_PROCID=str(n)), LONG_AGO, 1.0) for n in range(3)].count(None) == 0
    assert squeue.asked() == ["--noheader --states=all -j 7 -O State:30,RestartCnt:12"]


@pytest.mark.parametrize("state", ["RUNNING", "PENDING", "SUSPENDED", "COMPLETING", "CONFIGURING", "STAGE_OUT"])
def test_a_job_that_has_not_ended_proves_nothing(squeue: Client, state: str) -> None:
    squeue.prints(f"{state} 0\n")
    assert reported(SchedulerReports(SLURM), slurm("7")) is None


@pytest.mark.parametrize(
    ("answer", "theirs", "ended"),
    [("PENDING 1", "", True), ("RUNNING 3", "2", True), ("RUNNING 2", "2", False), ("COMPLETING 1", "", False)],
)
def test_a_job_that_was_requeued_ended_its_earlier_runs(squeue: Client, answer: str, theirs: str, ended: bool) -> None:
    """It is requeued at once, and its state is COMPLETING until its processes have ended."""
    squeue.prints(answer)
    why = "Slurm reports its job 7 as requeued" if ended else None
    assert reported(SchedulerReports(SLURM), slurm("7", SLURM_RESTART_COUNT=theirs)) == why


@pytest.mark.parametrize("how", ["exit 1", "echo NODE_FAIL; exit 1", "echo NODE_FAIL", "true", "echo error: 5 9"])
def test_an_incomplete_answer_proves_nothing(squeue: Client, how: str) -> None:
    squeue.runs(how)
    assert reported(SchedulerReports(SLURM), slurm("7")) is None
    assert len(squeue.asked()) == 1


def test_an_answer_is_valid_for_a_minute(squeue: Client) -> None:
    squeue.prints("PREEMPTED 0")
    jobs = SchedulerReports(SLURM)
    assert reported(jobs, slurm("7"))
    squeue.prints("RUNNING 0")
    assert jobs.end_reason(slurm("7"), LONG_AGO, 59.0)
    assert reported(jobs, slurm("7"), 60.0) is None
    assert len(squeue.asked()) == 2


def test_an_answer_from_before_a_farmers_silence_proves_nothing(squeue: Client) -> None:
    """If the job was restarted since, the farmer may belong to the new run."""
    squeue.prints("FAILED 0")
    jobs = SchedulerReports(SLURM)
    assert reported(jobs, slurm("7"), 0.0)
    assert reported(jobs, slurm("7"), 30.0, since=20.0) is None
    assert reported(jobs, slurm("7"), 60.0, since=20.0)
    assert len(squeue.asked()) == 2


def test_a_question_whose_answer_is_never_fetched_does_not_block_other_questions(squeue: Client) -> None:
    squeue.go.unlink()
    squeue.prints("NODE_FAIL 0")
    jobs = SchedulerReports(SLURM)
    assert jobs.end_reason(slurm("7"), LONG_AGO, 0.0) is None
    assert jobs.end_reason(slurm("8"), LONG_AGO, 0.0) is None
    eventually(squeue.asked, "Slurm is asked")
    assert len(squeue.asked()) == 1, "one question at a time"
    squeue.go.touch()
    assert reported(jobs, slurm("8"), 1.0) == "Slurm reports its job 8 as NODE_FAIL"
    assert len(squeue.asked()) == 2


@pytest.mark.parametrize(
    "theirs",
    [
        {"SLURM_CLUSTER_NAME": "there"},
        {"SLURM_JOB_ID": "1"},
        {"SLURM_JOB_ID": "--me"},
        {"SLURM_JOB_ID": ""},
        {"SLURM_JOB_ID": "", "JOB_ID": "7"},
    ],
)
def test_slurm_is_only_asked_about_other_jobs_of_this_cluster(squeue: Client, theirs: dict[str, str]) -> None:
    jobs = SchedulerReports(SLURM)
    assert jobs.end_reason({**slurm("7"), **theirs}, LONG_AGO, 0.0) is None
    assert jobs._question is None


@pytest.mark.parametrize("mine", [{}, {"SLURM_JOB_ID": "1"}, GRID])
def test_a_farmer_outside_of_the_cluster_does_not_ask(squeue: Client, mine: dict[str, str]) -> None:
    jobs = SchedulerReports(mine)
    theirs = {"SLURM_JOB_ID": "7", **({} if mine == {"SLURM_JOB_ID": "1"} else SLURM)}
    assert jobs.end_reason({**theirs, "SLURM_JOB_ID": "7"}, LONG_AGO, 0.0) is None
    assert jobs._question is None


def test_slurm_is_asked_about_an_array_element_by_its_array_id(squeue: Client) -> None:
    squeue.prints("RUNNING 0")
    reported(SchedulerReports(SLURM), slurm("10", SLURM_ARRAY_JOB_ID="10", SLURM_ARRAY_TASK_ID="4"))
    assert [line.split()[3] for line in squeue.asked()] == ["10_4"]


# --- Slurm: steps -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("lines", "ended"),
    [
        ("1.1\n1.batch\n", True),
        ("1.0\n1.1\n1.batch\n", False),
        ("", False),
        ("7.1\n7.batch\n", False),
        ("slurm_load_steps: error\n", False),
    ],
)
def test_a_step_that_ended_while_its_job_continues_is_evidence(squeue: Client, lines: str, ended: bool) -> None:
    """Only if another step of the job is listed: then the list is valid, and the step is missing in it."""
    squeue.prints(lines)
    why = "Slurm reports its step 1.0 as ended" if ended else None
    mine = {**SLURM, "SLURM_STEP_ID": "1", "SLURM_UMASK": "0022"}
    assert reported(SchedulerReports(mine), {**SLURM, **STEP_0}) == why
    assert squeue.asked() == ["--noheader --steps -j 1 -o %i"]


def test_slurm_is_asked_about_steps_of_another_job_while_that_job_runs(squeue: Client) -> None:
    squeue.runs('case "$*" in *--steps*) echo 7.batch;; *) echo RUNNING 0;; esac')
    assert reported(SchedulerReports(SLURM), slurm("7", **STEP_0)) == "Slurm reports its step 7.0 as ended"
    assert reported(SchedulerReports(SLURM), slurm("7")) is None
    assert len(squeue.asked()) == 3


@pytest.mark.parametrize(
    "step",
    [{}, {"SLURM_STEP_ID": "0"}, {"SLURM_STEP_ID": "4294967290", "SLURM_UMASK": "0022"}],
    ids=["none", "of the job that submitted it", "of an interactive shell"],
)
def test_slurm_is_not_asked_about_an_uncertain_step(squeue: Client, step: dict[str, str]) -> None:
    jobs = SchedulerReports(SLURM)
    assert jobs.end_reason({**SLURM, **step}, LONG_AGO, 0.0) is None
    assert jobs._question is None


# --- an earlier run of our own job --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("mine", "theirs", "earlier"),
    [
        ({**SLURM, "SLURM_RESTART_COUNT": "1"}, SLURM, True),
        ({**SLURM, "SLURM_RESTART_COUNT": "2"}, {**SLURM, "SLURM_RESTART_COUNT": "1"}, True),
        ({**SLURM, "SLURM_RESTART_COUNT": "2"}, {**SLURM, "SLURM_RESTART_COUNT": "2"}, False),
        ({**SLURM, "SLURM_RESTART_COUNT": "2"}, {**SLURM, "SLURM_RESTART_COUNT": "3"}, False),
        ({**SLURM, "SLURM_RESTART_COUNT": "2"}, slurm("7"), False),
        ({**SLURM, "SLURM_RESTART_COUNT": "2"}, {**SLURM, "SLURM_CLUSTER_NAME": "there"}, False),
        ({**GRID, "RESTARTED": "1"}, {**GRID, "RESTARTED": "0"}, True),
        ({**GRID, "RESTARTED": "1"}, {**GRID, "RESTARTED": "1"}, False),
        ({**GRID, "RESTARTED": "1"}, {**GRID, "RESTARTED": "0", "SGE_CELL": "other"}, False),
        ({**GRID, "RESTARTED": "1", "SGE_TASK_ID": "2"}, {**GRID, "RESTARTED": "0", "SGE_TASK_ID": "3"}, False),
        (SLURM, SLURM, False),
        ({}, {}, False),
    ],
)
def test_a_requeued_job_knows_that_its_earlier_runs_have_ended(
    mine: dict[str, str], theirs: dict[str, str], earlier: bool
) -> None:
    assert (SchedulerReports(mine).requeue_reason(theirs) is not None) is earlier


# --- Grid Engine --------------------------------------------------------------------------------------


def grid(number: str, **more: str) -> dict[str, str]:
    return {**GRID, "JOB_ID": number, **more}


@pytest.mark.parametrize(
    ("lines", "theirs", "ended"),
    [
        ([("1", "r", ""), ("8", "r", "")], grid("7"), True),
        ([("1", "r", ""), ("7", "r", "")], grid("7"), False),
        ([("1", "r", ""), ("7", "s", "")], grid("7"), False),
        ([("1", "r", ""), ("7", "r", "1"), ("7", "r", "3")], grid("7", SGE_TASK_ID="2"), True),
        ([("1", "r", ""), ("7", "r", "1"), ("7", "dr", "2")], grid("7", SGE_TASK_ID="2"), False),
        ([("8", "r", "")], grid("7"), False),
        ([], grid("7"), False),
        ([("1", "r", "")], grid("7", SGE_ROOT="/other"), False),
        ([("1", "r", "")], grid("7", SGE_CELL="other"), False),
        ([("1", "r", "")], grid("7", LOGNAME="*"), False),
        ([("1", "r", "")], {"SGE_CELL": "default", "JOB_ID": "7", "SGE_TASK_ID": "undefined"}, False),
        ([("1", "r", "")], grid("1"), False),
    ],
    ids=[
        "gone",
        "running",
        "suspended",
        "element gone",
        "element being deleted",
        "our own job is not in the list",
        "nothing is in the list",
        "of another Grid Engine",
        "of another cell",
        "of a strange user",
        "of an older version",
        "our own job",
    ],
)
def test_a_job_that_is_missing_from_the_running_jobs_has_ended(
    qstat: Client, lines: list[tuple[str, str, str]], theirs: dict[str, str], ended: bool
) -> None:
    qstat.prints((HEAD if lines else "") + "".join(LINE.format(*one) for one in lines))
    why = f"Grid Engine reports its job {scheduled.job_name(theirs)} as ended" if ended else None
    assert reported(SchedulerReports(GRID), theirs) == why


def test_grid_engine_is_asked_once_for_all_jobs_of_a_user(qstat: Client) -> None:
    qstat.prints(HEAD + LINE.format("1", "r", ""))
    jobs = SchedulerReports(GRID)
    assert [bool(reported(jobs, grid(number), 1.0)) for number in ("7", "8", "9")] == [True] * 3
    assert qstat.asked() == ["-s rs -u joe"]
    assert reported(jobs, grid("7", LOGNAME="ann"), 1.0)
    assert qstat.asked()[1:] == ["-s rs -u ann,joe"]


def test_a_grid_engine_that_does_not_answer_proves_nothing(qstat: Client) -> None:
    qstat.runs("echo 'error: commlib error: got select error (Connection refused)'; exit 1")
    assert reported(SchedulerReports(GRID), grid("7")) is None
