"""Rules for all job scripts of the examples; they need no cluster."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from support.farming import need
from support.fields import EXAMPLES

SCRIPTS = sorted([*EXAMPLES.glob("slurm/*.sh"), *EXAMPLES.glob("gridengine/*.sh")])
JOBS = [path for path in SCRIPTS if path.name != "checkpoint.sh"]
FARMER = re.compile(r"^(exec )?env --block-signal=USR1(,USR2)? pytaskfarmer\.py .*?(&)?$", re.MULTILINE)


def name(path: Path) -> str:
    return path.relative_to(EXAMPLES).as_posix()


@pytest.mark.parametrize("path", SCRIPTS, ids=name)
def test_shellcheck_accepts_it(path: Path) -> None:
    need(shutil.which("shellcheck"), "shellcheck is not installed")
    done = subprocess.run(["shellcheck", str(path)], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("path", SCRIPTS, ids=name)
def test_it_is_short_and_can_be_executed(path: Path) -> None:
    assert path.stat().st_mode & 0o111 == 0o111
    lines = path.read_text().splitlines()
    assert lines[0] == "#!/bin/bash"
    assert 15 <= len(lines) <= 40


@pytest.mark.parametrize("path", JOBS, ids=name)
def test_it_marks_three_things_to_change_and_the_line_that_matters(path: Path) -> None:
    text = path.read_text()
    assert re.findall(r"\((\d)\)", text)[:3] == ["1", "2", "3"]
    assert re.search(r"^# .*[Ll]ines? that matters?\b", text, re.MULTILINE) or "The next line turns" in text


@pytest.mark.parametrize("path", JOBS, ids=name)
def test_the_farmer_gets_the_signal(path: Path) -> None:
    """The farmer replaces the script, runs in the background with a trap that forwards the signal, or under srun."""
    joined = path.read_text().replace("\\\n", "")
    if "exec srun" in joined:
        assert re.search(r"^#SBATCH --signal=USR1@", joined, re.MULTILINE)
        assert re.search(
            r"^exec srun .*--kill-on-bad-exit=0 .*env --block-signal=USR1 pytaskfarmer", joined, re.MULTILINE
        )
        return
    match = FARMER.search(joined)
    assert match is not None
    assert bool(match[1]) != bool(match[3])
    if match[3]:
        assert re.search(r"^trap .* USR1", joined, re.MULTILINE)
    if path.parent.name == "slurm":
        assert re.search(r"^#SBATCH --signal=B:USR1@", joined, re.MULTILINE)


@pytest.mark.parametrize("path", JOBS, ids=name)
def test_options_of_the_batch_system_precede_all_commands(path: Path) -> None:
    """sbatch stops reading at the first command."""
    lines = path.read_text().splitlines()
    options = [number for number, line in enumerate(lines) if re.match(r"#SBATCH|#\$", line)]
    commands = [number for number, line in enumerate(lines) if line and not line.startswith("#")]
    assert options
    assert max(options) < min(commands)


@pytest.mark.parametrize("system", ["slurm", "gridengine"])
def test_the_table_names_every_script(system: str) -> None:
    text = (EXAMPLES / system / "README.md").read_text()
    table = set(re.findall(r"^\| \[`([\w.]+)`\]", text, re.MULTILINE))
    there = {path.name for path in (EXAMPLES / system).iterdir() if path.suffix in (".sh", ".conf")}
    assert table == there
