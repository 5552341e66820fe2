from __future__ import annotations

import os
import pickle
import sys
from pathlib import Path

import pytest

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parents[1])]

import halfdone  # noqa: E402
from farming import need  # noqa: E402
from halfdone import HalfDone  # noqa: E402


@pytest.fixture(scope="session")
def halves(tmp_path_factory: pytest.TempPathFactory) -> tuple[HalfDone, HalfDone]:
    """Two half-done farms, the second as a source of foreign files; created at the same time, and only read."""
    need(sys.platform == "linux", "permissions are taken from root with Linux capabilities")
    first, second = (tmp_path_factory.mktemp(name) for name in ("half", "other"))
    pid = os.fork()
    if not pid:
        try:
            (second / "half.pickle").write_bytes(pickle.dumps(halfdone.make(second)))
        finally:
            os._exit(0)
    half = halfdone.make(first)
    os.waitpid(pid, 0)
    other = second / "half.pickle"
    assert other.exists(), "the other farm was not made"
    return half, pickle.loads(other.read_bytes())
