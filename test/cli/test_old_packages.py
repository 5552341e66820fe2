"""If PYTHONPATH contains an old package, as from modules of a cluster, the error is one line, without checks before."""

from __future__ import annotations

import os
import pty
import re
import subprocess
import sys

import pytest

from support.house import PROGRAMS, TOP, Done, House
from taskfarmer.dependencies import NEEDED

EMPTY = "__version__ = '0.9'\n"
OLD_LOCK = """
__version__ = "0.9"


class Timeout(Exception):
    pass


class UnixFileLock:
    def __init__(self, lock_file, timeout=-1, mode=0o644, thread_local=True):
        self.descriptor = None

    def __del__(self):
        assert self.descriptor is None
"""
"""It refuses an argument, and its half-initialized object prints a traceback on deletion, like filelock 3.12."""


def site(house: House, name: str, text: str, version: str | None = None) -> dict[str, str]:
    """The environment with an old package on PYTHONPATH. With `version` it has metadata that contains the version."""
    folder = house.folder / "site"
    (folder / name).mkdir(parents=True)
    (folder / name / "__init__.py").write_text(text)
    if version is not None:
        (folder / f"{name}-{version}.dist-info").mkdir()
        metadata = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
        (folder / f"{name}-{version}.dist-info" / "METADATA").write_text(metadata)
    return {"PYTHONPATH": f"{folder}:{TOP}"}


def assert_names(done: Done, name: str, version: str, needed: str) -> None:
    assert done.status == 2, done.stderr
    line = done.error_line
    assert f"{name} {version} in {done.list.parent / 'site'} is too old" in line
    assert f"needs {name} {needed} or newer" in line
    assert f"remove {done.list.parent / 'site'} from PYTHONPATH" in line


@pytest.mark.parametrize("version", [None, "0.9.1"])
@pytest.mark.parametrize("name", ["click", "filelock", "pydantic"])
def test_an_old_package_is_named_with_its_version_its_path_and_the_required_version(
    house: House, name: str, version: str | None
) -> None:
    house.write("echo one\n")
    (house.folder / "x.ini").write_text("[x]\nRunner = taskfarmer.runners.BasicRunner\n")
    environ = site(house, name, EMPTY, version)
    done = house.command("pytaskfarmer.py", "list.txt", "-q", "-r", "x", environ=environ)
    assert_names(done, name, version or "0.9", NEEDED[name])


def test_a_lock_that_refuses_an_argument_prints_no_traceback(house: House) -> None:
    house.write("echo one\n")
    done = house.command("pytaskfarmer.py", "list.txt", "-q", environ=site(house, "filelock", OLD_LOCK, "3.12.0"))
    assert_names(done, "filelock", "3.12.0", NEEDED["filelock"])


def test_an_old_package_that_only_tables_need_is_named_when_a_table_is_printed(house: House) -> None:
    house.write("false\n")
    assert house.command("pytaskfarmer.py", "list.txt", "-q").status == 1
    environ = site(house, "rich", EMPTY, "9.0.0")
    assert house.command("taskfarmer", "status", "list.txt_workdir", environ=environ).status == 0
    ours, theirs = pty.openpty()
    done = subprocess.run(
        [*PROGRAMS["taskfarmer"], "status", "list.txt_workdir"],
        cwd=house.folder,
        env={**house.environ, **environ},
        stdout=theirs,
        stderr=subprocess.PIPE,
        timeout=120,
    )
    os.close(ours)
    os.close(theirs)
    shown = Done(done.returncode, b"", done.stderr.decode(), house.list, house.workdir)
    assert_names(shown, "rich", "9.0.0", NEEDED["rich"])


def test_an_indirect_dependency_is_named_too(house: House) -> None:
    house.write("echo one\n")
    (house.folder / "x.ini").write_text("[x]\nRunner = taskfarmer.runners.BasicRunner\n")
    environ = site(house, "typing_extensions", EMPTY, "4.0.0")
    done = house.command("pytaskfarmer.py", "list.txt", "-q", "-r", "x", environ=environ)
    assert done.status == 2
    assert re.search(
        r"typing-extensions 4\.0\.0 in \S+/site is too old: pydantic[-_]?\S* \S+ in \S+ needs", done.error_line
    )


def test_a_bug_is_reported_as_a_bug_if_the_packages_are_recent(house: House) -> None:
    code = "import taskfarmer.cli.status as s; s.open_farm = None; from taskfarmer.cli import main; import sys; "
    done = house.process([sys.executable, "-c", code + "sys.exit(main('taskfarmer', ['status', 'x']))"])
    assert done.status == 70
    assert "internal error: TypeError" in done.error_line and "please report it" in done.error_line


def test_no_version_is_checked_if_nothing_fails(house: House) -> None:
    house.write("echo one\n")
    program = [sys.executable, "-X", "importtime", str(TOP / "pytaskfarmer.py")]
    done = house.process([*program, "list.txt", "-q"])
    assert done.status == 0, done.stderr
    assert "taskfarmer.start" in done.stderr
    assert "taskfarmer.dependencies" not in done.stderr and "importlib.metadata" not in done.stderr


def test_the_required_versions_are_those_of_the_package_metadata() -> None:
    text = (TOP / "pyproject.toml").read_text()
    listed = re.search(r"^dependencies = \[(.*)\]$", text, re.MULTILINE)
    assert listed is not None
    assert listed[1] == ", ".join(f'"{name}>={version}"' for name, version in NEEDED.items())
