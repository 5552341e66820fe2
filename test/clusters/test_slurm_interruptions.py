"""If Slurm interrupts jobs in the middle of a list, no task is lost or recorded twice, and no process is left.

The jobs are the unchanged scripts of examples/slurm; sbatch only gets their times and sizes. All of them run at once,
each with a separate list; each test waits for one of them. Slurm checks time limits every 30 seconds.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import pytest

from support.checker import Report, check
from support.farming import eventually
from support.fields import ClusterField, chosen
from support.slow_jobs import AGAIN, SLURM, SlowJob
from support.slurm_cluster import SlurmCluster

NERSC = """\
requeue_job() { echo "$1 $2 $max_timelimit $ckpt_overhead" >>theirs; trap "$1" "$2"; }
func_trap() { $ckpt_command; echo requeued >>theirs; scontrol requeue "$SLURM_JOB_ID"; }
"""


def interrupted(report: Report) -> float:
    """Seconds of attempts that were interrupted and had to be repeated."""
    return sum(line.end - line.start for line in report.lines if line.outcome == "returned")


# --- the time limit ----------------------------------------------------------------------------


def signalled_script(slurm: SlurmCluster, field: ClusterField) -> None:
    """array.sh with `--signal=B:USR1`: the farmer replaces the script, stops in time and reports unprocessed tasks."""
    slow = SlowJob(slurm, field, "array.sh", "--array=1-3", "--cpus-per-task=4", "--time=2", "--signal=B:USR1@120")
    slow.submit("--margin", "1s")
    assert slow.elements() == [("FAILED", AGAIN)] * 3, field.said()
    field.nothing_runs()
    returned = [line for line in check(field.workdir, views=True).lines if line.outcome == "returned"]
    assert len(returned) == 12, field.said()
    slow.options = ("--array=1-3", "--cpus-per-task=4")  # with the time limit in the example
    slow.resubmit()
    field.judge(once=False)


def signalled_steps(slurm: SlurmCluster, field: ClusterField) -> None:
    """srun.sh with `--signal=USR1`: the signal reaches the farmers through srun, on all three nodes."""
    slow = SlowJob(slurm, field, "srun.sh", "--cpus-per-task=4", "--time=2", "--signal=USR1@120")
    slow.submit("--margin", "1s")
    assert slow.elements() == [("FAILED", AGAIN)], field.said()
    field.nothing_runs()
    assert check(field.workdir, views=True).failed == set(), field.said()
    slow.options = ("--cpus-per-task=4",)
    slow.resubmit()
    field.judge(once=False)


def time_limit(slurm: SlurmCluster, field: ClusterField) -> None:
    """Without a warning: SIGTERM to all processes at once, and SIGKILL later."""
    slow = SlowJob(slurm, field, "array.sh", "--array=1-2", "--cpus-per-task=4", "--signal=B:CONT@1")
    slow.submit()
    slow.wait_for_starts(8)
    for element in slurm.elements(slow.job):
        slurm.run_client("scontrol", "update", f"JobId={element['JobId']}", "EndTime=now+1seconds")
    assert {state for state, _ in slow.elements()} == {"TIMEOUT"}, field.said()
    field.nothing_runs()
    assert check(field.workdir).problems == []
    slow.resubmit()
    field.judge(once=False)


def known_lengths(slurm: SlurmCluster, field: ClusterField) -> None:
    """If there is time for a third of the list, no task is started that cannot finish, and the next job runs the rest.

    The margin starts a minute before the signal, as in the example.
    """
    slow = SlowJob(slurm, field, "array.sh", "--array=1", "--cpus-per-task=4", "--time=2", "--signal=B:USR1@10")
    field.tasks(150, 0.1, then=f"[ -e {slow.fast} ] || sleep 3.5")
    field.list.write_text("#TASKFARMER --time 5\n" + field.list.read_text())
    slow.submit("--margin", "70s")
    assert slow.elements() == [("FAILED", AGAIN)], field.said()
    report = check(field.workdir, views=True)
    assert {line.outcome for line in report.lines} == {"finished"}, field.said()
    assert 4 <= len(report.finished) <= 75, field.said()
    assert "to the next job" in field.said()
    slow.resubmit("--margin", "70s")
    assert {line.outcome for line in field.judge().lines} == {"finished"}, "nothing was begun in vain"


# --- people ------------------------------------------------------------------------------------


def cancelled(slurm: SlurmCluster, field: ClusterField) -> None:
    slow = SlowJob(slurm, field, "srun.sh", "--cpus-per-task=4")
    slow.submit()
    slow.wait_for_starts(12)
    slurm.run_client("scancel", str(slow.job))
    assert [state for state, _ in slow.elements()] == ["CANCELLED"], field.said()
    field.nothing_runs()
    assert check(field.workdir, views=True).problems == []
    slow.resubmit()
    field.judge(once=False)


def requeued(slurm: SlurmCluster, field: ClusterField) -> None:
    """If one element is requeued in the middle, the list is completed without another command."""
    slow = SlowJob(slurm, field, "array.sh", "--array=1-2", "--cpus-per-task=4", "--requeue")
    slow.submit()
    slow.wait_for_starts(8)
    slurm.run_client("scontrol", "requeue", f"{slow.job}_1")
    eventually(lambda: slow.restarts() == 1, "the element is requeued", 30)
    slow.hurry()
    assert slow.elements() == [("COMPLETED", 0)] * 2, field.said()
    field.judge(once=False)


# --- jobs that requeue themselves --------------------------------------------------------------


def flex(slurm: SlurmCluster, field: ClusterField, by_the_clock: int = 1, in_all: int = 3) -> None:
    """flex.sh requeues itself until the list is complete; the time limit causes the first signals."""
    slow = SlowJob(
        slurm, field, "flex.sh", "--time-min=3", "--time=3", "--signal=B:USR1@150", "--cpus-per-task=4", tasks=24
    )
    slow.submit()
    slow.has_restarted(by_the_clock)
    for times in range(by_the_clock, in_all):
        slurm.run_client("scancel", "--batch", "--signal=USR1", str(slow.job))
        slow.has_restarted(times + 1)
    slow.hurry()
    assert slow.elements() == [("COMPLETED", 0)], field.said()
    report = field.judge(once=False)
    assert slow.restarts() >= in_all
    seconds = sum(line.end - line.start for line in report.lines)
    print(
        f"flex.sh: {slow.restarts()} restarts, {interrupted(report):.1f} of {seconds:.1f} task seconds were run again"
    )


def theirs(slurm: SlurmCluster, field: ClusterField) -> None:
    """NERSC's script, if present, requeues the job after the farmer has released its tasks; here a stub replaces it."""
    (field.folder / "setup.sh").write_text(NERSC)
    field.variables["VARIABLE_TIME_JOB"] = str(field.folder / "setup.sh")
    slow = SlowJob(slurm, field, "flex.sh", "--cpus-per-task=4", tasks=12)
    slow.submit()
    slow.wait_for_starts(4)
    slurm.run_client("scancel", "--batch", "--signal=USR1", str(slow.job))
    slow.has_restarted(1)
    slow.hurry()
    assert slow.elements() == [("COMPLETED", 0)], field.said()
    told = (field.folder / "theirs").read_text().splitlines()
    assert told == ["func_trap USR1 12:00:00 60", "requeued", "func_trap USR1 12:00:00 60"]
    assert slow.restarts() == 1
    returned = [line for line in field.judge(once=False).lines if line.outcome == "returned"]
    assert len(returned) == 4


