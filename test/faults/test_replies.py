"""False replies: a `link` that succeeds but reports an error, or fails but reports success; a delayed `rename`."""

from __future__ import annotations

import random
import shutil
import signal
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path

import pytest

from support.checker import check
from support.farming import eventually, mounts
from support.farms import MARK, TEST, Farm, Farmer
from support.lies import Liar, late_renames

TROUBLE = 74
AGAIN = 75
EPOCH_LENGTH = 8


def commits(farm: Farm) -> int:
    """How many commits the ledger has seen."""
    return int(farm.check(views=False).state["revision"])


def many_farmers(farm: Farm, liar: Liar, count: int, share: int, seed: int, places: tuple[Path, ...]) -> list[Farmer]:
    """Farmers that all get false replies, on several mounts of the folder in turn; they run until they exit."""
    farmers = []
    for number in range(count):
        place = places[number % len(places)]
        under = Liar(liar.shim, place, liar.told)
        farmers.append(
            farm.start(
                *("-n", 1, "--grace", 1, "--epoch-length", EPOCH_LENGTH),
                *("-w", place / farm.workdir.name),
                tasklist=place / farm.list.name,
                environment=under.variables("lost", share, seed * 1000 + number),
            )
        )
    for farmer in farmers:
        assert farmer.wait(240) == 0, farmer.said
        assert "Traceback" not in farmer.said, farmer.said
    return farmers


def test_a_farm_is_created_and_completed_although_every_reply_to_link_is_lost(farm: Farm, liar: Liar) -> None:
    farm.write(*["true"] * 5)
    farmer = farm.run("-n", 2, environment=liar.variables("lost", 100, seed=1))
    assert farmer.wait() == 0, farmer.said
    assert farm.check().finished == set(range(5))
    assert sum(liar.lies().values()) >= 5


def test_farmers_with_false_replies_to_their_commits_lose_no_task_and_record_none_twice(farm: Farm, liar: Liar) -> None:
    farm.write(*["sleep 0.05"] * 120)
    seed = random.randrange(10**6)
    print(f"seed {seed}")
    many_farmers(farm, liar, 5, 30, seed, (farm.folder,))
    report = farm.check()
    assert report.finished == set(range(120))
    assert {line.attempt for line in report.lines} == {1}
    assert sum(liar.lies().values()) >= 5


def test_of_500_commits_with_lost_replies_each_counts_once(farm: Farm, liar: Liar) -> None:
    """There is no lock, so that failures of `link` get false replies, too."""
    locks = farm.folder / "locks"
    locks.mkdir()
    farm.write(*["true"] * 500)
    farm.run("--timeout", "0.000001", "--epoch-length", EPOCH_LENGTH, "--lock-dir", locks)
    shutil.rmtree(locks)
    before = commits(farm)
    left = len(farm.check().unprocessed)
    seed = random.randrange(10**6)
    print(f"seed {seed}")
    told = commit_all(farm, liar, 4, 30, seed)
    lies = liar.lies()
    print(f"commits, lost, errors of each: {told}; {lies}; revision {commits(farm)}")
    report = farm.check(views=False)
    assert len(report.finished) == 500
    assert report.state["farmers"] == {}
    assert {line.attempt for line in report.lines} == {1}
    assert commits(farm) - before >= sum(one[0] for one in told) >= left
    assert sum(lies[error] for error in ("EIO", "EEXIST", "ESTALE")) > 0.2 * left
    # if farmers have not written the views of a farm, the next farmer does
    assert farm.run().wait() == 0
    assert farm.check().finished == set(range(500))


