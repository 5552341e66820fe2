"""File operations of a start, as a multiple of those that Python needs to import the required packages.

Both sides are counted in the same run, so the result does not depend on the machine or its load.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from benchmarks.measure import farmer
from benchmarks.startup import BARE, IMPORTS, MOST_OPERATIONS
from benchmarks.system import calls, can_trace, operations, timed


def test_a_list_of_one_task_needs_few_file_operations_in_addition_to_the_imports(tmp_path: Path) -> None:
    if not can_trace():
        assert "CI" not in os.environ, "strace is missing, or may not trace: nothing is counted"
        pytest.skip("strace is missing, or may not trace")
    (tmp_path / "list").write_text("/bin/true\n", encoding="ascii")
    bare = [sys.executable, "-c", BARE[IMPORTS]]
    run = farmer("-q", "-n", "2", "-w", str(tmp_path / "farm"), str(tmp_path / "list"))
    for command, leaves in ((bare, None), (run, str(tmp_path / "farm"))):
        timed(command, leaves, {"PYTHONDONTWRITEBYTECODE": ""})  # compiled, like installed packages
    ours, theirs = operations(calls(run)), operations(calls(bare))
    assert (tmp_path / "farm" / "finished").read_bytes() == b"0 /bin/true\n"
    assert theirs > 500, "nothing was counted"
    assert ours <= MOST_OPERATIONS * theirs, (ours, theirs)
