"""The clusters of test/clusters: this imports the fixtures `slurm` and `grid`."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

CLUSTERS = Path(__file__).parents[1] / "clusters"
sys.path[:0] = [str(Path(__file__).parent), str(CLUSTERS), str(CLUSTERS.parent)]

_found = importlib.util.spec_from_file_location("conftest_of_clusters", CLUSTERS / "conftest.py")
assert _found is not None and _found.loader is not None
_module = importlib.util.module_from_spec(_found)
_found.loader.exec_module(_module)
slurm = _module.slurm
grid = _module.grid
