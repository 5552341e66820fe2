"""Several farmers start, or exit, at the same instant."""

from __future__ import annotations

from dataclasses import replace

import pytest

from support.checker import check
from support.farming import Field, gate
from taskfarmer.formats.results import FINISHED, result_line
from taskfarmer.formats.timeline import farmer_number, time_slice
from taskfarmer.intake import Intake
from taskfarmer.ledger import farmfile
from taskfarmer.ledger.ledger import FarmerReport, Ledger
from taskfarmer.options import Settings, silent
from taskfarmer.peers.identity import new_identity
from taskfarmer.storage.layout import Workdir
from taskfarmer.views.views import Views


def test_32_farmers_that_start_at_the_same_instant_run_each_of_2000_tasks_once(field: Field) -> None:
    field.appending(2000)
    with gate(field.folder / "gate") as closed:
        farmers = [field.start("--proc", 2, "--lease", 120, after=closed) for _ in range(32)]
    assert [farmer.wait(120) for farmer in farmers] == [0] * 32, [f.said for f in farmers if f.wait()]
    report = check(field.workdir, views=True)
    assert report.problems == []
    assert len(report.finished) == 2000
    assert field.runs() == dict.fromkeys(range(2000), 1)
    assert len(report.state["segments"]) == 1
    assert sorted(path.suffix for path in (field.workdir / "tasks").iterdir()) == ["", ".index"]


def test_a_farmer_that_checked_before_the_farm_was_created_joins_it(
    field: Field, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The race is forced: its first check finds no farm, and then another farmer has created one, including views."""
    field.write(["true"] * 3)
    assert field.run("--proc", 1).process.returncode == 0
    real = farmfile.load
    looks: list[object] = []

    def load(workdir: Workdir) -> farmfile.Farm | None:
        looks.append(workdir)
        return real(workdir) if len(looks) > 1 else None

    monkeypatch.setattr(farmfile, "load", load)
    monkeypatch.delenv("SCRATCH", raising=False)
    farm = Intake(Settings(str(field.list)), silent()).open()
    assert farm == real(Workdir.at(str(field.workdir)))
    assert len(looks) > 1
    assert check(field.workdir, views=True).problems == []


@pytest.mark.parametrize("first", ["views", "ledger"])
def test_two_farmers_that_exit_at_once_leave_exact_views(
    field: Field, monkeypatch: pytest.MonkeyPatch, first: str
) -> None:
    """The race is forced: the second leaves and writes views after the first has left and before it shows results."""
    field.write(["true"] * 2)
    monkeypatch.delenv("SCRATCH", raising=False)
    farm = Intake(Settings(str(field.list)), silent()).open()
    workdir = Workdir.at(str(field.workdir))
    ends = [Peer(workdir, farm, task) for task in range(2)]
    for end in ends:
        end.work()
    for end in ends:
        end.leave()
    for end in ends if first == "views" else ends[::-1]:
        end.views.finish(end.ledger.refresh())
    assert check(field.workdir, views=True).problems == []


class Peer:
    """The part of a farmer that uses ledger and views, without processes."""

    def __init__(self, workdir: Workdir, farm: farmfile.Farm, task: int) -> None:
        self.identity = replace(new_identity(1, "0", {}), farmer=f"here-{task}-0000000{task}")
        self.ledger = Ledger(workdir, farm, self.identity.farmer, 1)
        self.views = Views(workdir, self.ledger, self.identity)
        self.task = task

    def work(self) -> None:
        (gained,), _ = self.ledger.exchange(1)
        line = result_line(self.task, 1, 0, 1.0, 2.0, FINISHED)
        number = farmer_number(self.identity.farmer)
        event = time_slice(number, 0, self.task, 1, b"true", 1.0, 2.0, FINISHED, 0, 0, 0.0, 0.0, 0)
        shown = (b"%d true\n" % self.task, b"", event)
        self.ledger.add_report(FarmerReport([line], [gained], finished=1, ended=1, views=[shown]))

    def leave(self) -> None:
        _, told = self.ledger.exchange(0, leave=True)
        self.views.add(told.views, told.size)
        self.ledger.close()