def checkpoints(slurm: SlurmCluster, field: ClusterField) -> None:
    """A task continues from the state that its previous attempt saved when its farmer was stopped."""
    shutil.copy(SLURM / "checkpoint.sh", field.folder)
    field.stand_in("sleep", "echo >>steps; exec /bin/sleep 0.2")
    names = [f"name{number}" for number in range(3)]
    field.write(f"./checkpoint.sh {name} 40" for name in names)
    job = slurm.submit(field.folder, field.variables, f"{SLURM}/flex.sh", "list")
    steps = field.folder / "steps"
    eventually(lambda: steps.exists() and len(steps.read_text()) > 40, "some steps", 60)
    slurm.run_client("scancel", "--batch", "--signal=USR1", str(job))
    assert slurm.wait(job) == [("COMPLETED", 0)], field.said()
    report = check(field.workdir, views=True)
    assert report.problems == []
    assert report.finished == {0, 1, 2}
    assert (
        sorted((line.attempt, line.outcome) for line in report.lines) == [(1, "returned")] * 3 + [(2, "finished")] * 3
    )
    assert 120 <= len(steps.read_text()) <= 123


INTERRUPTIONS: dict[str, Callable[[SlurmCluster, ClusterField], None]] = {
    "USR1 to the script": signalled_script,
    "USR1 to the steps": signalled_steps,
    "the time limit": time_limit,
    "time for a third of it": known_lengths,
    "scancel": cancelled,
    "scontrol requeue": requeued,
    "a job that requeues itself": flex,
    "NERSC's script": theirs,
    "a task that saves its state": checkpoints,
}


