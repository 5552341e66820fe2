"""A farmer's verdicts about the others, as far as they need no process."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from taskfarmer.farmer.peers import PeerMonitor, watched_count
from taskfarmer.formats.sealed import sealed
from taskfarmer.ledger.state import Entry, State
from taskfarmer.options import silent
from taskfarmer.peers.identity import Identity, new_identity
from taskfarmer.storage import durable
from taskfarmer.storage.layout import Workdir


class Ledger:
    """A ledger that shows a sequence of states."""

    registered = True

    def __init__(self, workdir: Workdir, *states: State) -> None:
        self.workdir = workdir
        self.farm = SimpleNamespace(lease=600.0)
        self.states: Iterator[State] = iter(states)

    def refresh(self) -> State:
        return next(self.states)

    def unexpellable(self) -> dict[str, str]:
        return {}


@pytest.fixture
def workdir(tmp_path: Path) -> Workdir:
    (tmp_path / "farmers").mkdir()
    return Workdir.at(str(tmp_path))


@pytest.fixture
def gone(workdir: Workdir) -> Identity:
    """A farmer of this node whose process has exited."""
    child = subprocess.Popen(["true"])
    child.wait()
    me = new_identity(1, "0", {})
    them = replace(me, farmer=f"{me.farmer.split('-')[0]}-{child.pid}-00000000", pid=child.pid, pid_start="1")
    durable.prepare(workdir.identity(them.farmer), sealed(asdict(them)))
    return them


def neighbours(workdir: Workdir, *states: State) -> PeerMonitor:
    return PeerMonitor(silent(), cast(Any, Ledger(workdir, *states)), new_identity(1, "0", {}), cast(Any, None))


def test_a_farmer_that_has_left_since_the_last_check_was_not_killed(workdir: Workdir, gone: Identity) -> None:
    """If it counted as killed, the last farmers of a node would sometimes report remaining tasks without cause."""
    after = State("f", 2, (gone.farmer, 2), "e", 1)
    before = replace(after, farmers={gone.farmer: Entry(1, "0:0+1", gone.farmer, 0, 1)})
    assert neighbours(workdir, before).killed_peer_holds_tasks(before)
    assert not neighbours(workdir, after).killed_peer_holds_tasks(before)


def test_all_farmers_together_read_at_most_a_few_thousand_heartbeats() -> None:
    assert [watched_count(farmers, idle=False) for farmers in (1, 64, 10_000)] == [2, 2, 2]
    assert [watched_count(farmers, idle=True) for farmers in (0, 1, 64, 128, 1000, 10_000)] == [64, 64, 64, 32, 4, 2]
