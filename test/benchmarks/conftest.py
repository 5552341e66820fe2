"""The benchmarks are not in the package: tests import them from the directory next to it."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parent.parent.parent))
