"""A farmer's side of the ledger, on a real directory, with the errors that a disk or NFS can return."""

from __future__ import annotations

import errno
import os
import threading
from pathlib import Path

import pytest

from taskfarmer.errors import Contended, Expelled, NotAFarm, StorageError
from taskfarmer.farm.create import make, make_folders
from taskfarmer.formats.intervals import Interval
from taskfarmer.formats.results import FAILED, FINISHED, result_line
from taskfarmer.ledger import farmfile, results
from taskfarmer.ledger.farmfile import Farm
from taskfarmer.ledger.ledger import FarmerReport, Ledger
from taskfarmer.ledger.segments import SegmentWriter
from taskfarmer.ledger.state import Segment, problems
from taskfarmer.storage import durable
from taskfarmer.storage.layout import Workdir

ME = "node-1-0a0b0c0d"
OTHER = "node-2-0a0b0c0e"


@pytest.fixture
def farm(tmp_path: Path) -> tuple[Workdir, Farm]:
    workdir = Workdir.at(str(tmp_path / "farm"))
    make_folders(workdir)
    writer = SegmentWriter(workdir, 0)
    writer.add(b"true %d" % number for number in range(100))
    name = writer.close()
    made = Farm("f" * 16, "list", "default", {}, None, 600.0, 8, 0.0)
    assert make(workdir, made, Segment(name, 0, 100))
    return workdir, made


def ended(interval: Interval, outcome: bytes = FINISHED) -> FarmerReport:
    """The report of a farmer when all tasks of `interval` have ended in the same way."""
    lines = [result_line(interval.start + n, interval.attempt, 0, 1.0, 2.0, outcome) for n in range(interval.count)]
    good = interval.count if outcome == FINISHED else 0
    return FarmerReport(
        lines, [interval], finished=good, failed=interval.count - good, seconds=1.0, ended=interval.count
    )


def survey(workdir: Workdir, ledger: Ledger) -> tuple[int, int]:
    state = ledger.refresh()
    assert problems(state) == []
    found = results.survey(workdir, state, patience=0)
    return found.finished, found.failed


def test_a_directory_that_another_node_creates_is_awaited_until_it_is_visible(tmp_path: Path) -> None:
    """If a name exists without its file, as on GlusterFS or as a link without a target, the file may still appear."""
    workdir = Workdir.at(str(tmp_path / "farm"))
    os.mkdir(workdir.path)
    os.symlink(tmp_path / "late", workdir.tasks)
    timer = threading.Timer(0.3, os.mkdir, [tmp_path / "late"])
    timer.start()
    try:
        make_folders(workdir)
    finally:
        timer.join()
    assert os.path.isdir(workdir.ledger)


def test_a_farm_whose_views_are_visible_before_farm_json_is_not_a_foreign_directory(tmp_path: Path) -> None:
    workdir = Workdir.at(str(tmp_path))
    (tmp_path / "failed").write_text("")
    timer = threading.Timer(0.3, Path(workdir.farm).write_text, ["contents that are not read here"])
    timer.start()
    try:
        farmfile.refuse_foreign(workdir)
    finally:
        timer.join()
    os.unlink(workdir.farm)
    with pytest.raises(NotAFarm, match="failed: this directory has no farm"):
        farmfile.refuse_foreign(workdir)


def test_a_file_in_the_place_of_a_directory_is_refused(tmp_path: Path) -> None:
    workdir = Workdir.at(str(tmp_path / "farm"))
    os.mkdir(workdir.path)
    Path(workdir.tasks).write_text("not a directory\n")
    with pytest.raises(StorageError, match="tasks: File exists; cannot create the work directory here"):
        make_folders(workdir)


def fail_once(monkeypatch: pytest.MonkeyPatch, owner: object, name: str, error: OSError, after: bool = False) -> None:
    """Make one call of a function fail, before or after it has done its work."""
    real = getattr(owner, name)
    left = [1]

    def failing(*args: object) -> object:
        if not left[0]:
            return real(*args)
        left[0] = 0
        if after:
            real(*args)
        raise error

    monkeypatch.setattr(owner, name, failing)


def test_reported_tasks_count_and_the_others_stay_held(farm: tuple[Workdir, Farm]) -> None:
    workdir, made = farm
    ledger = Ledger(workdir, made, ME, 2)
    gained, _ = ledger.exchange(10)
    assert gained == [Interval(0, 0, 10)]
    ledger.add_report(ended(Interval(0, 0, 4)))
    ledger.add_report(ended(Interval(0, 4, 1), FAILED))
    gained, told = ledger.exchange(3)
    assert gained == [Interval(0, 10, 3)]
    assert (told.finished, told.failed) == (4, 1)
    assert ledger.held == [Interval(0, 5, 8)]
    assert survey(workdir, ledger) == (4, 1)


