"""Stale files: when another node changes a file, a network file system shows the old contents for a moment."""

from __future__ import annotations

import fcntl
import threading
from pathlib import Path

import pytest

from support.farming import Field
from support.glusterfs import Volume
from taskfarmer.errors import TaskListError
from taskfarmer.intake.comparison import compare
from taskfarmer.ledger import farmfile
from taskfarmer.ledger.ledger import Ledger
from taskfarmer.storage import locks
from taskfarmer.storage.layout import Workdir


def test_a_list_that_is_seen_with_its_old_length_is_checked_again(field: Field) -> None:
    field.write(["true"] * 6)
    assert field.run("--proc", 1).process.returncode == 0
    workdir = Workdir.at(str(field.workdir))
    farm = farmfile.require(workdir)
    state = Ledger(workdir, farm, "a verb").refresh()
    field.write(["true"] * 3 + ["tr"])
    with pytest.raises(TaskListError, match="task 3"):
        compare(str(field.list), workdir, state, farm, patience=0.5)
    field.write(["true"] * 3)
    with pytest.raises(TaskListError, match="ends before task 3"):
        compare(str(field.list), workdir, state, farm, patience=0.5)
    later = threading.Timer(0.5, field.write, [["true"] * 6])
    later.start()
    assert compare(str(field.list), workdir, state, farm, patience=30.0) is None
    later.join()


def test_a_heartbeat_file_that_is_removed_while_it_is_checked_proves_nothing(
    volume: Volume, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """GlusterFS opens files late. If a file is gone by then, the first call fails with ESTALE: flock, and close."""
    here, there = (place / f"{tmp_path.name}.alive" for place in volume.places)
    real = fcntl.flock

    def flock(fd: int, how: int) -> None:
        there.unlink()
        real(fd, how)

    there.touch()
    monkeypatch.setattr(fcntl, "flock", flock)
    assert locks.alive_is_free(str(here)) is False
    assert not there.exists()
