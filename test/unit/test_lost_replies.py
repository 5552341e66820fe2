"""Effects of lost replies, stale views, sleep and power failures on a ledger; test/property found each of them."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from taskfarmer.errors import FarmGone, StaleView
from taskfarmer.farm.create import make, make_folders
from taskfarmer.formats.intervals import Interval
from taskfarmer.formats.results import FINISHED, result_line
from taskfarmer.ledger import epochs, farmfile
from taskfarmer.ledger import state as states
from taskfarmer.ledger.farmfile import Farm
from taskfarmer.ledger.ledger import FarmerReport, Ledger
from taskfarmer.ledger.state import Segment, Settlement, State, problems
from taskfarmer.storage import durable
from taskfarmer.storage.layout import Workdir

ME, OTHER = "node-1-0a0b0c0d", "node-2-0a0b0c0e"
FARM = Farm("f" * 16, "list", "default", {}, None, 600.0, 4, 0.0)


@pytest.fixture
def workdir(tmp_path: Path) -> Workdir:
    workdir = Workdir.at(str(tmp_path / "farm"))
    make_folders(workdir)
    assert make(workdir, FARM, Segment("0" * 12, 0, 100))
    return workdir


def ended(interval: Interval) -> FarmerReport:
    lines = [result_line(interval.start + n, interval.attempt, 0, 1.0, 2.0, FINISHED) for n in range(interval.count)]
    return FarmerReport(lines, [interval], finished=interval.count, seconds=1.0, ended=interval.count)


class Hidden:
    """A revision whose link succeeds with an error as the reply, and which is not visible for some checks."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, number: int, looks: int) -> None:
        self.looks = looks
        self.target = ""
        self.answer: int | None = number
        self.link, self.read = durable.os.link, durable.read
        monkeypatch.setattr(durable.os, "link", self._link)
        monkeypatch.setattr(durable, "read", self._read)

    def _link(self, source: str, target: str) -> None:
        self.link(source, target)
        if self.answer is not None and os.path.basename(target).isdigit():
            number, self.answer, self.target = self.answer, None, target
            raise OSError(number, os.strerror(number))

    def _read(self, path: str) -> bytes:
        if path == self.target and self.looks:
            self.looks -= 1
            raise FileNotFoundError(errno.ENOENT, "not yet", path)
        return self.read(path)


def test_of_two_attempts_at_one_commit_the_successful_one_counts(
    workdir: Workdir, monkeypatch: pytest.MonkeyPatch
) -> None:
    ledger = Ledger(workdir, FARM, ME, 2)
    for _ in range(3):
        ledger.exchange(1)
    Hidden(monkeypatch, errno.ENOENT, looks=4)
    ledger.exchange(1)  # the end of an epoch, for which the second attempt would choose another name
    monkeypatch.undo()
    ledger.exchange(1)
    seen = Ledger(workdir, FARM, OTHER).refresh()
    assert seen == ledger.state
    assert (seen.revision, problems(seen)) == (5, [])
    assert len([name for name in os.listdir(workdir.ledger) if name.startswith("000001-")]) == 1


def test_results_whose_commit_succeeded_unnoticed_are_settled_once(
    workdir: Workdir, monkeypatch: pytest.MonkeyPatch
) -> None:
    ledger = Ledger(workdir, FARM, ME, 2)
    gained, _ = ledger.exchange(2)
    ledger.add_report(ended(gained[0]))
    Hidden(monkeypatch, errno.EIO, looks=6)
    told = 0
    for _ in range(4):
        try:
            told += ledger.exchange(1)[1].finished
        except Exception as error:
            assert "outcome of the commit unknown" in str(error)
    assert told == 2
    assert Ledger(workdir, FARM, OTHER).refresh().finished == 2


def test_a_farmer_that_left_does_not_get_the_error_for_expelled_farmers(
    workdir: Workdir, monkeypatch: pytest.MonkeyPatch
) -> None:
    ledger = Ledger(workdir, FARM, ME, 2)
    gained, _ = ledger.exchange(2)
    ledger.add_report(ended(gained[0]))
    Hidden(monkeypatch, errno.ENOENT, looks=2)
    ledger.exchange(leave=True)
    assert not ledger.registered
    assert Ledger(workdir, FARM, OTHER).refresh().finished == 2