def test_results_whose_journal_fails_are_settled_once_from_a_new_one(
    farm: tuple[Workdir, Farm], monkeypatch: pytest.MonkeyPatch
) -> None:
    workdir, made = farm
    ledger = Ledger(workdir, made, ME, 2)
    ledger.exchange(10)
    ledger.add_report(ended(Interval(0, 0, 2)))
    ledger.exchange()
    for number in range(2, 5):
        ledger.add_report(ended(Interval(0, number, 1)))
        fail_once(monkeypatch, durable.os, "fsync", OSError(errno.ENOSPC, "No space left on device"))
        with pytest.raises(StorageError, match="No space left"):
            ledger.exchange()
        assert ledger.unsettled == 1
        ledger.exchange()
        assert ledger.all_settled
        monkeypatch.undo()
    assert survey(workdir, ledger) == (5, 0)
    assert sorted(os.listdir(workdir.results)) == [ME, *(f"{ME}-r{n}" for n in (1, 2, 3))]
    assert ledger.held == [Interval(0, 5, 5)]


def test_a_journal_whose_first_write_failed_stays_for_farmers_that_counted_its_lines(
    farm: tuple[Workdir, Farm], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its lines are in the file although fsync failed. When the farmer retries later, it has been declared dead."""
    workdir, made = farm
    ledger, other = Ledger(workdir, made, ME, 2), Ledger(workdir, made, "other-1-00000000", 2)
    ledger.exchange(10)
    ledger.add_report(ended(Interval(0, 0, 2)))
    ledger.open_journal()
    fail_once(monkeypatch, durable.os, "fsync", OSError(errno.EIO, "Input/output error"))
    with pytest.raises(StorageError):
        ledger.exchange()
    monkeypatch.undo()
    other.exchange(1)
    assert other.expel([ME]) == [ME]
    assert other.refresh().finished == 2
    with pytest.raises(Expelled):
        ledger.exchange()
    assert survey(workdir, other) == (2, 0)


def test_no_result_is_lost_if_no_journal_can_be_opened_for_a_while(
    farm: tuple[Workdir, Farm], monkeypatch: pytest.MonkeyPatch
) -> None:
    workdir, made = farm
    ledger = Ledger(workdir, made, ME, 2)
    ledger.exchange(10)
    ledger.add_report(ended(Interval(0, 0, 2)))
    full = OSError(errno.ENOSPC, "No space left on device")
    fail_once(monkeypatch, durable, "write_all", full)
    with pytest.raises(StorageError):
        ledger.exchange()
    real = durable.Journal.__init__
    for _ in range(3):
        monkeypatch.setattr(durable.Journal, "__init__", lambda *_: (_ for _ in ()).throw(full))
        ledger.add_report(ended(Interval(0, ledger.unsettled, 1)))
        with pytest.raises(StorageError):
            ledger.exchange()
    monkeypatch.setattr(durable.Journal, "__init__", real)
    ledger.exchange()
    assert survey(workdir, ledger) == (5, 0)
    assert ledger.held == [Interval(0, 5, 5)]


def test_a_commit_that_cannot_be_prepared_is_made_later_with_the_new_results(
    farm: tuple[Workdir, Farm], monkeypatch: pytest.MonkeyPatch
) -> None:
    workdir, made = farm
    ledger = Ledger(workdir, made, ME, 2)
    ledger.exchange(10)
    ledger.add_report(ended(Interval(0, 0, 3)))
    fail_once(monkeypatch, durable, "prepare", OSError(errno.EDQUOT, "Disk quota exceeded"))
    with pytest.raises(StorageError, match="quota"):
        ledger.exchange()
    ledger.add_report(ended(Interval(0, 3, 2)))
    ledger.exchange()
    assert survey(workdir, ledger) == (5, 0)


@pytest.mark.parametrize("number", [errno.EIO, errno.EEXIST, errno.ESTALE, errno.ENOENT])
def test_a_link_whose_reply_is_lost_has_happened(
    farm: tuple[Workdir, Farm], monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    workdir, made = farm
    ledger = Ledger(workdir, made, ME, 2)
    for start in range(0, 20, 2):  # including a change of epoch
        fail_once(monkeypatch, durable.os, "link", OSError(number, os.strerror(number)), after=True)
        gained, _ = ledger.exchange(2)
        monkeypatch.undo()
        assert gained == [Interval(0, start, 2)]
        ledger.add_report(ended(gained[0]))
    ledger.exchange()
    assert survey(workdir, ledger) == (20, 0)


def test_a_commit_whose_directory_cannot_be_synced_is_found_by_the_next_exchange(
    farm: tuple[Workdir, Farm], monkeypatch: pytest.MonkeyPatch
) -> None:
    workdir, made = farm
    ledger = Ledger(workdir, made, ME, 2)
    ledger.exchange(10)
    ledger.add_report(ended(Interval(0, 0, 3)))
    ledger.exchange()  # this syncs the directory of the journal
    ledger.add_report(ended(Interval(0, 3, 3)))
    fail_once(monkeypatch, durable, "sync_directory", OSError(errno.EIO, "Input/output error"))
    with pytest.raises(StorageError, match="may be lost"):
        ledger.exchange(5)
    other = Ledger(workdir, made, OTHER, 2)
    other.exchange(1)
    ledger.add_report(ended(Interval(0, 6, 1)))
    gained, told = ledger.exchange(0)
    assert gained == [Interval(0, 10, 5)]
    assert told.finished == 3
    ledger.exchange(0)
    assert survey(workdir, ledger) == (7, 0)


def test_an_expelled_farmer_gets_an_error_and_its_late_results_do_not_count(farm: tuple[Workdir, Farm]) -> None:
    workdir, made = farm
    ghost = Ledger(workdir, made, ME, 2)
    ghost.exchange(4)
    ghost.add_report(ended(Interval(0, 0, 1)))
    ghost.exchange()
    other = Ledger(workdir, made, OTHER, 2)
    assert other.expel([ME]) == [ME]
    ghost.add_report(ended(Interval(0, 1, 1)))
    with pytest.raises(Expelled, match="--lease"):
        ghost.exchange()
    gained, _ = other.exchange(3)
    assert gained == [Interval(0, 1, 3, attempt=2)]
    assert survey(workdir, other) == (1, 0)


def test_the_unbroken_run_of_results_in_an_expelled_farmers_journal_counts(farm: tuple[Workdir, Farm]) -> None:
    workdir, made = farm
    dead = Ledger(workdir, made, ME, 2)
    dead.exchange(6)
    dead.add_report(ended(Interval(0, 0, 2)))
    dead.exchange()
    with open(workdir.journal(ME), "ab") as journal:
        journal.write(ended(Interval(0, 2, 1)).lines[0] + ended(Interval(0, 3, 1), FAILED).lines[0])
        journal.write(ended(Interval(0, 4, 1)).lines[0][:-7])
    other = Ledger(workdir, made, OTHER, 2)
    other.expel([ME])
    assert survey(workdir, other) == (3, 1)
    assert other.exchange(2)[0] == [Interval(0, 4, 2, attempt=2)]


def test_failed_tasks_are_retried_once_each_and_counted_by_their_new_results(farm: tuple[Workdir, Farm]) -> None:
    workdir, made = farm
    ledger = Ledger(workdir, made, ME, 2)
    ledger.exchange(10)
    ledger.add_report(ended(Interval(0, 0, 5), FAILED))
    ledger.add_report(ended(Interval(0, 5, 5)))
    ledger.exchange()
    verb = Ledger(workdir, made, "retry")
    assert verb.retry() == 5
    assert verb.retry() == 0
    assert survey(workdir, ledger) == (5, 0)
    again, _ = ledger.exchange(5)
    assert again == [Interval(0, 0, 5, attempt=2)]
    ledger.add_report(ended(again[0]))
    ledger.exchange()
    assert survey(workdir, ledger) == (10, 0)
    with pytest.raises(ValueError, match="50"):
        verb.retry([3, 50])


def test_old_epochs_are_removed_and_the_lengths_of_journals_are_kept(farm: tuple[Workdir, Farm]) -> None:
    workdir, made = farm
    for number in range(25):
        ledger = Ledger(workdir, made, f"node-{number}-{number:08x}", 1)
        gained, _ = ledger.exchange(2)
        ledger.add_report(ended(gained[0]))
        ledger.exchange(leave=True)
        ledger.close()
    state = ledger.refresh()
    assert state.finished == 50
    assert len([name for name in os.listdir(workdir.ledger) if name != "HEAD"]) <= 3
    assert len(state.departed) < 25
    assert survey(workdir, ledger) == (50, 0)
    os.unlink(workdir.head)
    assert Ledger(workdir, made, OTHER).refresh() == state


def test_a_farmer_that_cannot_win_a_commit_in_time_reports_it_and_has_written_its_results(
    farm: tuple[Workdir, Farm], monkeypatch: pytest.MonkeyPatch
) -> None:
    workdir, made = farm
    ledger = Ledger(workdir, made, ME, 2)
    ledger.exchange(5)
    ledger.add_report(ended(Interval(0, 0, 5)))
    monkeypatch.setattr(ledger.commits, "_try", lambda *_: None)
    with pytest.raises(Contended):
        ledger.exchange(leave=True, patience=0.0)
    other = Ledger(workdir, made, OTHER)
    other.expel([ME])
    assert survey(workdir, other) == (5, 0)


def test_a_farmer_killed_while_it_creates_a_farm_leaves_no_revision_that_looks_like_ours(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    workdir = Workdir.at(str(tmp_path / "farm"))
    make_folders(workdir)

    class Killed(BaseException):
        pass

    def torn(path: str, data: bytes, shared: bool = False) -> None:
        with open(path, "wb"):
            raise Killed

    segment = Segment("0" * 12, 0, 1)
    with monkeypatch.context() as patch:
        patch.setattr(durable, "prepare", torn)
        with pytest.raises(Killed):
            make(workdir, Farm("e" * 16, "list", "default", {}, None, 600.0, 8, 0.0), segment)
    assert not list(Path(workdir.ledger).glob("*/[0-9]*"))
    made = Farm("f" * 16, "list", "default", {}, None, 600.0, 8, 0.0)
    assert make(workdir, made, segment)
    assert Ledger(workdir, made, ME).refresh().farm == made.farm
