"""Our own modules are found quickly, and are what Python would have found."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from importlib.machinery import PathFinder
from pathlib import Path

import pytest

import taskfarmer
from taskfarmer.loader import Finder

PACKAGE = Path(taskfarmer.__file__).parent
NAMES = sorted(
    ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts).removesuffix(".__init__")
    for path in PACKAGE.rglob("*.py")
)[1:]
TELL = """
from taskfarmer import loader
loader.install()
import taskfarmer.said
print(taskfarmer.said.WORD, type(taskfarmer.said.__loader__).__name__)
"""


@pytest.mark.parametrize("name", NAMES)
def test_a_module_is_found_where_python_finds_it(name: str) -> None:
    path = [str(PACKAGE.joinpath(*name.split(".")[1:-1]))]
    ours, theirs = Finder().find_spec(name, path), PathFinder.find_spec(name, path)
    assert ours is not None and theirs is not None
    for what in ("name", "origin", "cached", "has_location", "parent", "submodule_search_locations"):
        assert getattr(ours, what) == getattr(theirs, what), what


@pytest.mark.parametrize("name", ["taskfarmer.no_such_module", "taskfarmer", "json.decoder", "taskfarmers.model"])
def test_what_is_not_ours_or_not_there_is_left_to_python(name: str) -> None:
    assert Finder().find_spec(name, [str(PACKAGE)]) is None


def told(folder: Path) -> str:
    command = [sys.executable, "-c", TELL]
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=60)
    return done.stdout.strip() or done.stderr.strip().splitlines()[-1]


def test_a_source_that_has_changed_since_it_was_compiled_counts(tmp_path: Path) -> None:
    package = tmp_path / "taskfarmer"
    package.mkdir()
    (package / "__init__.py").touch()
    shutil.copy(PACKAGE / "loader.py", package)
    assert told(tmp_path) == "ModuleNotFoundError: No module named 'taskfarmer.said'"
    (package / "said.py").write_text("WORD = 'first'\n")
    assert told(tmp_path) == "first Loader"
    (compiled,) = (package / "__pycache__").glob("said.*.pyc")
    (package / "said.py").write_text("WORD = 'another'\n")
    assert told(tmp_path) == "another Loader"
    assert b"another" in compiled.read_bytes()
    compiled.write_bytes(b"nothing of Python's")
    assert told(tmp_path) == "another Loader"
