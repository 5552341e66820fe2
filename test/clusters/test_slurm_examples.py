"""The job scripts of examples/slurm, unchanged, on a Slurm of three nodes: each task runs exactly once.

All jobs are submitted at once, as users of a cluster do; each test waits for one of them.
"""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import pytest

from support.checker import check
from support.fields import EXAMPLES, ClusterField, chosen
from support.slurm_cluster import GPUS, SlurmCluster

SLURM = EXAMPLES / "slurm"
STAND_IN = """\
echo "{name} $*" >>calls
while [ "$1" != /bin/bash ]; do shift; done
CONTAINER={name} exec "$@"
"""


def array(slurm: SlurmCluster, field: ClusterField) -> None:
    field.tasks(60)
    job = slurm.submit(field.folder, field.variables, f"{SLURM}/array.sh", "list")
    assert slurm.wait(job) == [("COMPLETED", 0)] * 4, field.said()
    field.judge()


def failures(slurm: SlurmCluster, field: ClusterField) -> None:
    field.tasks(20, then="test $PROC_NUMBER != 7")
    job = slurm.submit(field.folder, field.variables, "--array=1", f"{SLURM}/array.sh", "list")
    assert slurm.wait(job) == [("FAILED", 1)], field.said()
    assert check(field.workdir, views=True).failed == {7}


def lists(slurm: SlurmCluster, field: ClusterField) -> None:
    field.write(f"echo $TASKFARMER_ATTEMPT >> {field.ran}/{number}; sleep 0.1" for number in range(40))
    (split,) = (line for line in (SLURM / "lists.sh").read_text().splitlines() if "split --" in line)
    words = split.strip("# ").replace("tasklist.txt", "list").split()
    subprocess.run(words, cwd=field.folder, check=True)
    job = slurm.submit(field.folder, field.variables, f"{SLURM}/lists.sh", "list")
    assert slurm.wait(job) == [("COMPLETED", 0)] * 4, field.said()
    reports = [check(f"{field.list}{number:03}_workdir", views=True) for number in range(4)]
    assert [report.problems for report in reports] == [[]] * 4
    assert all(report.finished for report in reports)
    assert sum(len(report.finished) for report in reports) == 40
    assert field.runs() == dict.fromkeys(range(40), 1)
    field.nothing_runs()


def srun(slurm: SlurmCluster, field: ClusterField) -> None:
    """Farmers finish at different times: one task takes longer than all others."""
    field.tasks(60, then="test $PROC_NUMBER != 0 || sleep 4")
    job = slurm.submit(field.folder, field.variables, f"{SLURM}/srun.sh", "list")
    assert slurm.wait(job) == [("COMPLETED", 0)], field.said()
    field.judge()
    assert set(field.hosts()) == {"n1", "n2", "n3"}


def shared(slurm: SlurmCluster, field: ClusterField) -> None:
    field.tasks(20)
    job = slurm.submit(field.folder, field.variables, f"{SLURM}/shared.sh", "list")
    assert slurm.wait(job) == [("COMPLETED", 0)], field.said()
    assert {line.slot for line in field.judge().lines} == set(range(4))


def multithread(slurm: SlurmCluster, field: ClusterField) -> None:
    field.tasks(20, then=f"echo $OMP_NUM_THREADS >>{field.folder}/threads")
    job = slurm.submit(field.folder, field.variables, f"{SLURM}/multithread.sh", "list")
    assert slurm.wait(job) == [("COMPLETED", 0)], field.said()
    assert {line.slot for line in field.judge().lines} == set(range(4))
    assert (field.folder / "threads").read_text().split() == ["8"] * 20


def gpu(slurm: SlurmCluster, field: ClusterField) -> None:
    field.tasks(24, 0.4, then=f'echo "$(hostname)-$CUDA_VISIBLE_DEVICES $TASKFARMER_FARMER" >>{field.folder}/gpus')
    job = slurm.submit(field.folder, field.variables, f"{SLURM}/gpu.sh", "list")
    assert slurm.wait(job) == [("COMPLETED", 0)], field.said()
    report = field.judge()
    pairs = {tuple(line.split()) for line in (field.folder / "gpus").read_text().splitlines()}
    farmers = {farmer for _, farmer in pairs}
    assert len(pairs) == len(farmers) == len({device for device, _ in pairs}) == 4, pairs
    assert {device.partition("-")[2] for device, _ in pairs} <= set(map(str, range(GPUS))), pairs
    assert {line.slot for line in report.lines} == {0}


