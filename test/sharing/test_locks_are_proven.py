"""Farmers of two nodes find out whether their locks are shared, and believe a free lock only then."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from checker import check
from farming import TEST, Field, eventually, mounts, need

LEASE = 60
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


@pytest.mark.parametrize("verdict", ["shared", "local"])
def test_a_free_lock_is_evidence_where_locks_are_shared(tmp_path: Path, verdict: str) -> None:
    need(os.getuid() == 0 and shutil.which("unshare"), "namespaces need root")
    source = tmp_path / "source"
    source.mkdir()
    with mounts(source, tmp_path / "one", tmp_path / "two", options=OPTIONS[verdict]) as (one, two):
        field = Field(tmp_path, shared=source)
        field.write([f"while [ ! -e {tmp_path}/go ]; do sleep 0.1; done"] * 2)
        options = ("-n", 1, "--lease", LEASE, "--wait")
        try:
            first = field.start(*options, node="first", through=one)
            eventually(lambda: len(check(field.workdir).held) == 1, "the first one has a task")
            second = field.start(*options, node="second", through=two)
            eventually(lambda: status(field)["locks"] == verdict, f"locks are found to be {verdict}", 90, 0.5)
            assert sorted(status(field)["locks_between"]) == ["first", "second"]
            first.kill_tree()
            (tmp_path / "go").touch()
            if verdict == "shared":
                assert second.wait(LEASE / 2) == 0, second.said
                assert "its lock is free, and locks are shared with first" in second.said
                assert check(field.workdir).complete
            else:
                eventually(lambda: len(check(field.workdir).finished) == 1, "the second one's own task has ended")
                assert len(check(field.workdir).held) == 1, second.said
        finally:
            field.close()
