"""Races that storms found, forced here."""

from __future__ import annotations

from pathlib import Path

import pytest

from support.checker import check
from support.farming import Field
from taskfarmer.intake import Intake
from taskfarmer.ledger import epochs, farmfile
from taskfarmer.ledger.ledger import Ledger
from taskfarmer.ledger.results import read_counted
from taskfarmer.options import Settings, silent
from taskfarmer.storage.layout import Workdir


def test_a_journal_that_has_grown_and_been_closed_is_read_up_to_its_counted_size(field: Field) -> None:
    """The reader's state is no longer the newest."""
    for _ in range(2):
        with open(field.list, "a") as file:
            file.write("true\n" * 3)
        assert field.run("--proc", 1).process.returncode == 0
    workdir = Workdir.at(str(field.workdir))
    state = Ledger(workdir, farmfile.require(workdir), "a verb").refresh()
    contents = {name: Path(workdir.journal(name)).read_bytes() for name in state.departed}
    assert len(contents) == 2
    reading = read_counted(workdir, state, patience=3.0)
    first, lines = next(reading)
    assert b"".join(lines) == contents.pop(first)
    # the other farmer records one more result and leaves, and the epoch changes
    (second,) = contents
    grown = contents[second] + contents[second].splitlines(keepends=True)[0]
    Path(workdir.journal(second)).write_bytes(grown)
    Path(workdir.journal(second)).rename(workdir.closed_journal(second, len(grown)))
    assert [(name, b"".join(lines)) for name, lines in reading] == [(second, contents[second])]


@pytest.mark.parametrize("swept", ["while it is made", "when it is made"])
def test_a_farmer_that_slept_while_another_created_the_farm_joins_it(
    field: Field, monkeypatch: pytest.MonkeyPatch, swept: str
) -> None:
    """Meanwhile the others have swept away the first epoch that the sleeping farmer created for a new farm."""
    field.write(["true"] * 3)
    assert field.run("--proc", 1).process.returncode == 0
    load, make = farmfile.load, epochs.make
    looks: list[object] = []

    def blind(workdir: Workdir) -> farmfile.Farm | None:
        looks.append(workdir)
        return load(workdir) if len(looks) > 2 else None

    def made_and_swept(workdir: Workdir, number: int) -> str:
        name = make(workdir, number)
        epochs.remove(workdir, name)
        if swept == "while it is made":
            raise FileNotFoundError(2, "No such file or directory", workdir.prepared(name))
        return name

    monkeypatch.setattr(farmfile, "load", blind)
    monkeypatch.setattr(epochs, "make", made_and_swept)
    monkeypatch.delenv("SCRATCH", raising=False)
    farm = Intake(Settings(str(field.list)), silent()).open()
    assert len(looks) > 2
    assert farm == load(Workdir.at(str(field.workdir)))
    assert check(field.workdir, views=True).problems == []
    assert len([*(field.workdir / "tasks").iterdir()]) == 2
