from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE.parent)]

from farming import need  # noqa: E402


@pytest.fixture(scope="session")
def stops(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The shared object compiled from stops.c."""
    made = tmp_path_factory.mktemp("shim") / "stops.so"
    need(shutil.which("gcc"), "gcc is not installed")
    words = ["gcc", "-Wall", "-Wextra", "-Werror", "-O1", "-shared", "-fPIC", "-o", made, HERE / "stops.c", "-ldl"]
    subprocess.run(words, check=True)
    return made