def test_a_sweeper_that_slept_does_not_remove_the_epochs_of_another_farm(workdir: Workdir) -> None:
    shutil.rmtree(workdir.path)
    make_folders(workdir)
    anew = Farm("e" * 16, "list", "default", {}, None, 600.0, 4, 0.0)
    assert make(workdir, anew, Segment("1" * 12, 0, 5))
    epochs.make(workdir, 0)
    before = sorted(os.listdir(workdir.ledger))
    epochs.sweep(workdir, "000007-00000000", FARM.farm)
    assert sorted(os.listdir(workdir.ledger)) == before
    epochs.sweep(workdir, "000007-00000000", anew.farm)
    assert sorted(os.listdir(workdir.ledger)) == []


def test_another_attempt_of_a_held_task_cannot_be_settled() -> None:
    state = State("farm", 0, ("import", 0), "000000-00000000", 1, (Segment("first", 0, 3),))
    state = states.claim(states.join(state, "a", "a", 1), "a", 1)
    once = Settlement("a", 0, returned=(Interval(0, 0, 1),))
    state = states.claim(states.settle(state, "a", once), "a", 1)
    assert state.farmers["a"].claims == "0:0@2"
    with pytest.raises(StaleView, match="no longer holds"):
        states.settle(state, "a", once)


def test_a_death_at_an_earlier_attempt_is_not_counted_again() -> None:
    state = State("farm", 0, ("import", 0), "000000-00000000", 1, (Segment("first", 0, 1),))
    state = states.claim(states.join(state, "a", "a", 1), "a", 1)
    state = states.settle(state, "a", Settlement("a", 0, returned=(Interval(0, 0, 1),)))
    state = states.claim(state, "a", 1)
    state = states.expel(state, "a", Settlement("a", 0), died=(Interval(0, 0, 1),))
    assert state.returned == "0:0@3"


def synced(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The directories that are synced from now on."""
    paths: list[str] = []
    real: Callable[[str], None] = durable.sync_directory

    def sync(path: str) -> None:
        paths.append(path)
        real(path)

    monkeypatch.setattr(durable, "sync_directory", sync)
    return paths


def test_an_epoch_starts_when_the_end_of_the_previous_one_is_durable(
    workdir: Workdir, monkeypatch: pytest.MonkeyPatch
) -> None:
    ledger, other = Ledger(workdir, FARM, ME, 2), Ledger(workdir, FARM, OTHER, 2)
    first = ledger.refresh().epoch
    other.exchange(1)
    for _ in range(3):
        ledger.exchange(1)
    assert ledger.state.epoch != first
    paths = synced(monkeypatch)
    other.exchange(1)
    assert paths.index(workdir.epoch(first)) < paths.index(workdir.epoch(other.state.epoch))


def test_the_name_of_a_farm_is_durable_before_any_operation_in_it(
    workdir: Workdir, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = synced(monkeypatch)
    make_folders(workdir)
    assert os.path.dirname(workdir.path) in paths
    paths.clear()
    Ledger(workdir, FARM, ME, 2).exchange(1)
    assert paths[0] == workdir.path


def test_a_farm_that_was_just_created_may_look_short(workdir: Workdir, monkeypatch: pytest.MonkeyPatch) -> None:
    real = durable.read
    looks = [b"", b'{"farm"']
    monkeypatch.setattr(durable, "read", lambda path: looks.pop() if looks else real(path))
    assert farmfile.load(workdir) == FARM


def test_a_directory_with_a_stale_handle_is_a_removed_farm(workdir: Workdir, monkeypatch: pytest.MonkeyPatch) -> None:
    ledger = Ledger(workdir, FARM, ME, 2)
    shutil.rmtree(workdir.path)

    def stale(path: str) -> list[str]:
        raise OSError(errno.ESTALE, os.strerror(errno.ESTALE), path)

    monkeypatch.setattr("taskfarmer.ledger.commits.os.listdir", stale)
    with pytest.raises(FarmGone):
        ledger.refresh()
