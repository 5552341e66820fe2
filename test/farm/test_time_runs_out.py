"""A farmer with limited time: it starts no task that cannot finish, and unfinished tasks are retried."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import time
from pathlib import Path

import pytest

from support.checker import check
from support.farming import Field, eventually, need, send, tree
from support.farms import Farm

AGAIN = 75


def allocation(seconds: float, job: int = 7) -> dict[str, str]:
    """The variables of a Slurm job that ends in this many seconds."""
    return {"SLURM_JOB_ID": str(job), "SLURM_JOB_END_TIME": str(int(time.time() + seconds))}


def newest(farm: Farm) -> dict[str, object]:
    paths = [path for path in (farm.workdir / "ledger").glob("*/*") if path.name.isdigit()]
    found: dict[str, object] = json.loads(max(paths, key=lambda path: int(path.name)).read_bytes())
    return found


def test_no_task_is_started_that_cannot_finish_and_the_next_job_runs_the_rest(farm: Farm) -> None:
    farm.write(*["sleep 1"] * 24)
    first = farm.run("-n", 4, "--margin", 2, "--min-time-left", 4, environment=allocation(9))
    assert first.process.returncode == AGAIN, first.said
    done = len(farm.check().finished)
    assert 4 <= done < 24, first.said
    assert "leaving them to the next job" in first.said
    second = farm.run("-n", 24, "--margin", 2, environment=allocation(600))
    assert second.process.returncode == 0, second.said
    assert [line.outcome for line in farm.check().lines] == ["finished"] * 24, "nothing was begun in vain"


def test_a_farm_learns_how_long_its_tasks_take(farm: Farm) -> None:
    farm.write(*["sleep 1.5"] * 24)
    assert farm.run("-n", 24).process.returncode == 0
    row = newest(farm)["times"]
    assert isinstance(row, list)
    assert sum(row[1:]) == 24
    farm.append("true\n" * 3)
    late = farm.run("--timeout", 1, "-n", 3)
    assert late.process.returncode == AGAIN, late.said
    assert re.search(r"1 s left, too short for the 3 remaining tasks \(about [23] s each\)", late.said), late.said
    assert len(farm.check().lines) == 24
    assert farm.run("--timeout", 1, "-n", 3, "--min-time-left", 0).process.returncode == 0


def test_a_task_with_a_duration_on_its_line_is_started_if_there_is_enough_time(farm: Farm) -> None:
    farm.write("echo a", "#TASKFARMER --time 1h", "echo b", "echo c", "#TASKFARMER --time=2", "echo d")
    farm.append("#TASKFARMER --time none\necho e\n")
    short = farm.run("--timeout", 30)
    assert short.process.returncode == AGAIN, short.said
    assert farm.places() == ([1, 2], [0, 3, 4], [])
    assert farm.view("toprocess")[1] == b'{"command": "echo b", "time": 3600.0}'
    assert "too short for the 2 remaining tasks; leaving them" in short.said
    farm.append("#TASKFARMER --time 1h\necho f\n")
    farm.append("echo g\n")
    assert farm.run("--timeout", 30).process.returncode == AGAIN
    assert farm.check().unprocessed == {1, 2, 5, 6}
    assert len(farm.check().lines) == 3, "what cannot end was not begun"
    assert farm.run("--timeout", "2h").process.returncode == 0
    assert [farm.log(task).splitlines()[-1] for task in (1, 6)] == ["b", "g"]


def test_a_long_list_without_any_fitting_task_is_searched_in_few_exchanges(farm: Farm) -> None:
    farm.write("#TASKFARMER --time 1h", *["true"] * 3000)
    farmer = farm.run("-n", 2, "--timeout", 30)
    assert farmer.process.returncode == AGAIN, farmer.said
    assert farm.check().unprocessed == set(range(3000))
    assert len(list((farm.workdir / "ledger").glob("*/[0-9]*"))) < 40


def test_a_duration_on_a_line_outweighs_the_durations_of_other_tasks(farm: Farm) -> None:
    farm.write(*["sleep 1"] * 20)
    assert farm.run("-n", 20).process.returncode == 0
    farm.append("true\n#TASKFARMER --time 0.1\necho quick\n")
    late = farm.run("--timeout", 1)
    assert late.process.returncode == AGAIN, late.said
    assert farm.check().unprocessed == {20}
    assert farm.log(21) == "quick\n"


@pytest.mark.parametrize("words", ["--time", "--time soon", "--time 1h 2h", "--mem 5"])
def test_an_unknown_option_in_a_list_is_refused(farm: Farm, words: str) -> None:
    farm.write("true", f"#TASKFARMER {words}", "true")
    farmer = farm.run()
    assert farmer.process.returncode == 2
    assert f"{farm.list}: line 2: " in farmer.said
    assert not farm.workdir.exists()


def test_a_task_that_ran_out_of_time_gets_the_longest_time_and_is_then_reported(farm: Farm) -> None:
    farm.write(f"{farm.marked('')} [ $TASKFARMER_ATTEMPT = 3 ] || exec sleep 1000")
    assert farm.run("--timeout", 4).process.returncode == AGAIN
    assert newest(farm)["returned"] == "0:0@2^2"
    short = farm.run("--timeout", 2)
    assert short.process.returncode == AGAIN, short.said
    assert "too short for the remaining task; leaving it to the next job" in short.said
    assert farm.attempts(0) == [(1, "returned")]
    again = farm.run("--timeout", 4)
    assert "task 0 again did not finish in the longest time that any farmer had (3 s)" in again.said
    assert newest(farm)["returned"] == "0:0@3^4"
    assert farm.run("--timeout", 4).process.returncode == AGAIN
    assert farm.attempts(0) == [(1, "returned"), (2, "returned")]
    assert farm.run("--timeout", "none").process.returncode == 0
    assert farm.attempts(0) == [(1, "returned"), (2, "returned"), (3, "finished")]


SAVES = """\
[ -e saved ] && exit 0; trap 'echo $TASKFARMER_ATTEMPT > saved; exit {code}' USR1; while :; do sleep 0.1; done
"""


@pytest.mark.parametrize(("code", "options"), [(85, ()), (99, ("--checkpoint-exit-code", 99))])
def test_a_task_is_warned_saves_its_state_and_is_retried(farm: Farm, code: int, options: tuple[object, ...]) -> None:
    farm.write(SAVES.strip().format(code=code))
    first = farm.run("--timeout", 4, "--warn-signal", "USR1", "--warn-time", 2, *options)
    assert first.process.returncode == AGAIN, first.said
    assert (farm.folder / "saved").read_text() == "1\n"
    assert farm.attempts(0) == [(1, "returned")]
    assert newest(farm)["returned"] == "0:0@2", "it is not known to need more time"
    assert farm.run("--timeout", 4).process.returncode == 0
    assert farm.attempts(0) == [(1, "returned"), (2, "finished")]


def test_a_task_that_dies_of_the_warning_has_not_failed(farm: Farm) -> None:
    farm.write("exec sleep 1000")
    farmer = farm.run("--timeout", 3, "--warn-signal", "SIGUSR2", "--warn-time", 1.5)
    assert farmer.process.returncode == AGAIN, farmer.said
    assert farm.attempts(0) == [(1, "returned")]


def test_without_a_checkpoint_exit_code_the_exit_status_is_a_failure(farm: Farm) -> None:
    farm.write("exit 85")
    assert farm.run().process.returncode == 1


def test_a_task_that_reports_itself_unfinished_is_retried_at_once_if_there_is_time(farm: Farm) -> None:
    farm.write("[ $TASKFARMER_ATTEMPT -ge 3 ] || exit 85")
    assert farm.run("--checkpoint-exit-code", 85).process.returncode == 0
    assert farm.attempts(0) == [(1, "returned"), (2, "returned"), (3, "finished")]


@pytest.mark.parametrize("number", [signal.SIGUSR1, signal.SIGTERM])
@pytest.mark.parametrize("order", ["tasks first", "farmer first"])
def test_tasks_that_die_of_a_signal_for_the_whole_step_have_not_failed(
    farm: Farm, number: signal.Signals, order: str
) -> None:
    farm.write(*[f"{farm.marked('')} [ -e {farm.folder}/again ] || exec sleep 1000"] * 6)
    farmer = farm.start("-n", 3)
    farm.wait_for_tasks(0, 1, 2)
    pids = sorted(farm.processes(), reverse=order == "tasks first")
    for pid in pids:
        send(pid, number)
        time.sleep(0.02)
    assert farmer.wait() == AGAIN, farmer.said
    assert {line.outcome for line in farm.check().lines} == {"returned"}
    (farm.folder / "again").touch()
    assert farm.run().process.returncode == 0


def test_a_task_that_kills_itself_with_a_signal_has_failed(farm: Farm) -> None:
    farm.write("kill -TERM $$", "sh -c 'kill -USR1 $$'", "true")
    assert farm.run().process.returncode == 1
    assert farm.check().failed == {0, 1}


def test_tasks_find_the_end_time_of_their_farmer_in_their_environment(farm: Farm) -> None:
    farm.write("echo end $TASKFARMER_DEADLINE")
    variables = allocation(1000)
    assert farm.run("--margin", 100, environment=variables).process.returncode == 0
    assert farm.log(0) == f"end {int(variables['SLURM_JOB_END_TIME']) - 100}\n"
    (label,) = [
        event["args"]["labels"] for event in farm.timeline() if event["name"] == "process_labels" and event["pid"]
    ]
    assert label == time.strftime("ends %Y-%m-%d %H:%M:%S", time.localtime(int(variables["SLURM_JOB_END_TIME"])))
    farm.append("echo end $TASKFARMER_DEADLINE\n")
    assert farm.run("--timeout", "none", environment=variables).process.returncode == 0
    assert farm.log(1) == "end\n"


@pytest.mark.parametrize(("options", "least", "most"), [((), 60, 70), (("--grace", 100), 100, 130)])
def test_tasks_are_stopped_early_enough_for_their_grace_time(
    farm: Farm, options: tuple[object, ...], least: float, most: float
) -> None:
    """A minute, or the grace time plus the time to release tasks, if that is longer."""
    farm.write("echo $TASKFARMER_DEADLINE")
    variables = allocation(1000)
    assert farm.run(*options, environment=variables).process.returncode == 0
    margin = float(variables["SLURM_JOB_END_TIME"]) - float(farm.log(0))
    assert least <= margin <= most


@pytest.mark.parametrize(
    ("variables", "label"),
    [
        (
            {
                "SLURM_JOB_ID": "12",
                "SLURM_ARRAY_JOB_ID": "10",
                "SLURM_ARRAY_TASK_ID": "4",
                "SLURM_STEP_ID": "0",
                "SLURM_RESTART_COUNT": "2",
                "SLURMD_NODENAME": "n1",
                "SLURM_CPUS_ON_NODE": "64",
                "SLURM_CPUS_PER_TASK": "8",
            },
            "step 0, restart 2, cpus 8",
        ),
        ({"SGE_ROOT": "/sge", "JOB_ID": "3", "SGE_TASK_ID": "2", "NSLOTS": "4"}, "cpus 4"),
    ],
    ids=["Slurm", "Grid Engine"],
)
def test_the_job_of_a_farmer_is_in_its_file_and_in_the_timeline(
    farm: Farm, variables: dict[str, str], label: str
) -> None:
    farm.write("true")
    assert farm.run("--timeout", "none", environment=variables).process.returncode == 0
    (path,) = (farm.workdir / "farmers").glob("*.json")
    assert json.loads(path.read_bytes())["job"] == variables
    named = {event["name"]: event["args"] for event in farm.timeline() if event["ph"] == "M" and event["pid"]}
    assert named["process_labels"]["labels"] == label
    assert named["process_name"]["name"].endswith(" job 10_4" if "SLURM_JOB_ID" in variables else " job 3_2")


def test_a_farmer_starts_no_task_if_its_allocation_ends_soon(farm: Farm) -> None:
    farm.write("true")
    farmer = farm.run(environment=allocation(30))
    assert farmer.process.returncode == AGAIN, farmer.said
    assert "no task is started; ask for more --time" in farmer.said
    assert not farm.check().lines


def stand_in(farm: Farm, answer: str) -> dict[str, str]:
    """Variables with a `squeue` stub at the front of PATH; the stub records its arguments."""
    folder = farm.folder / "bin"
    folder.mkdir(exist_ok=True)
    program = folder / "squeue"
    program.write_text(f'#!/bin/sh\necho "$@" >> {farm.folder}/asked\n{answer}\n')
    program.chmod(0o755)
    return {"PATH": f"{folder}:{os.environ['PATH']}", "SLURM_CLUSTER_NAME": "test"}


def asked(farm: Farm) -> list[str]:
    path = farm.folder / "asked"
    return path.read_text().splitlines() if path.exists() else []


def test_one_farmer_of_a_job_asks_slurm_and_all_get_the_answer(farm: Farm) -> None:
    """This test uses a `squeue` stub; test/clusters uses the real one."""
    end = int(time.time() + 1000)
    variables = {**stand_in(farm, f"sleep 0.5; echo {end}"), "SLURM_JOB_ID": "123"}
    command = f"{farm.marked('')} while [ ! -e {farm.folder}/go ]; do sleep 0.1; done; echo end $TASKFARMER_DEADLINE"
    farm.write(*[command] * 3, *["echo end $TASKFARMER_DEADLINE"] * 20)
    farmers = [farm.start("-n", 1, environment=variables) for _ in range(3)]
    for farmer in farmers:
        farmer.says("the allocation ends in 16 min")
    (farm.folder / "go").touch()
    assert [farmer.wait() for farmer in farmers] == [0, 0, 0]
    assert len(asked(farm)) == 1, asked(farm)
    assert "-j 123" in asked(farm)[0]
    told = [farm.log(task) for task in range(23)]
    assert f"end {end - 60}\n" in told
    assert set(told) <= {"end\n", f"end {end - 60}\n"}
    known = [json.loads(path.read_bytes()) for path in (farm.workdir / "farmers").glob("*.json")]
    assert {one["job"]["SLURM_JOB_END_TIME"] for one in known} == {str(end)}
    farm.check()


def test_farmers_work_without_an_answer_from_slurm(farm: Farm) -> None:
    variables = {
        **stand_in(farm, "echo slurm_load_jobs error: Invalid job id specified >&2; exit 1"),
        "SLURM_JOB_ID": "9",
    }
    farm.write("sleep 1; echo end $TASKFARMER_DEADLINE")
    farmer = farm.run(environment=variables)
    assert farmer.process.returncode == 0, farmer.said
    assert farm.log(0) == "end\n"
    assert len(asked(farm)) == 1


def test_tasks_that_may_not_finish_are_not_started_while_slurm_is_asked_for_the_end_time(farm: Farm) -> None:
    farm.write(*["sleep 2"] * 20)
    assert farm.run("-n", 20).process.returncode == 0
    farm.append("true\n" * 3)
    variables = {**stand_in(farm, f"sleep 0.7; echo {int(time.time() + 62)}"), "SLURM_JOB_ID": "9"}
    farmer = farm.run(environment=variables)
    assert farmer.process.returncode == AGAIN, farmer.said
    assert len(farm.check().lines) == 20, "nothing was begun that may not end"


def test_a_requeued_job_asks_again(farm: Farm) -> None:
    end = int(time.time() + 1000)
    variables = {**stand_in(farm, f"echo {end}"), "SLURM_JOB_ID": "123"}
    for restart in ("", "1"):
        farm.append("sleep 1.5\n")
        farmer = farm.run(environment={**variables, "SLURM_RESTART_COUNT": restart})
        assert farmer.process.returncode == 0, farmer.said
    assert len(asked(farm)) == 2


@pytest.mark.parametrize(("state", "expelled"), [("NODE_FAIL", True), ("RUNNING", False)])
def test_a_silent_farmer_whose_job_has_ended_is_dead(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, state: str, expelled: bool
) -> None:
    """Two farmers on separate nodes, and a `squeue` stub."""
    need(os.getuid() == 0 and shutil.which("unshare"), "namespaces need root")
    field = Field(tmp_path)
    folder = tmp_path / "bin"
    folder.mkdir()
    (folder / "squeue").write_text(f'#!/bin/sh\necho "$@" >> {tmp_path}/asked\necho {state} 0\n')
    (folder / "squeue").chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    monkeypatch.setenv("SLURM_CLUSTER_NAME", "one")
    asked = tmp_path / "asked"
    field.write([f"[ -e {tmp_path}/go ] || {{ : > {tmp_path}/begun; exec sleep 1000; }}"])
    options = ("-n", 1, "--lease", 40, "--timeout", "none")
    try:
        monkeypatch.setenv("SLURM_JOB_ID", "1")
        first = field.start(*options, node="first")
        eventually((tmp_path / "begun").exists, "the task runs")
        for pid in tree(first.process.pid):
            send(pid, signal.SIGSTOP)
        (tmp_path / "go").touch()
        monkeypatch.setenv("SLURM_JOB_ID", "2")
        second = field.start(*options, "--wait", node="second")
        if expelled:
            assert second.wait() == 0, second.said
            assert "Slurm reports its job 1 as NODE_FAIL" in second.said
            assert check(field.workdir).complete
        else:
            eventually(lambda: asked.exists() and "-j 1 " in asked.read_text(), "Slurm was asked", 60)
            time.sleep(4)  # longer than a heartbeat interval, at which the answer is checked
            assert check(field.workdir).held == {0}, second.said
            assert len(asked.read_text().splitlines()) == 1
    finally:
        field.close()


def test_variables_of_the_farmers_job_step_can_be_removed_from_tasks(farm: Farm) -> None:
    farm.write("env")
    step = {"SLURM_PROCID": "3", "PMI_RANK": "3", "PMIX_RANK": "3", "SLURM_STEP_ID": "0", "SLURM_JOB_NUM_NODES": "2"}
    variables = {**step, **allocation(1000)}
    assert farm.run("--clean-env", "slurm", environment=variables).process.returncode == 0
    names = {line.partition("=")[0] for line in farm.log(0).splitlines()}
    assert names.isdisjoint({"SLURM_PROCID", "PMI_RANK", "PMIX_RANK", "SLURM_STEP_ID"})
    assert {"SLURM_JOB_ID", "SLURM_JOB_NUM_NODES", "TASKFARMER_DEADLINE"} <= names
    farm.append("env\n")
    assert farm.run(environment=variables).process.returncode == 0
    assert set(step) <= {line.partition("=")[0] for line in farm.log(1).splitlines()}


@pytest.mark.parametrize(
    "options",
    [
        ("--warn-signal", "KILL"),
        ("--warn-signal", "NOSUCH"),
        ("--warn-signal", "0"),
        ("--margin", "soon"),
        ("--min-time-left", "-3"),
        ("--checkpoint-exit-code", "0"),
        ("--clean-env", "lsf"),
    ],
)
def test_a_wrong_value_is_named_and_no_farm_is_created(farm: Farm, options: tuple[str, str]) -> None:
    farm.write("true")
    farmer = farm.run(*options)
    assert farmer.process.returncode == 2
    assert options[0] in farmer.said
    assert "Traceback" not in farmer.said
    assert not farm.workdir.exists()
