"""The three commands of PyTaskFarmer's documentation, unchanged, and as docs/from-pytaskfarmer.md contains them."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.checker import check
from support.farming import TEST, need
from support.fields import ClusterField
from support.slurm_cluster import SlurmCluster

FILES = ("task_list.txt", "slurm_test.sh", "srun_test.sh")
COMMANDS = (
    "pytaskfarmer.py test/task_list.txt",
    "sbatch test/slurm_test.sh test/task_list.txt",
    "sbatch test/srun_test.sh test/task_list.txt",
)
TASKS = sum(line.strip() != "" and not line.startswith("#") for line in (TEST / FILES[0]).read_text().splitlines())


@pytest.fixture
def checkout(tmp_path: Path) -> Iterator[ClusterField]:
    """A folder like the top of a checkout, with the three files in `test/`."""
    field = ClusterField(tmp_path)
    (tmp_path / "test").mkdir()
    for name in FILES:
        shutil.copy(TEST / name, tmp_path / "test" / name)
    field.workdir = tmp_path / "test" / f"{FILES[0]}_workdir"
    yield field
    field.close()


def run(field: ClusterField, command: str, **variables: str) -> str:
    done = subprocess.run(
        shlex.split(command),
        cwd=field.folder,
        env={**os.environ, **field.variables, **variables},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=150,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def assert_done(field: ClusterField) -> None:
    """Each task of the list is recorded as finished, once, and wrote its log."""
    field.nothing_runs()
    report = check(field.workdir, views=True)
    assert (report.problems, report.failed) == ([], set()), field.said()
    assert report.finished == set(range(TASKS))
    assert all((field.workdir / "logs" / f"log_{number}").stat().st_size for number in range(TASKS))


def test_the_page_contains_these_commands() -> None:
    page = (TEST.parent / "docs" / "from-pytaskfarmer.md").read_text()
    assert "```bash\n" + "\n".join(COMMANDS) + "\n```\n" in page


def test_the_example_list_runs_to_its_end(checkout: ClusterField) -> None:
    run(checkout, COMMANDS[0])
    assert_done(checkout)


@pytest.mark.parametrize("command", COMMANDS[1:])
def test_the_example_jobs_run_the_list_to_its_end(slurm: SlurmCluster, checkout: ClusterField, command: str) -> None:
    said = run(checkout, command, SLURM_CONF=str(slurm.configuration))
    match = re.fullmatch(r"Submitted batch job (\d+)\n", said)
    assert match is not None, said
    ended = slurm.wait(int(match[1]))
    assert set(ended) == {("COMPLETED", 0)}, (ended, checkout.said())
    assert len(ended) == (2 if "slurm_test" in command else 1)
    assert_done(checkout)
    assert checkout.said().count("2 at a time; work directory") == 2, checkout.said()


def test_shellcheck_accepts_the_scripts() -> None:
    need(shutil.which("shellcheck"), "shellcheck is not installed")
    for name in FILES[1:]:
        done = subprocess.run(["shellcheck", str(TEST / name)], capture_output=True, text=True)
        assert (done.returncode, done.stdout) == (0, "")
        assert os.access(TEST / name, os.X_OK)
