"""When a job is requeued, it takes over the tasks of its earlier run, unless that run's farmer sends heartbeats."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.checker import Problem, check, sealed
from support.farming import Farmer, Field, eventually, need


@pytest.fixture
def field(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Field]:
    need(os.getuid() == 0 and shutil.which("unshare"), "namespaces need root")
    monkeypatch.setenv("SLURM_CLUSTER_NAME", "one")
    monkeypatch.setenv("SLURM_JOB_ID", "4711")
    field = Field(tmp_path)
    field.write([f"until [ -e {tmp_path}/go ]; do sleep 0.1; done"])
    try:
        yield field
    finally:
        field.close()


def first_run(field: Field, lease: int) -> Farmer:
    """A farmer that has the only task, and a heartbeat interval of a twentieth of the lease."""
    farmer = field.start("-n", 1, "--lease", lease, "--timeout", "none", node="first")
    eventually(lambda: len(check(field.workdir).held) == 1, "it has a task", 60)
    return farmer


def beats(field: Field, node: str) -> int:
    try:
        return max((int(sealed(path)["beat"]) for path in field.workdir.glob(f"farmers/{node}-*.alive")), default=0)
    except (OSError, Problem):
        return 0  # it is being written


@pytest.mark.parametrize("when", ["after two missed beats", "at once"])
def test_a_job_that_runs_again_takes_over_the_tasks_of_its_earlier_run(
    field: Field, monkeypatch: pytest.MonkeyPatch, when: str
) -> None:
    """This also works if no other tasks are left, and long before the lease expires."""
    first_run(field, lease=60).kill_tree()
    (alive,) = (field.workdir / "farmers").glob("*.alive")
    if when != "at once":
        eventually(lambda: time.time() - alive.stat().st_mtime > 2 * 3.0, "it has missed two beats")
    (field.folder / "go").touch()
    monkeypatch.setenv("SLURM_RESTART_COUNT", "1")
    second = field.run("-n", 1, "--timeout", "none", node="second")
    assert second.process.returncode == 0, second.said
    assert "is dead (its job 4711 was requeued, and runs again here)" in second.said
    assert check(field.workdir, views=True).complete


def test_a_farmer_with_a_heartbeat_is_not_expelled_although_its_job_was_requeued(
    field: Field, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The controller has lost contact to its node, but the node still reaches the file system."""
    first = first_run(field, lease=100)
    monkeypatch.setenv("SLURM_RESTART_COUNT", "1")
    second = field.start("-n", 1, "--timeout", "none", "--wait", node="second")
    eventually(lambda: beats(field, "second") > 2, "the second one has checked the first", 60)
    (field.folder / "go").touch()
    assert (first.wait(), second.wait()) == (0, 0), second.said
    assert "is dead" not in second.said
    assert {line.attempt for line in check(field.workdir, views=True).lines} == {1}