def at_once(slurm: SlurmCluster, folder: Callable[[], Path], names: Iterable[str]) -> Iterator[dict[str, Future[None]]]:
    fields = {name: ClusterField(folder()) for name in names}
    try:
        with ThreadPoolExecutor(len(fields)) as pool:
            yield {name: pool.submit(INTERRUPTIONS[name], slurm, fields[name]) for name in fields}
    finally:
        for field in fields.values():
            field.close()


@pytest.fixture(scope="module")
def interruptions(
    request: pytest.FixtureRequest, slurm: SlurmCluster, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[dict[str, Future[None]]]:
    """All of these interruptions happen at once on the cluster."""
    yield from at_once(slurm, lambda: tmp_path_factory.mktemp("interrupted"), chosen(request))


@pytest.mark.parametrize("what", INTERRUPTIONS)
def test_a_list_is_completed_after(what: str, interruptions: dict[str, Future[None]]) -> None:
    interruptions[what].result(170)


# --- a node that dies --------------------------------------------------------------------------


def node_dies(slurm: SlurmCluster, folder: Callable[[], Path]) -> None:
    """A job array, a job of three nodes, and a job that requeues itself all run on the node that dies.

    Slurm decides on which nodes the elements of an array run: the test chooses a node that has some.
    """
    array = SlowJob(slurm, ClusterField(folder()), "array.sh", "--array=1-6", "--cpus-per-task=2", "--requeue")
    jobs = [array]
    try:
        array.field.make_farm()
        array.submit()
        array.wait_for_starts(12)
        node = slurm.elements(array.job)[0]["NodeList"]
        jobs += [
            SlowJob(slurm, ClusterField(folder()), "srun.sh", "--cpus-per-task=4", "--requeue"),
            SlowJob(slurm, ClusterField(folder()), "flex.sh", f"--nodelist={node}", tasks=16),
        ]
        for slow in jobs[1:]:
            slow.field.make_farm()
            slow.submit()
        for slow, count in zip(jobs[1:], (12, 8), strict=True):
            slow.wait_for_starts(count)
        slurm.kill_node(node)
        slurm.wait_for_node(node, "down")
        slurm.start_node(node)
        slurm.wait_for_node(node, "idle")
        for slow in jobs:
            slow.hurry()
        for slow in jobs:
            slow.elements()
        for slow in jobs:
            slow.resubmit("--wait")
            report = slow.field.judge(once=False)
            died = [task for task, times in slow.field.runs().items() if times > 1]
            assert died, "the node had tasks"
            print(
                f"{Path(slow.script).name}: {len(died)} tasks were run again, attempts {max(report.attempts.values())}"
            )
    finally:
        for slow in jobs:
            slow.field.close()


def test_a_list_is_completed_after_the_death_of_a_node(
    slurm: SlurmCluster, tmp_path_factory: pytest.TempPathFactory
) -> None:
    node_dies(slurm, lambda: tmp_path_factory.mktemp("dead"))


# --- campaign ----------------------------------------------------------------------------------


@pytest.mark.campaign
@pytest.mark.timeout(600)
@pytest.mark.parametrize("time", range(10))
def test_lists_are_completed_after_repeated_interruptions(
    time: int, slurm: SlurmCluster, tmp_path_factory: pytest.TempPathFactory
) -> None:
    def folder() -> Path:
        return tmp_path_factory.mktemp(f"again{time}")

    for interruptions in at_once(slurm, folder, INTERRUPTIONS):
        for future in interruptions.values():
            future.result(300)
    node_dies(slurm, folder)


@pytest.mark.campaign
@pytest.mark.timeout(900)
def test_ten_jobs_requeue_themselves_three_times_by_the_clock(
    slurm: SlurmCluster, tmp_path_factory: pytest.TempPathFactory
) -> None:
    fields = [ClusterField(tmp_path_factory.mktemp("flex")) for _ in range(10)]
    try:
        with ThreadPoolExecutor(len(fields)) as pool:
            futures = [pool.submit(flex, slurm, field, by_the_clock=3, in_all=3) for field in fields]
        for future in futures:
            future.result()
    finally:
        for field in fields:
            field.close()
