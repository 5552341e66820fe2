"""Farmers find out whether their locks exclude each other; a free lock ends a lease between containers only."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from support.checker import check
from support.farming import TEST, Field, eventually, mounts, need

LEASE = 12
OPTIONS = {"shared": ("--enable-lock-forwarding",), "local": ()}


def status(field: Field) -> dict[str, Any]:
    shown = subprocess.run(
        [sys.executable, "-m", "taskfarmer", "status", str(field.workdir), "--json"],
        env={**os.environ, "PYTHONPATH": str(TEST.parent)},
        capture_output=True,
        text=True,
    )
    found: dict[str, Any] = json.loads(shown.stdout) if shown.returncode == 0 else {"locks": None}
    return found


@pytest.mark.parametrize("place", ["one local file system", "shared", "local"])
def test_a_free_lock_is_evidence_between_containers_on_a_file_system_of_their_node(tmp_path: Path, place: str) -> None:
    """The other folders are FUSE mounts, which may belong to a server: there a silent farmer keeps its lease."""
    need(os.getuid() == 0 and shutil.which("unshare"), "namespaces need root")
    source = tmp_path / "source"
    source.mkdir()
    verdict = place if place in OPTIONS else "shared"
    with ExitStack() as stack:
        one = two = source
        if place in OPTIONS:
            one, two = stack.enter_context(mounts(source, tmp_path / "one", tmp_path / "two", options=OPTIONS[place]))
        field = Field(tmp_path, shared=source)
        stack.callback(field.close)
        field.write([f"while [ ! -e {tmp_path}/go ]; do sleep 0.1; done"] * 2)
        options = ("-n", 1, "--lease", LEASE, "--wait")
        first = field.start(*options, node="first", through=one)
        eventually(lambda: len(check(field.workdir).held) == 1, "the first one has a task", 60)
        second = field.start(*options, node="second", through=two)
        eventually(lambda: status(field)["locks"] == verdict, f"locks are found to be {verdict}", 120, 0.5)
        assert sorted(status(field)["locks_between"]) == ["first", "second"]
        first.kill_tree()
        (tmp_path / "go").touch()
        assert second.wait(20 * LEASE) == 0, second.said
        assert check(field.workdir).complete
        if place in OPTIONS:
            assert "no heartbeat for" in second.said
        else:
            assert "its lock is free, and first is a container of this node" in second.said
