"""In each srun line that starts farmers or doctors, the others continue when one process exits."""

from __future__ import annotations

import re
from pathlib import Path

TOP = Path(__file__).parent.parent
OPTIONS = ("--kill-on-bad-exit=0", "--wait=0")


def pages() -> list[Path]:
    found = [TOP / "README.md", *(TOP / "test").glob("*_test.sh")]
    for folder in ("docs", "examples", "packaging", "taskfarmer", "runners.d", "tasklists.d"):
        found += [path for path in (TOP / folder).rglob("*") if path.is_file() and path.suffix != ".pyc"]
    return found


def lines() -> list[tuple[str, str]]:
    """Path and text of each command that starts a farmer or a doctor through srun."""
    found = []
    for path in pages():
        text = path.read_text(encoding="utf-8").replace("\\\n", " ")
        text = re.sub(r'"\n\s*"', "", text)  # join a Python string that continues on the next line
        commands = re.findall(r"\bsrun +-[^\n`]*?taskfarmer\b[^\n`]*", text)
        found += [(path.relative_to(TOP).as_posix(), command) for command in commands]
    return found


def test_in_each_srun_line_one_exit_does_not_terminate_the_other_processes() -> None:
    assert [line for line in lines() if not all(option in line[1] for option in OPTIONS)] == []


def test_lines_of_all_kinds_are_found() -> None:
    files = {path for path, _ in lines()}
    assert files >= {
        "README.md",
        "docs/clusters.md",
        "docs/filesystems.md",
        "examples/slurm/gpu.sh",
        "examples/slurm/mpi.sh",
        "examples/slurm/srun.sh",
        "taskfarmer/cli/doctor.py",
        "taskfarmer/cli/run.py",
        "taskfarmer/doctor/judgement.py",
        "test/srun_test.sh",
    }