def commit_all(farm: Farm, liar: Liar, count: int, share: int, seed: int) -> list[tuple[int, ...]]:
    """`count` committers settle all tasks and get false replies; commits, lost commits, and errors of each."""
    words = [sys.executable, "-m", "support.committer", str(farm.workdir)]
    committers = []
    for number in range(count):
        variables = {"PYTHONPATH": f"{TEST.parent}:{TEST}", MARK: farm.mark}
        variables |= liar.variables("lost", share, seed + number)
        committers.append(
            subprocess.Popen(words, env=variables, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        )
    for committer in committers:
        assert committer.stdout and committer.stdin
        assert committer.stdout.readline() == "ready\n"
    for committer in committers:
        assert committer.stdin
        committer.stdin.write("go\n")
        committer.stdin.flush()
    told = [committer.communicate(timeout=150)[0] for committer in committers]
    assert [committer.returncode for committer in committers] == [0] * count
    return [tuple(map(int, line.split())) for line in told]


def test_a_link_that_falsely_reports_success_stops_the_farmer_when_another_one_commits(farm: Farm, liar: Liar) -> None:
    """There is no lock; otherwise the farmer with the false reply would hold it while it searches for its commit."""
    locks = farm.folder / "locks"
    locks.mkdir()
    farm.write(*[farm.marked("[ $TASKFARMER_ATTEMPT = 2 ] || sleep 1000")] * 2, *["sleep 0.2"] * 18)
    farm.run("--timeout", "0.000001", "--lock-dir", locks)
    shutil.rmtree(locks)
    lied_to = farm.start("-n", 3, "--grace", 0, environment=liar.variables("empty", after=1))
    farm.wait_for_tasks(0, 1)
    eventually(lambda: liar.lies()["empty"], "a commit that is none")
    honest = farm.start("-n", 2, "--wait")
    assert lied_to.wait() == TROUBLE, lied_to.said
    assert "this file system cannot be shared safely" in lied_to.said
    assert honest.wait() == 0, honest.said
    farm.no_survivors()
    report = farm.check()
    assert report.finished == set(range(20))
    assert {line.attempt for line in report.lines if line.task < 2 and line.outcome == "finished"} == {2}


def test_no_farm_is_created_on_a_file_system_that_does_not_create_links(farm: Farm, liar: Liar) -> None:
    farm.write("true")
    farmer = farm.run(environment=liar.variables("empty"))
    assert farmer.wait() == 2
    assert "`link` does not create a second name here" in farmer.said
    assert not farm.workdir.exists()


@pytest.mark.campaign
def test_a_lone_farmer_whose_links_are_not_created_names_the_revision_it_cannot_read(farm: Farm, liar: Liar) -> None:
    farm.write(*["sleep 0.2"] * 20)
    farm.run("--timeout", "0.000001")
    lied_to = farm.start("-n", 2, "--grace", 0, environment=liar.variables("empty", after=1))
    assert lied_to.wait(150) == TROUBLE, lied_to.said
    assert "reports that it exists, but it cannot be read" in lied_to.said
    farm.no_survivors()
    assert farm.run("--wait").wait() == 0
    assert farm.check().finished == set(range(20))


def test_a_farmer_that_cannot_leave_the_ledger_on_a_full_disk_reacts_to_signals(farm: Farm, liar: Liar) -> None:
    """All results are recorded, and only the last commit fails: it is retried for long unless a signal arrives.

    Another farmer is present, because a lone farmer records its results and leaves in one commit.
    """
    release = farm.folder / "release"
    farm.write(farm.marked(f"until [ -e {release} ]; do sleep 0.05; done"), "true")
    other = farm.start("-n", 1)
    farm.wait_for_tasks(0)
    farmer = farm.start("-n", 1, environment=liar.variables("refused", after=2))
    farmer.says("No space left on device")
    eventually(lambda: liar.lies()["refused"] > 1, "it is tried again")
    assert farm.check(views=False).finished == {1}
    farmer.signal(signal.SIGINT)
    farmer.says("SIGINT: stopping: terminating running tasks")
    assert not farmer.ended
    farmer.signal(signal.SIGINT)
    assert farmer.wait() == TROUBLE, farmer.said
    assert "not recorded" not in farmer.said
    release.touch()
    assert other.wait() == 0
    assert farm.run().wait() == 0
    report = farm.check()
    assert report.finished == {0, 1}
    assert report.state["farmers"] == {}


def late_run(farm: Farm, liar: Liar, most: float, seed: int, farmers: int, tasks: int) -> bool:
    """Farmers whose renames take effect late, partly out of order; whether the views were exact without a rebuild."""
    farm.write(*["sleep 0.05"] * tasks, *["exit 3"] * 5)
    fifo = farm.folder / "late"
    with late_renames(fifo, most, seed) as renames:
        variables = liar.variables() | {"LIES_LATE": str(fifo)}
        running = [farm.start("-n", 2, "--epoch-length", 4, environment=variables) for _ in range(farmers)]
        for farmer in running:
            assert farmer.wait(120) in (0, 1, AGAIN), farmer.said
            assert "Traceback" not in farmer.said, farmer.said
        # some exit while others start, so that journals are closed by a rename too
        for _ in range(3):
            assert farm.run("-n", 1, "--wait", environment=variables).wait() == 1
    print(f"seed {seed}: {renames.done} renames up to {most} s late; {renames.vanished} of what another one had done")
    assert renames.done >= 10
    exact = not check(farm.workdir, views=True).problems
    assert farm.run("-n", 1).wait() == 1
    report = farm.check()
    assert len(report.finished) == tasks
    assert len(report.failed) == 5
    return exact


def test_renames_that_take_effect_late_leave_views_that_are_exact_or_rebuilt(farm: Farm, liar: Liar) -> None:
    late_run(farm, liar, 0.8, random.randrange(10**6), farmers=3, tasks=60)


@pytest.mark.campaign
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("seed", range(1, 7))
@pytest.mark.parametrize("most", [0.2, 1.0, 4.0])
def test_a_campaign_of_late_renames(farm: Farm, liar: Liar, most: float, seed: int) -> None:
    """The farmers run long enough to append to the views, too."""
    exact = late_run(farm, liar, most, seed, farmers=4, tasks=1200)
    print(f"exact at once: {exact}")


@pytest.mark.campaign
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("seed", range(1, 6))
@pytest.mark.parametrize("kind", ["plain", "lying locks"])
def test_a_campaign_of_500_commits_with_false_replies(
    farm: Farm, liar: Liar, tmp_path_factory: pytest.TempPathFactory, kind: str, seed: int
) -> None:
    tasks = 2000 if kind == "plain" else 3000  # farmers whose commits get lost commit less often
    farm.write(*["sleep 0.3"] * tasks)
    with ExitStack() as stack:
        places: tuple[Path, ...] = (farm.folder,)
        if kind == "lying locks":
            points = tmp_path_factory.mktemp("mounts")
            places = stack.enter_context(mounts(farm.folder, points / "one", points / "two"))
        try:
            many_farmers(farm, liar, 20, 30, seed, places)
        finally:
            farm.close()
    report = farm.check()
    print(f"seed {seed}: revision {commits(farm)}, {liar.lies()}")
    assert report.finished == set(range(tasks))
    assert {line.attempt for line in report.lines} == {1}
    assert commits(farm) >= 500
