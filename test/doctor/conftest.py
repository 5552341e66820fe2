from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from farming import need

HERE = Path(__file__).parent
sys.path += [str(HERE.parent / "storm"), str(HERE.parent / "farm")]

from glusterfs import Volume, glusterfs  # noqa: E402
from test_stuck_processes import hung  # noqa: E402

__all__ = ["hung"]


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """An empty directory to be examined."""
    path = tmp_path / "directory"
    path.mkdir()
    return path


@pytest.fixture(scope="session")
def shim(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A library that makes calls misbehave according to DOCTOR_SHIM."""
    need(shutil.which("cc"), "no C compiler is installed")
    library = tmp_path_factory.mktemp("shim") / "shim.so"
    subprocess.run(["cc", "-shared", "-fPIC", "-o", str(library), str(HERE / "shim.c"), "-ldl"], check=True)
    return str(library)


@pytest.fixture(scope="session")
def volume(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Volume]:
    """A GlusterFS volume with two mounts."""
    with glusterfs(tmp_path_factory.mktemp("gluster")) as volume:
        yield volume