def container(runner: str) -> Callable[[SlurmCluster, ClusterField], None]:
    """Uses a stub that accepts the options of the container's program, and runs the command after them."""

    def run(slurm: SlurmCluster, field: ClusterField) -> None:
        for name in ("container.ini", "container.py"):
            shutil.copy(SLURM / name, field.folder)
        field.stand_in(runner, STAND_IN.format(name=runner))
        field.tasks(10, then='test "$CONTAINER"')
        job = slurm.submit(field.folder, field.variables, f"{SLURM}/container.sh", "list", runner)
        assert slurm.wait(job) == [("COMPLETED", 0)], field.said()
        field.judge()
        calls = (field.folder / "calls").read_text().splitlines()
        assert len([call for call in calls if "debian:12" in call and "/bin/bash -c" in call]) == 10, calls

    return run


def swap(slurm: SlurmCluster, field: ClusterField) -> None:
    field.tasks(10)
    words = ("--array=1", f"--bbf={SLURM}/swap.conf", f"{SLURM}/array.sh", "list")
    job = slurm.submit(field.folder, field.variables, *words)
    assert slurm.wait(job) == [("COMPLETED", 0)], field.said()
    field.judge()
    assert "swap 150GB" in slurm.run_client("scontrol", "write", "batch_script", str(job), "-")


def mpi(slurm: SlurmCluster, field: ClusterField) -> None:
    """Tasks call srun, and see no variables of their farmer's step."""
    inner = f"echo $SLURM_PROCID/$SLURM_NTASKS/$(hostname) >>{field.folder}/ranks-$PROC_NUMBER"
    step = f"srun --overlap --nodes=1 --nodelist=$(hostname -s) --ntasks=4 bash -c '{inner}'"
    look = f"env >>{field.folder}/environment-$PROC_NUMBER"
    field.tasks(12, then=f"{look}; {step}")
    job = slurm.submit(field.folder, field.variables, f"{SLURM}/mpi.sh", "list")
    assert slurm.wait(job) == [("COMPLETED", 0)], field.said()
    field.judge()
    for task in range(12):
        ranks = (field.folder / f"ranks-{task}").read_text().split()
        assert sorted(rank.split("/")[:2] for rank in ranks) == [[str(n), "4"] for n in range(4)]
        assert len({rank.split("/")[2] for rank in ranks}) == 1
        names = {line.partition("=")[0] for line in (field.folder / f"environment-{task}").read_text().splitlines()}
        assert not [name for name in names if name.startswith("PMI") or name == "SLURM_PROCID"]


EXAMPLE_RUNS = {
    "the elements of array.sh share a list": array,
    "array.sh exits with 1 if a task failed": failures,
    "each element of lists.sh runs a different list": lists,
    "srun.sh runs a farmer on each node until no task is left": srun,
    "shared.sh has a slot for each CPU": shared,
    "multithread.sh has a slot for each eight CPUs, and passes this number to tasks": multithread,
    "gpu.sh gives each task a separate GPU": gpu,
    "container.sh runs each task in Shifter": container("shifter"),
    "container.sh runs each task in Apptainer": container("apptainer"),
    "container.sh runs each task in podman-hpc": container("podman-hpc"),
    "swap.conf is taken with a job": swap,
}


@pytest.fixture(scope="module")
def submitted(
    request: pytest.FixtureRequest, slurm: SlurmCluster, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[dict[str, Future[None]]]:
    """All of them run on the cluster at once."""
    fields = {name: ClusterField(tmp_path_factory.mktemp("example")) for name in chosen(request)}
    try:
        with ThreadPoolExecutor(len(fields)) as pool:
            yield {name: pool.submit(EXAMPLE_RUNS[name], slurm, fields[name]) for name in fields}
    finally:
        for field in fields.values():
            field.close()


@pytest.mark.parametrize("what", EXAMPLE_RUNS)
def test_on_three_nodes(what: str, submitted: dict[str, Future[None]]) -> None:
    submitted[what].result(170)


def test_there_are_three_nodes(slurm: SlurmCluster) -> None:
    assert sorted(slurm.run_client("srun", "-N3", "--ntasks-per-node=1", "hostname").split()) == ["n1", "n2", "n3"]


def test_tasks_of_mpi_sh_call_srun_and_see_no_variables_of_their_farmer_s_step(
    slurm: SlurmCluster, tmp_path: Path
) -> None:
    field = ClusterField(tmp_path)
    try:
        mpi(slurm, field)
    finally:
        field.close()


# --- campaign ----------------------------------------------------------------------------------


@pytest.mark.campaign
@pytest.mark.parametrize("time", range(10))
def test_all_of_them_run_again(time: int, slurm: SlurmCluster, tmp_path_factory: pytest.TempPathFactory) -> None:
    runs = [*EXAMPLE_RUNS.values(), mpi]
    fields = [ClusterField(tmp_path_factory.mktemp(f"again{time}")) for _ in runs]
    try:
        with ThreadPoolExecutor(len(runs)) as pool:
            futures = [pool.submit(run, slurm, field) for run, field in zip(runs, fields, strict=True)]
        for future in futures:
            future.result()
    finally:
        for field in fields:
            field.close()
