"""Several farmers on one list: farmers that come later, die, or are declared dead."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import signal
import socket
import time
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from support.checker import check
from support.farming import Farmer, Field, eventually, is_running, need, tree
from taskfarmer.ledger import farmfile
from taskfarmer.ledger.ledger import Ledger
from taskfarmer.storage.layout import Workdir

LONG = "sleep 300"


def recorded(field: Field) -> int:
    """The number of recorded tasks; 0 as long as there is no farm."""
    if not (field.workdir / "farm.json").exists():
        return 0
    report = check(field.workdir)
    assert report.problems == []
    return len(report.finished) + len(report.failed)


def holds(field: Field, count: int) -> bool:
    """Whether `count` tasks are claimed, and as many run."""
    if not (field.workdir / "farm.json").exists():
        return False
    return len(check(field.workdir).held) == count and len(field.runs()) >= count


def seal(path: Path, **changes: Any) -> None:
    """Change members of a sealed document, and update its checksum."""
    document = json.loads(path.read_text())
    del document["crc"]
    body = json.dumps({**document, **changes}, separators=(",", ":")).encode()
    path.write_bytes(b'%s,"crc":"%08x"}\n' % (body[:-1], zlib.crc32(body)))


def all_done(field: Field, tasks: int, views: bool = True) -> dict[int, int]:
    """Assert that the farm is intact and every task is recorded; how often each ran."""
    report = check(field.workdir, views=views)
    assert report.problems == []
    assert len(report.finished) == tasks
    runs = field.runs()
    assert set(runs) == set(range(tasks))
    return runs


def assert_output(farmer: Farmer, status: int, *words: str) -> None:
    """Assert that the farmer exited with `status`, and its output contains all `words` and no traceback."""
    assert farmer.wait() == status, farmer.said
    assert "Traceback" not in farmer.said, farmer.said
    for word in words:
        assert word in farmer.said, farmer.said


def test_a_farmer_that_comes_later_shares_the_list(field: Field) -> None:
    field.appending(40, then="sleep 0.2")
    first = field.start("--proc", 2)
    eventually(lambda: recorded(field) >= 2, "the first results")
    second = field.start("--proc", 2)
    assert (first.wait(), second.wait()) == (0, 0)
    assert all_done(field, 40) == dict.fromkeys(range(40), 1)
    journals = {line.journal for line in check(field.workdir).lines}
    assert len(journals) == 2


def test_a_farmer_whose_peer_runs_a_long_task_does_not_wait_for_it(field: Field) -> None:
    field.appending(1, then=LONG)
    first = field.start("--proc", 1)
    eventually(lambda: holds(field, 1), "the long task")
    before = time.monotonic()
    assert field.run("--proc", 4, seconds=20).process.returncode == 0
    assert time.monotonic() - before < 10
    assert not first.ended
    first.signal(signal.SIGUSR1)
    assert first.wait() == 75
    assert check(field.workdir, views=True).unprocessed == {0}


def test_tasks_that_are_killed_with_their_farmer_are_retried_at_the_next_attempt(field: Field) -> None:
    field.appending(6, then="test $TASKFARMER_ATTEMPT -gt 1 || sleep 300")
    farmer = field.start("--proc", 3)
    eventually(lambda: len(field.runs()) == 3, "three running tasks")
    farmer.kill_tree()
    assert farmer.wait() == -signal.SIGKILL
    started = field.start("--proc", 3)
    # tasks that had not started run at attempt 1 and sleep; interrupt them, and the rest finishes at attempt 2
    eventually(lambda: len(field.runs()) == 6, "all tasks running")
    started.signal(signal.SIGUSR1)
    assert started.wait() == 75
    assert field.run("--proc", 3).process.returncode == 0
    all_done(field, 6)
    report = check(field.workdir)
    assert {line.attempt for line in report.lines if line.outcome == "finished"} == {2}
    assert {line.task for line in report.lines if line.outcome == "finished"} == set(range(6))


def test_tasks_are_terminated_when_only_their_farmer_is_killed(field: Field) -> None:
    field.appending(2, then=LONG)
    farmer = field.start("--proc", 2, "--grace", 1)
    eventually(lambda: holds(field, 2), "two running tasks")
    below = [pid for pid in tree(farmer.pid) if pid != farmer.pid]
    assert len(below) >= 4
    farmer.signal(signal.SIGKILL)
    farmer.wait()
    eventually(lambda: not [pid for pid in below if is_running(pid)], "the end of workers and tasks", 15)


def test_tasks_that_ignore_sigterm_are_killed_when_only_their_farmer_is_killed(field: Field) -> None:
    field.write([f"trap '' TERM; echo >> {field.ran}/0; (setsid sleep 301 &) ; sleep 300; sleep 300"])
    farmer = field.start("--proc", 1, "--grace", 1)
    eventually(lambda: holds(field, 1), "the running task")
    eventually(lambda: len(tree(farmer.pid)) >= 5, "its children")
    below = [pid for pid in tree(farmer.pid) if pid != farmer.pid]
    farmer.signal(signal.SIGKILL)
    farmer.wait()
    eventually(lambda: not [pid for pid in below if is_running(pid)], "the end of workers and tasks", 15)


def test_a_farmer_that_waits_claims_the_tasks_of_a_killed_peer(field: Field) -> None:
    field.appending(2, then="test $TASKFARMER_ATTEMPT -gt 1 || sleep 300")
    first = field.start("--proc", 2)
    eventually(lambda: holds(field, 2), "the peer's tasks")
    second = field.start("--proc", 2, "--wait")
    # the second farmer has no task to claim, and stays
    with pytest.raises(AssertionError):
        eventually(lambda: second.ended, "an end that must not come", 2)
    first.kill_tree()
    assert second.wait() == 0
    all_done(field, 2)


@pytest.mark.parametrize("anew", [False, True])
def test_farmers_of_a_deleted_farm_stop_their_tasks_and_write_nothing(field: Field, anew: bool) -> None:
    field.appending(4, then=LONG)
    options = ("--proc", 2, "--lease", 4, "--grace", 1)
    farmer = field.start(*options)
    eventually(lambda: holds(field, 2), "two running tasks")
    below = [pid for pid in tree(farmer.pid) if pid != farmer.pid]
    farmer.signal(signal.SIGSTOP)
    shutil.rmtree(field.workdir)
    before: set[Path] = set()
    if anew:
        other = field.start("--proc", 2, "--grace", 1)
        eventually(lambda: holds(field, 2), "the new farm")
        other.signal(signal.SIGUSR1)
        assert other.wait() == 75
        before = set(field.workdir.rglob("*"))
        content = {path: path.read_bytes() for path in before if path.is_file()}
    farmer.signal(signal.SIGCONT)
    assert_output(farmer, 74, "deleted or re-created")
    eventually(lambda: not [pid for pid in below if is_running(pid)], "the end of workers and tasks", 15)
    assert set(field.workdir.rglob("*")) == before
    if anew:
        assert {path: path.read_bytes() for path in before if path.is_file()} == content
        assert check(field.workdir, views=True).problems == []


@pytest.fixture
def node() -> str:
    need(os.getuid() == 0 and shutil.which("unshare"), "another node needs root and unshare")
    return f"{socket.gethostname().split('.')[0]}-other"


def test_a_farmer_that_was_stopped_past_its_lease_records_nothing_and_reports_it(field: Field, node: str) -> None:
    field.appending(4, then="test $TASKFARMER_ATTEMPT -gt 1 || sleep 5")
    ghost = field.start("--proc", 4, "--lease", 2, "--grace", 1, node=node)
    eventually(lambda: holds(field, 4), "the ghost's tasks")
    ghost.signal(signal.SIGSTOP)
    assert field.run("--proc", 4, "--wait").process.returncode == 0
    report = check(field.workdir, views=True)
    assert (len(report.finished), report.problems) == (4, [])
    ghost.signal(signal.SIGCONT)
    assert_output(ghost, 74, "expelled as dead")
    all_done(field, 4)
    after = check(field.workdir)
    assert after.lines == report.lines
    assert {line.attempt for line in after.lines} == {2}


def test_a_living_farmer_on_another_node_is_not_expelled(field: Field, node: str) -> None:
    field.appending(2, then="sleep 6")
    other = field.start("--proc", 2, "--lease", 2, node=node)
    eventually(lambda: holds(field, 2), "the other's tasks")
    assert field.run("--proc", 2, "--wait").process.returncode == 0
    assert other.wait() == 0
    assert all_done(field, 2) == {0: 1, 1: 1}


@contextmanager
def held(path: Path) -> Iterator[None]:
    with open(path, "a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def test_a_lone_farmer_waits_for_the_tasks_of_a_dead_node(field: Field, node: str) -> None:
    """If a dead farmer of another node holds all remaining tasks, running the list once more is enough."""
    field.appending(3, f"[ -e {field.folder}/go ] || {LONG}")
    lost = field.start("-n", 3, "--lease", 8, node=node)
    eventually(lambda: holds(field, 3) and min(field.runs().values()), "the tasks have written that they run")
    lost.kill_tree()
    (field.folder / "go").touch()
    # long enough for the file to show silence, and far from the lease
    alive = next((field.workdir / "farmers").glob("*.alive"))
    eventually(lambda: time.time() - alive.stat().st_mtime > 3, "it is silent for some beats")
    last = field.run("-n", 3)
    assert last.process.returncode == 0, last.said
    assert "no heartbeat" in last.said
    assert all_done(field, 3) == {0: 2, 1: 2, 2: 2}


def test_a_farmer_does_not_wait_for_tasks_of_live_peers_on_another_node(field: Field, node: str) -> None:
    field.appending(1, f"while [ ! -e {field.folder}/go ]; do sleep 0.1; done")
    peer = field.start("-n", 1, "--lease", 8, node=node)
    eventually(lambda: holds(field, 1), "the task runs")
    second = field.run("-n", 1)
    assert second.process.returncode == 0, second.said
    assert not peer.ended
    (field.folder / "go").touch()
    assert peer.wait() == 0, peer.said


@pytest.mark.timeout(120)
def test_a_lock_that_another_process_holds_for_ever_only_slows_farmers_down(field: Field) -> None:
    field.appending(1)
    assert field.run().process.returncode == 0
    with open(field.list, "a") as file:
        file.write(f"echo 1 >> {field.ran}/$PROC_NUMBER\n" * 5)
    lock = json.loads((field.workdir / "farm.json").read_text())["lock"] or field.workdir / "lock"
    with held(Path(lock)):
        assert field.run("--proc", 2, seconds=100).process.returncode == 0
        assert all_done(field, 6, views=False) == dict.fromkeys(range(6), 1)


def test_a_torn_result_at_the_end_of_a_dead_farmers_journal_does_not_count(field: Field) -> None:
    field.appending(3, then="test $TASKFARMER_ATTEMPT -gt 1 || sleep 300")
    farmer = field.start("--proc", 3)
    eventually(lambda: holds(field, 3), "three running tasks")
    farmer.kill_tree()
    farmer.wait()
    name = next(iter(check(field.workdir).state["farmers"]))
    with open(field.workdir / "results" / name, "ab") as file:
        whole = b"0 1 0 1.000000 2.000000 finished 0 0 0.000000 0.000000 1 files"
        file.write(b"%s %08x\n" % (whole, zlib.crc32(whole)))
        torn = whole.replace(b"0 1 0", b"1 1 0")
        file.write(b"%s %08x\n" % (torn, zlib.crc32(torn) ^ 1))
        file.write(b"2 1 0 1.000000")
    assert field.run("--proc", 3).process.returncode == 0
    all_done(field, 3)
    attempts = {line.task: line.attempt for line in check(field.workdir).lines if line.outcome == "finished"}
    assert attempts == {0: 1, 1: 2, 2: 2}


def _delete(path: Path) -> None:
    path.unlink()


def _shorten(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def _lengthen(path: Path) -> None:
    with open(path, "ab") as file:
        file.write(b"77 echo written by hand\n")


def _directory(path: Path) -> None:
    path.unlink()
    path.mkdir()


@pytest.mark.parametrize("harm", [_delete, _shorten, _lengthen, _directory])
@pytest.mark.parametrize("view", ["toprocess", "finished", "failed", "timeline.json", "views.json"])
def test_a_damaged_view_is_rebuilt(field: Field, view: str, harm: Any) -> None:
    field.write(["true", "false", "true"] * 4)
    assert field.run("--proc", 2).process.returncode == 1
    assert check(field.workdir, views=True).problems == []
    (field.workdir / view).write_bytes((field.workdir / view).read_bytes() or b"x\n")
    harm(field.workdir / view)
    assert field.run("--proc", 2).process.returncode == 1
    report = check(field.workdir, views=True)
    assert report.problems == []
    assert (len(report.finished), len(report.failed)) == (8, 4)


def test_views_are_exact_although_a_retry_was_killed_before_it_rebuilt_them(field: Field) -> None:
    field.write(["true", f"test -e {field.folder}/ready"])
    assert field.run("--proc", 1).process.returncode == 1
    workdir = Workdir.at(str(field.workdir))
    assert Ledger(workdir, farmfile.require(workdir), "a verb").retry() == 1
    (field.folder / "ready").touch()
    assert field.run("--proc", 1).process.returncode == 0
    report = check(field.workdir, views=True, retried=True)
    assert (report.problems, report.finished) == ([], {0, 1})


def test_views_are_exact_if_farmers_exit_together_in_any_way(field: Field) -> None:
    """If farmers exit within moments of each other, the views must not show a result twice, nor omit one."""
    for round_ in range(3):
        with open(field.list, "a") as file:
            file.writelines(f"echo {round_} >> {field.ran}/$PROC_NUMBER\n" for _ in range(30))
        farmers = [field.start("--proc", 1) for _ in range(6)]
        assert [farmer.wait() for farmer in farmers] == [0] * 6, [farmer.said for farmer in farmers]
        assert check(field.workdir, views=True).problems == []
    assert all_done(field, 90) == dict.fromkeys(range(90), 1)


def test_old_epochs_are_removed(field: Field) -> None:
    field.appending(300)
    assert field.run("--proc", 1, "--epoch-length", 8).process.returncode == 0
    most = 0
    for _ in range(12):
        with open(field.list, "a") as file:
            file.write(f"echo again >> {field.ran}/$PROC_NUMBER\n")
        farmers = [field.start("--proc", 1) for _ in range(3)]
        assert [farmer.wait() for farmer in farmers] == [0, 0, 0]
        most = max(most, len([path for path in (field.workdir / "ledger").rglob("*") if path.is_file()]))
    report = check(field.workdir, views=True)
    assert report.problems == []
    assert len(report.finished) == 312
    assert report.state["revision"] > 24
    assert most <= 3 * 8 + 2
    assert len(list((field.workdir / "ledger").glob("*-*"))) <= 3
    # the state drops farmers of long ago; the names of their journals record how many bytes count
    assert len(report.state["departed"]) < report.state["revision"]
    assert report.state["closed_bytes"] > 0


def ready_farm(field: Field) -> None:
    field.write(["true"] * 5)
    assert field.run("--proc", 1).process.returncode == 0
    with open(field.list, "a") as file:
        file.write("true\n")


def test_a_farm_of_a_newer_format_is_refused_with_an_explanation(field: Field) -> None:
    ready_farm(field)
    seal(field.workdir / "farm.json", format=2)
    assert_output(field.run(), 2, "farm.json", "format 2")


def test_a_revision_of_a_newer_format_is_refused_with_an_explanation(field: Field) -> None:
    ready_farm(field)
    path = Path(check(field.workdir).revision_file)
    seal(path, format=2)
    assert_output(field.run(), 2, str(path), "format 2")


@pytest.mark.parametrize("name", ["farm.json", "revision"])
@pytest.mark.parametrize("harm", ["shortened", "emptied", "a bit flipped"])
def test_a_damaged_file_is_named(field: Field, name: str, harm: str) -> None:
    ready_farm(field)
    path = Path(check(field.workdir).revision_file) if name == "revision" else field.workdir / name
    data = bytearray(path.read_bytes())
    if harm == "a bit flipped":
        data[len(data) // 2] ^= 4
    else:
        del data[len(data) // 2 if harm == "shortened" else 0 :]
    path.write_bytes(data)
    farmer = field.run()
    assert farmer.process.returncode in (2, 74)
    assert_output(farmer, farmer.process.returncode, str(path))


def test_a_damaged_segment_is_named_and_its_tasks_are_not_run(field: Field) -> None:
    field.appending(200)
    assert field.run("--proc", 1, "--grace", 1).process.returncode == 0
    with open(field.list, "a") as file:
        file.write("true\n")
    segment = field.workdir / "tasks" / check(field.workdir).state["segments"][0]["file"]
    harmed = segment.read_bytes().replace(b"echo", b"ecno", 1)
    segment.write_bytes(harmed)
    # none of its tasks is to be run any more, so only a reader of the views fails
    assert field.run("--proc", 1).process.returncode in (0, 74)
    assert len(check(field.workdir).state["segments"]) == 2


def test_a_farmer_that_only_has_to_update_views_does_not_spin(field: Field) -> None:
    """When a view update is due while one long task runs, the farmer must sleep nevertheless."""
    first, others = f"echo >> {field.ran}/0; sleep 0.1", f"echo >> {field.ran}/$PROC_NUMBER; sleep 9"
    field.write([first, others, others])
    farmer = field.start("--proc", 2)
    eventually(lambda: recorded(field) == 1, "the first result")
    shown = field.workdir / "finished"
    eventually(shown.read_bytes, "the first result in its view", 7, every=0.1)
    ticks = sum(map(int, Path(f"/proc/{farmer.pid}/stat").read_text().rpartition(")")[2].split()[11:13]))
    assert ticks / os.sysconf("SC_CLK_TCK") < 1.5
    assert not farmer.ended
    farmer.kill_tree()
