"""When a farmer leaves with a note, the results in its journal count, and the rest is released; a note can be wrong."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest

from taskfarmer.errors import Stopped, StorageError
from taskfarmer.farm.create import make, make_folders
from taskfarmer.formats.intervals import Interval, parse_intervals
from taskfarmer.formats.results import FINISHED, result_line
from taskfarmer.formats.sealed import sealed
from taskfarmer.ledger.farmfile import Farm
from taskfarmer.ledger.ledger import FarmerReport, Ledger
from taskfarmer.ledger.segments import SegmentWriter
from taskfarmer.ledger.state import Segment
from taskfarmer.peers.heartbeat import Presence
from taskfarmer.peers.identity import new_identity
from taskfarmer.storage import durable
from taskfarmer.storage.layout import Workdir

ME, OTHER = "node-1-0a0b0c0d", "node-2-0a0b0c0e"


@pytest.fixture
def workdir(tmp_path: Path) -> Workdir:
    return Workdir.at(str(tmp_path / "farm"))


@pytest.fixture
def farm(workdir: Workdir) -> Farm:
    make_folders(workdir)
    writer = SegmentWriter(workdir, 0)
    writer.add(b"true %d" % number for number in range(100))
    made = Farm("f" * 16, "list", "default", {}, None, 600.0, 4, 0.0)
    assert make(workdir, made, Segment(writer.close(), 0, 100))
    return made


@pytest.fixture
def me(workdir: Workdir, farm: Farm) -> Ledger:
    """A farmer that holds the tasks 0 to 9."""
    ledger = Ledger(workdir, farm, ME, 2)
    ledger.exchange(10)
    return ledger


@pytest.fixture
def other(workdir: Workdir, farm: Farm) -> Ledger:
    return Ledger(workdir, farm, OTHER, 2)


def ended(start: int, count: int) -> FarmerReport:
    lines = [result_line(start + n, 1, 0, 1.0, 2.0, FINISHED) for n in range(count)]
    return FarmerReport(lines, [Interval(0, start, count)], finished=count, seconds=1.0, ended=count)


def leave_note(workdir: Workdir, journal: str, size: int) -> None:
    """Write the note as a farmer does."""
    presence = Presence(workdir, replace(new_identity(2, "0", {}), farmer=ME))
    presence.beat([[0, 5, 1]])
    presence.write_farewell(journal, size)
    presence.close()


def returned(ledger: Ledger) -> list[tuple[int, int, int, int]]:
    found = parse_intervals(ledger.refresh().returned)
    return [(one.start, one.count, one.attempt, one.deaths) for one in found]


def test_results_in_the_journal_count_and_the_rest_is_released(workdir: Workdir, me: Ledger, other: Ledger) -> None:
    me.add_report(ended(0, 3))
    journal, size = me.flush_journal()
    assert size == os.path.getsize(workdir.journal(journal))
    leave_note(workdir, journal, size)
    assert other.expel([ME]) == [ME]
    assert other.refresh().finished == 3
    assert returned(other) == [(3, 7, 2, 0)], "none of them ran when the farmer left"
    assert sorted(os.listdir(workdir.farmers)) == [f"{ME}.json"]


@pytest.mark.parametrize("operation", range(7))
def test_an_exchange_may_be_aborted_between_any_two_operations(
    workdir: Workdir, me: Ledger, other: Ledger, operation: int
) -> None:
    """If its commit succeeded or not, every result is recorded once after the note."""
    left = operation

    def between() -> None:
        nonlocal left
        left -= 1
        if left < 0:
            raise Stopped("")

    me.add_report(ended(0, 3))
    me.do_between(between)
    try:
        me.exchange(5)
    except Stopped:
        pass
    else:
        pytest.skip("an exchange has fewer operations")
    me.do_between(lambda: None)
    me.add_report(ended(3, 2))
    leave_note(workdir, *me.flush_journal())
    assert other.expel([ME]) == [ME]
    state = other.refresh()
    assert (state.finished, state.held, state.unprocessed) == (5, 0, 95)


def test_the_last_commit_of_a_farmer_may_be_aborted_after_it_succeeded(me: Ledger, other: Ledger) -> None:
    """In this case no note is needed."""
    calls = 0

    def between() -> None:
        nonlocal calls
        calls += 1
        if me.commits.last_seen is not None and me.commits.last_seen.revision == 2:
            raise Stopped("")

    me.add_report(FarmerReport([], [], returned=[Interval(0, 0, 10)]))
    me.do_between(between)
    with pytest.raises(Stopped):
        me.exchange(0, leave=True)
    assert calls
    assert me.has_left()
    assert me.all_settled
    assert not me.registered
    assert ME not in other.refresh().farmers


def test_bytes_that_are_not_visible_yet_are_awaited(workdir: Workdir, me: Ledger, other: Ledger) -> None:
    """If a network file system shows an old length of a journal, tasks with hidden results are not retried."""
    me.add_report(ended(0, 3))
    journal, size = me.flush_journal()
    leave_note(workdir, journal, size)
    path = workdir.journal(journal)
    whole = durable.read(path)
    Path(path).write_bytes(whole[: len(whole) // 2])
    assert other.expel([ME]) == []
    assert "fewer bytes are visible" in other.delayed_expulsions[ME]
    assert returned(other) == []
    Path(path).write_bytes(whole)
    assert other.expel([ME]) == [ME]
    assert other.refresh().finished == 3


def test_a_note_that_is_still_empty_is_awaited(workdir: Workdir, me: Ledger, other: Ledger) -> None:
    leave_note(workdir, *me.flush_journal())
    note = Path(workdir.farewell(ME))
    whole = note.read_bytes()
    note.write_bytes(b"")
    assert other.expel([ME]) == []
    note.write_bytes(whole)
    assert other.expel([ME]) == [ME]


@pytest.mark.parametrize(
    "text", [b"", sealed({"journal": ME, "bytes": 10**9})], ids=["empty", "contains too large a size"]
)
def test_a_wrong_note_only_costs_time(workdir: Workdir, me: Ledger, other: Ledger, text: bytes) -> None:
    me.add_report(ended(0, 3))
    leave_note(workdir, *me.flush_journal())
    Path(workdir.farewell(ME)).write_bytes(text)
    assert other.expel([ME]) == []
    other.commits.patience = -1.0
    assert other.expel([ME]) == [ME]
    assert other.refresh().finished == 3
    assert other.unexpellable() == {}


@pytest.mark.parametrize(
    "text",
    [
        b"farewell\n",
        b"no JSON",
        sealed({"journal": "../../somebody", "bytes": 5}),
        sealed({"journal": f"{OTHER}", "bytes": 5}),
        sealed({"journal": f"{ME}-rx", "bytes": 5}),
        sealed({"journal": ["x"], "bytes": "many"}),
    ],
)
def test_a_note_that_names_a_foreign_journal_only_proves_that_its_farmer_has_left(
    workdir: Workdir, me: Ledger, other: Ledger, text: bytes
) -> None:
    me.add_report(ended(0, 3))
    leave_note(workdir, *me.flush_journal())
    Path(workdir.farewell(ME)).write_bytes(text)
    assert other.expel([ME]) == [ME]
    assert other.refresh().finished == 3


def test_results_in_a_new_journal_that_no_commit_names_count(
    workdir: Workdir, me: Ledger, other: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first journal failed; the farmer is stopped before a commit names the second one."""
    me.add_report(ended(0, 2))
    me.exchange(0)
    me.add_report(ended(2, 1))
    with monkeypatch.context() as patch:
        patch.setattr(os, "write", lambda *_: (_ for _ in ()).throw(OSError(5, "Input/output error")))
        with pytest.raises(StorageError):
            me.flush_journal()
    journal, size = me.flush_journal()
    assert journal == f"{ME}-r1"
    leave_note(workdir, journal, size)
    assert other.expel([ME]) == [ME]
    state = other.refresh()
    assert state.finished == 3
    assert set(state.departed) == {ME, f"{ME}-r1"}
    assert returned(other) == [(3, 7, 2, 0)]
