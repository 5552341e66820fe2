"""What a start asks of the file system, as a multiple of what Python asks for the packages that it needs.

Counts, and both sides counted here and now: so it holds on any machine, whatever else that does.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from benchmarks.measure import farmer
from benchmarks.startup import BARE, IMPORTS, MOST_OPERATIONS
from benchmarks.system import calls, can_trace, operations, timed


def test_a_list_of_one_task_asks_the_file_system_for_little_more_than_its_packages_do(tmp_path: Path) -> None:
    if not can_trace():
        assert "CI" not in os.environ, "strace is missing, or may not trace: nothing is counted"
        pytest.skip("strace is missing, or may not trace")
    (tmp_path / "list").write_text("/bin/true\n", encoding="ascii")
    bare = [sys.executable, "-c", BARE[IMPORTS]]
    run = farmer("-q", "-n", "2", "-w", str(tmp_path / "farm"), str(tmp_path / "list"))
    for command, leaves in ((bare, None), (run, str(tmp_path / "farm"))):
        timed(command, leaves, {"PYTHONDONTWRITEBYTECODE": ""})  # compiled, as what is installed is
    ours, theirs = operations(calls(run)), operations(calls(bare))
    assert (tmp_path / "farm" / "finished").read_bytes() == b"0 /bin/true\n"
    assert theirs > 500, "nothing was counted"
    assert ours <= MOST_OPERATIONS * theirs, (ours, theirs)
