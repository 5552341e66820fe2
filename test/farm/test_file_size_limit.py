"""`ulimit -f` limits the farm's files: farmers record as much as possible, and a farmer that cannot continue exits."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from support.farms import Farm, Farmer

LIMITED = ["bash", "-c", 'ulimit -f "$1"; shift; exec "$@"', "bash"]
WARNED = re.compile(r"warning: (\S+): File too large \(raise `ulimit -f`\)")


def run(farm: Farm, kilobytes: int, *options: object) -> Farmer:
    """Run a farmer under a limit of file sizes until it exits."""
    return farm.run(*options, before=[*LIMITED, str(kilobytes)])


def test_results_that_exceed_the_file_size_limit_are_split_into_several_journals(farm: Farm) -> None:
    farm.write(*["true"] * 3000)
    farmer = run(farm, 64, "-n", 2, "--logs", "none")
    assert farmer.wait() == 0, farmer.said
    report = farm.check(views=False)
    assert report.finished == set(range(3000))
    assert {line.attempt for line in report.lines} == {1}
    sizes = [path.stat().st_size for path in (farm.workdir / "results").iterdir()]
    assert len(sizes) > 3
    assert max(sizes) <= 64 * 1024


def test_one_warning_names_the_view_that_is_too_large_and_the_remedy(farm: Farm) -> None:
    farm.write(*["true"] * 1500)
    farmer = run(farm, 64, "-n", 2, "--logs", "none")
    assert farmer.wait() == 0, farmer.said
    assert {Path(path).name for path in WARNED.findall(farmer.said)} == {"timeline.json"}
    assert "the views may be stale, the ledger is complete" in farmer.said
    assert farm.run("-n", 2).wait() == 0
    farm.check(views=True)


def test_a_list_that_is_too_long_is_refused_in_one_line_and_leaves_no_files(farm: Farm) -> None:
    farm.write(*[f"true {'x' * 1000}"] * 200)
    farmer = run(farm, 64)
    assert farmer.wait() == 2
    assert re.search(r"error: \S+/tasks: File too large; the task list was not imported, .*\(ulimit -f\)", farmer.said)
    assert len(farmer.said.splitlines()) == 1
    assert not farm.workdir.exists()


@pytest.mark.parametrize("kilobytes", [1, 2])
def test_a_farmer_that_can_write_almost_nothing_exits_with_the_reason(farm: Farm, kilobytes: int) -> None:
    """A farm does not fit into files of one kilobyte: status 2 if nothing was changed, 74 if it stops in the middle."""
    farm.write(*["true"] * 300)
    farmer = run(farm, kilobytes, "-n", 2, "--logs", "none")
    assert farmer.wait() in (2, 74), farmer.said
    assert "File too large" in farmer.said
    assert "ulimit -f" in farmer.said
    assert "Traceback" not in farmer.said
    farm.no_survivors()
    assert farm.run("-n", 2).wait() == 0
    assert farm.check().finished == set(range(300))


def test_packed_output_that_exceeds_the_file_size_limit_is_kept_elsewhere(farm: Farm) -> None:
    farm.write(*[f"head -c 20000 /dev/zero | tr '\\0' {letter}" for letter in "abcdefgh"])
    farmer = run(farm, 64, "-n", 2, "--logs", "packed")
    assert farmer.wait() == 0, farmer.said
    words = [sys.executable, "-m", "taskfarmer", "logs", str(farm.workdir), "0-7"]
    told = subprocess.run(words, capture_output=True, env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])})
    assert told.returncode == 0, told.stderr
    assert {letter: told.stdout.count(letter.encode() * 100) for letter in "abcdefgh"} == dict.fromkeys("abcdefgh", 200)


@pytest.mark.parametrize("logs", ["files", "packed"])
def test_a_task_that_writes_too_much_is_killed_by_sigxfsz_as_in_a_shell(farm: Farm, logs: str) -> None:
    """Python ignores SIGXFSZ; a task has the default disposition."""
    farm.write("exec head -c 200000 /dev/zero", "true")
    farmer = run(farm, 64, "-n", 1, "--logs", logs)
    assert farmer.wait() == 1, farmer.said
    farm.check()
    (attempt,) = [one["args"] for one in farm.slices() if one["args"]["id"] == 0]
    assert (attempt["outcome"], attempt["signal"]) == ("failed", signal.SIGXFSZ)
