"""Each job script of examples/slurm is interrupted in the middle of a list, in each way that Slurm knows.

Scripts and interruptions are crossed; each pair has a separate list. Each pair runs once, and ten times in the
campaign.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pytest

from support.checker import check
from support.farming import eventually
from support.fields import ClusterField
from support.slow_jobs import AGAIN, SLURM, SlowJob
from support.slurm_cluster import SlurmCluster

PAIRS_AT_ONCE = 9
TIMES = ["once", *(pytest.param(number, marks=pytest.mark.campaign) for number in range(1, 11))]
RANKS = "srun --overlap --nodes=1 --nodelist=$(hostname -s) --ntasks=2 bash -c 'echo >>ranks; {}'"
RANKS_OF_A_TASK = 2


@dataclass(frozen=True)
class Script:
    """How a script is submitted, and how many of its tasks run at a time in all its farmers."""

    slots: int
    options: tuple[str, ...] = ()
    nodes: int = 1
    shell: bool = True
    """Whether its --signal goes to the shell (B:), and not to the steps."""
    requeues: bool = False
    """Whether it requeues itself."""
    script_arguments: tuple[str, ...] = ()
    more: bool = False
    """Whether it passes options to the farmer."""
    within: str = "{}"


SCRIPTS = {
    "array.sh": Script(8, ("--array=1-2", "--cpus-per-task=4"), more=True),
    "srun.sh": Script(12, ("--cpus-per-task=4",), nodes=3, shell=False, more=True),
    "flex.sh": Script(4, ("--cpus-per-task=4",), requeues=True),
    "lists.sh": Script(4, ("--array=0", "--cpus-per-task=4")),
    "mpi.sh": Script(6, nodes=3, shell=False, within=RANKS),
    "shared.sh": Script(4),
    "multithread.sh": Script(4),
    "gpu.sh": Script(4, shell=False),
    "container.sh": Script(4, ("--cpus-per-task=4",), script_arguments=("shifter",)),
}


class Interrupted(SlowJob):
    """A job of an example, with three times as many tasks as it runs at a time."""

    def __init__(self, slurm: SlurmCluster, folder: Path, name: str, *options: str) -> None:
        self.kind = SCRIPTS[name]
        field = ClusterField(folder)
        if name == "lists.sh":
            field.list, field.workdir = folder / "list000", folder / "list000_workdir"
        if name == "container.sh":
            for file in ("container.ini", "container.py"):
                shutil.copy(SLURM / file, folder)
            field.stand_in("shifter", 'while [ "$1" != /bin/bash ]; do shift; done; exec "$@"')
        words = ("--requeue", *self.kind.options, *options)
        super().__init__(slurm, field, name, *words, tasks=3 * self.kind.slots, within=self.kind.within)

    def submit(self, *script_arguments: str) -> None:
        super().submit(*self.kind.script_arguments, *script_arguments)

    def in_the_middle(self) -> None:
        self.submit()
        self.all_run()

    def all_run(self) -> None:
        """Wait until every slot has a task, and every task of mpi.sh its ranks: later srun starts no more steps."""
        self.wait_for_starts(self.kind.slots)
        if self.kind.within == RANKS:
            ranks = self.field.folder / "ranks"
            wanted = RANKS_OF_A_TASK * self.kind.slots
            eventually(lambda: ranks.exists() and len(ranks.read_text()) >= wanted, "all ranks run", 30)

    def ends_alone(self) -> None:
        """The list is completed without another command."""
        self.hurry()
        assert set(self.elements()) == {("COMPLETED", 0)}, self.field.said()


def cancelled(slow: Interrupted) -> None:
    slow.slurm.run_client("scancel", str(slow.job))
    assert {state for state, _ in slow.elements()} == {"CANCELLED"}, slow.field.said()


def requeued(slow: Interrupted) -> None:
    slow.slurm.run_client("scontrol", "requeue", str(slow.job))
    slow.has_restarted(1)
    slow.ends_alone()


def signalled(slow: Interrupted) -> None:
    """Send the signal with or without B:, as the script requests it."""
    where = ["--batch"] if slow.kind.shell else []
    slow.slurm.run_client("scancel", *where, "--signal=USR1", str(slow.job))
    if slow.kind.requeues:
        slow.has_restarted(1)
        slow.ends_alone()
    else:
        assert set(slow.elements()) == {("FAILED", AGAIN)}, slow.field.said()


def out_of_time(slow: Interrupted) -> None:
    """The time limit is lowered without a warning, when all farmers know an earlier end time."""
    farmers = slow.field.workdir / "farmers"
    know = lambda: slow.field.said().count("the allocation ends") >= len(list(farmers.glob("*.json")))  # noqa: E731
    eventually(know, "the farmers know when their job ends", 60)
    for element in slow.slurm.elements(slow.job):
        slow.slurm.run_client("scontrol", "update", f"JobId={element['JobId']}", "EndTime=now+1seconds")
    assert {state for state, _ in slow.elements()} == {"TIMEOUT"}, slow.field.said()


INTERRUPTIONS: tuple[Callable[[Interrupted], None], ...] = (cancelled, requeued, signalled, out_of_time)


def interrupt(slurm: SlurmCluster, folder: Path, name: str, what: Callable[[Interrupted], None]) -> None:
    slow = Interrupted(slurm, folder, name, *(["--signal=B:CONT@1"] if what is out_of_time else []))
    try:
        slow.in_the_middle()
        what(slow)
        slow.field.nothing_runs()
        assert check(slow.field.workdir).problems == []
        slow.resubmit()
        slow.field.judge(once=False)
    except BaseException:
        print(f"{name}, {what.__name__}: {folder}")
        raise
    finally:
        slow.field.close()


def node_dies(slurm: SlurmCluster, folder: Callable[[], Path]) -> None:
    """The node runs farmers of each script, or its whole job."""
    jobs = []
    try:
        for name, kind in SCRIPTS.items():
            jobs.append(Interrupted(slurm, folder(), name, *(["--nodelist=n3"] if kind.nodes == 1 else [])))
        for slow in jobs:
            slow.field.make_farm()
            slow.submit()
        for slow in jobs:
            slow.all_run()
        slurm.kill_node("n3")
        slurm.wait_for_node("n3", "down")
        slurm.start_node("n3")
        slurm.wait_for_node("n3", "idle")
        for slow in jobs:
            slow.hurry()
        for slow in jobs:
            slow.elements()
            slow.resubmit(*(["--wait"] if slow.kind.more else []))
            slow.field.judge(once=False)
            died = [task for task, times in slow.field.runs().items() if times > 1]
            assert died, f"the node had tasks of {slow.script}"
    finally:
        for slow in jobs:
            slow.field.close()


@pytest.mark.timeout(900)
@pytest.mark.parametrize("time", TIMES)
def test_every_example_completes_its_list_after_each_interruption(
    time: object, slurm: SlurmCluster, tmp_path_factory: pytest.TempPathFactory
) -> None:
    with ThreadPoolExecutor(PAIRS_AT_ONCE) as pool:
        futures = [
            pool.submit(interrupt, slurm, tmp_path_factory.mktemp("pair"), name, what)
            for what in INTERRUPTIONS
            for name in SCRIPTS
        ]
    for future in futures:
        future.result()


@pytest.mark.timeout(600)
@pytest.mark.parametrize("time", TIMES)
def test_every_example_completes_its_list_after_the_death_of_a_node(
    time: object, slurm: SlurmCluster, tmp_path_factory: pytest.TempPathFactory
) -> None:
    node_dies(slurm, lambda: tmp_path_factory.mktemp("dead"))
