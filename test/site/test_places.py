"""`docs/clusters.md`, location of the work directory: effects of a purge of old files, and copied farms."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from support.checker import check
from support.farming import Field, eventually, send

TOP = Path(__file__).parents[2]
HARMLESS = ("logs/*", "farmers/*", "ledger/HEAD", "ledger/*/[01]")
VIEWS = ("finished", "failed", "toprocess", "timeline.json", "views.json")


@pytest.fixture
def unused_farm(field: Field) -> Field:
    """A farm whose files have not been used for a long time."""
    field.appending(3, then="[ $PROC_NUMBER != 1 ]")
    assert field.run().wait() == 1
    return field


def verb(*words: object) -> subprocess.CompletedProcess[str]:
    line = [sys.executable, "-m", "taskfarmer", *map(str, words)]
    variables = {**os.environ, "PYTHONPATH": str(TOP)}
    return subprocess.run(line, env=variables, capture_output=True, text=True, timeout=120, check=False)


def purge(field: Field, *patterns: str) -> list[Path]:
    found = [path for pattern in patterns for path in field.workdir.glob(pattern) if path.is_file()]
    assert found
    for path in found:
        path.unlink()
    return found


@pytest.mark.parametrize("patterns", [HARMLESS, VIEWS], ids=["files that no farmer needs", "views"])
def test_a_farm_continues_without_files_that_can_be_rebuilt(unused_farm: Field, patterns: tuple[str, ...]) -> None:
    purge(unused_farm, *patterns)
    assert verb("check", unused_farm.workdir).returncode == (1 if patterns == VIEWS else 0)
    assert verb("check", unused_farm.workdir, "--repair").returncode == 0
    assert verb("retry", unused_farm.workdir, "--failed").returncode == 0
    with open(unused_farm.list, "a") as file:
        file.write("true\n")
    assert unused_farm.run().wait() == 1
    report = check(unused_farm.workdir, views=True, retried=True)
    assert (report.problems, report.finished, report.failed) == ([], {0, 2, 3}, {1})


@pytest.mark.parametrize("pattern", ["results/*", "tasks/*", "ledger/*/2", "farm.json"])
def test_check_names_missing_files(unused_farm: Field, pattern: str) -> None:
    removed = purge(unused_farm, pattern)
    found = verb("check", unused_farm.workdir)
    assert found.returncode in (1, 2, 74), found.stdout
    assert any(path.name in found.stdout + found.stderr for path in removed), found.stdout + found.stderr


@pytest.mark.parametrize("pattern", ["results/*", "tasks/*", "farm.json"])
def test_a_list_is_not_started_over_if_a_part_of_its_farm_is_missing(unused_farm: Field, pattern: str) -> None:
    purge(unused_farm, pattern)
    assert unused_farm.run().wait() == (74 if pattern == "farm.json" else 1)
    assert unused_farm.runs() == {0: 1, 1: 1, 2: 1}


def test_a_copy_of_a_farm_continues_where_the_original_stopped(field: Field, tmp_path: Path) -> None:
    """This also works if its farmer was killed, as in a copy from a burst buffer when a job ends."""
    field.write([": > begun; [ -e go ] || exec sleep 1000", "true", "echo $TASKFARMER_ATTEMPT"])
    farmer = field.start("-n", 1)
    eventually((tmp_path / "begun").exists, "the task runs")
    farmer.kill_tree()
    farmer.process.wait(20)
    copy = tmp_path / "copy"
    subprocess.run(["cp", "-a", field.workdir, copy], check=True)
    field.workdir.rename(tmp_path / "purged")
    (tmp_path / "go").touch()
    assert field.run("-w", copy).wait() == 0
    report = check(copy, views=True)
    assert (report.problems, report.finished) == ([], {0, 1, 2})


def test_the_script_that_copies_a_farm_from_a_burst_buffer_completes_the_list(tmp_path: Path) -> None:
    page = (TOP / "docs" / "clusters.md").read_text(encoding="utf-8")
    script = page.partition("```bash\n")[2].partition("```")[0]
    program = tmp_path / "bin" / "pytaskfarmer.py"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\nexec {sys.executable} {TOP}/pytaskfarmer.py "$@"\n')
    program.chmod(0o755)
    (tmp_path / "tasklist.txt").write_text("true\n: > begun; [ -e go ] || exec sleep 1000\ntrue\n")
    buffer = tmp_path / "buffer"
    variables = {**os.environ, "BUFFER": str(buffer), "PATH": f"{program.parent}:{os.environ['PATH']}"}
    for expected in (75, 0):
        buffer.mkdir()
        if (tmp_path / "farm").exists():
            subprocess.run(["cp", "-a", tmp_path / "farm", buffer], check=True)
        job = subprocess.Popen(["bash", "-c", script], cwd=tmp_path, env=variables, stderr=subprocess.PIPE)
        if expected:
            eventually((tmp_path / "begun").exists, "the task runs")
            send(job.pid, signal.SIGUSR1)
        said = job.communicate(timeout=60)[1]
        assert job.returncode == expected, said
        report = check(tmp_path / "farm", views=True)
        assert report.problems == []
        buffer.rename(tmp_path / f"emptied-{expected}")
        (tmp_path / "go").touch()
    assert report.finished == {0, 1, 2}
