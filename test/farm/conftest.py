"""Fixtures for a user's folder that contains a farm; the classes are in farms.py."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parents[1])]

from farming import need  # noqa: E402
from farms import Farm  # noqa: E402


@pytest.fixture(scope="session")
def as_a_user() -> list[str]:
    """A prefix that runs a program as an ordinary user, because file permissions do not restrict root."""
    if os.getuid():
        return []
    capabilities = "-dac_override,-dac_read_search"
    words = ["setpriv", f"--bounding-set={capabilities}", f"--inh-caps={capabilities}"]
    need(shutil.which("setpriv"), "root ignores permissions, and setpriv is not installed")
    made = subprocess.run([*words, "true"], capture_output=True, text=True)
    need(made.returncode == 0, f"setpriv does not work here: {made.stderr.strip()}")
    return words


@pytest.fixture(scope="session")
def strace() -> list[str]:
    """`strace` without output; skips the test if tracing is not possible."""
    words = ["strace", "-qq", "-o", "/dev/null"]
    need(shutil.which("strace"), "strace is not installed")
    need(subprocess.run([*words, "true"], capture_output=True).returncode == 0, "strace cannot trace here")
    return words


@pytest.fixture
def farm(tmp_path: Path) -> Iterator[Farm]:
    """A folder for a list and its farm; all its processes are killed after the test."""
    one = Farm(tmp_path)
    try:
        yield one
    finally:
        one.close()


@pytest.fixture(scope="module")
def shared_farm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Farm]:
    """One farm for all tests of a file, which only read its results."""
    one = Farm(tmp_path_factory.mktemp("farm"))
    try:
        yield one
    finally:
        one.close()
