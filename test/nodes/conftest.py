from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE.parent), str(HERE.parent / "storm")]

from glusterfs import Volume, glusterfs  # noqa: E402


@pytest.fixture(scope="session")
def volume(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Volume]:
    """A GlusterFS volume with two mounts."""
    with glusterfs(tmp_path_factory.mktemp("gluster")) as volume:
        yield volume
