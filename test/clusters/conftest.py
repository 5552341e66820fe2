"""Fixtures: a Slurm and a Grid Engine for the whole session. The classes are in grid_engine.py and slurm_cluster.py."""

from __future__ import annotations

import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parents[1])]

from grid_engine import GridEngine  # noqa: E402
from slurm_cluster import SlurmCluster  # noqa: E402


@contextmanager
def private_folder() -> Iterator[Path]:
    """Below /tmp, because the name of a socket has to be short."""
    folder = Path(tempfile.mkdtemp(prefix="cluster-", dir="/tmp"))
    folder.chmod(0o755)
    try:
        yield folder
    finally:
        shutil.rmtree(folder)


@pytest.fixture(scope="session")
def slurm() -> Iterator[SlurmCluster]:
    """A Slurm with three nodes; if its nodes do not come up it is restarted once."""
    for left in (1, 0):
        with private_folder() as folder:
            cluster = SlurmCluster(folder)
            try:
                try:
                    cluster.start()
                except AssertionError as error:
                    if not left:
                        raise
                    print(error)
                    continue
                yield cluster
                return
            finally:
                cluster.stop()


@pytest.fixture(scope="session")
def grid() -> Iterator[GridEngine]:
    """A Grid Engine with one node."""
    with private_folder() as folder:
        engine = GridEngine(folder)
        try:
            engine.start()
            yield engine
        finally:
            engine.stop()
