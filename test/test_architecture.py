"""The rules of the architecture: imports between packages, calls that are allowed, length of modules.

The table `WINGS` is the one in docs/architecture.md; a test compares the two.
"""

from __future__ import annotations

import ast
import os
import re
import statistics
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

HERE = Path(__file__).resolve().parent.parent
PACKAGE = HERE / "taskfarmer"

WINGS = {
    "base": "errors dependencies cpus signals options procfs protocol proctree",
    "formats": "formats",
    "storage": "storage",
    "records": "peers ledger farm",
    "extension points": "views runners tasks config task atlas",
    "work": "intake worker pool launch farmer",
    "reading": "inspect doctor",
    "people": "ui cli",
    "top": "start __main__",
}
"""The packages and modules of each wing, in the order of import: each imports only from those before it."""
ORDER = {name: place for place, name in enumerate(" ".join(WINGS.values()).split())}

LONGEST_MODULE = 400
LONGEST_MEDIAN = 150
LONGEST_FUNCTION = 60

ONLY_IN = {
    "filelock": ("storage",),
    "pydantic": ("config",),
    "rich": ("ui",),
    "click": ("ui", "cli", "start"),
}
"""The packages that may import each third-party library."""

PURE = (
    "ledger/state.py",
    "farmer/pacing.py",
    "formats/intervals.py",
    "formats/tasks.py",
    "formats/results.py",
    "formats/timeline.py",
)
IMPURE_MODULES = {"os", "time", "random", "io", "pathlib", "socket", "subprocess", "secrets", "tempfile", "shutil"}


def modules() -> list[Path]:
    return sorted(PACKAGE.rglob("*.py"))


def name_of(path: Path) -> str:
    return path.relative_to(PACKAGE).as_posix()


def room_of(path: Path) -> str:
    first = path.relative_to(PACKAGE).parts[0]
    return first.removesuffix(".py")


@cache
def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), str(path))


def imported(path: Path, everywhere: bool = True) -> Iterator[tuple[str, int]]:
    """Every module that a file imports, as `taskfarmer.a.b`, and the line."""
    nodes = ast.walk(tree(path)) if everywhere else iter(tree(path).body)
    for node in nodes:
        if isinstance(node, ast.Import):
            yield from ((alias.name, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{name_of(path)}:{node.lineno}: imports are absolute here"
            for alias in node.names:
                # `from taskfarmer import procfs` names a module, `from taskfarmer.options import Exit` does not
                full = f"{node.module}.{alias.name}"
                yield (full if node.module == "taskfarmer" else str(node.module)), node.lineno


def calls(path: Path) -> Iterator[tuple[str, int]]:
    """Every `name(...)` and `module.name(...)` that a file calls."""
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Call):
            if isinstance(node.func, ast.Name):
                yield node.func.id, node.lineno
            elif isinstance(node.func, ast.Attribute) and isinstance(node.func.value, ast.Name):
                yield f"{node.func.value.id}.{node.func.attr}", node.lineno


@pytest.mark.parametrize("path", modules(), ids=name_of)
def test_a_module_imports_only_from_packages_before_its_own(path: Path) -> None:
    room = room_of(path)
    if room == "__init__":
        assert not [name for name, _ in imported(path) if name.startswith("taskfarmer")]
        return
    assert room in ORDER, f"{room} is in no wing: add it here and to docs/architecture.md"
    for name, line in imported(path):
        parts = name.split(".")
        if parts[0] != "taskfarmer" or parts[1:2] in ([], [room], ["__version__"]):
            continue
        other = parts[1]
        assert ORDER[other] < ORDER[room], f"{name_of(path)}:{line}: {room} may not import {other}"


def dotted_name(path: Path) -> str:
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(("taskfarmer", *parts)).removesuffix(".__init__")


def test_no_modules_import_each_other_in_a_circle() -> None:
    """Imports inside functions and behind `TYPE_CHECKING` count, too."""
    paths = {dotted_name(path): path for path in modules()}
    graph: dict[str, set[str]] = {}
    for name, path in paths.items():
        graph[name] = set()
        for node in ast.walk(tree(path)):
            if isinstance(node, ast.Import):
                graph[name].update(alias.name for alias in node.names if alias.name in paths)
            elif isinstance(node, ast.ImportFrom):
                for alias in node.names:
                    full = f"{node.module}.{alias.name}"
                    graph[name].update({full, str(node.module)} & paths.keys() if full not in paths else {full})
    done: set[str] = set()

    def visit(name: str, trail: tuple[str, ...]) -> None:
        assert name not in trail, " -> ".join((*trail[trail.index(name) :], name))
        if name not in done:
            for other in sorted(graph[name] - {name}):
                visit(other, (*trail, name))
            done.add(name)

    for name in sorted(graph):
        visit(name, ())


def test_each_class_name_is_defined_once() -> None:
    where: dict[str, list[str]] = {}
    for path in modules():
        for node in ast.walk(tree(path)):
            if isinstance(node, ast.ClassDef):
                where.setdefault(node.name, []).append(f"{name_of(path)}:{node.lineno}")
    assert {name: places for name, places in where.items() if len(places) > 1} == {}


def test_the_table_in_the_documentation_is_the_enforced_one() -> None:
    text = (HERE / "docs" / "architecture.md").read_text(encoding="utf-8")
    written = {}
    for wing, rooms in re.findall(r"^\| ([a-z ]+) \| (`[^|]+) \|", text, re.MULTILINE):
        found = re.findall(r"`([a-z_]+)(\.py|/)`", rooms)
        assert all((PACKAGE / f"{room}{ending}").exists() for room, ending in found), found
        written[wing] = " ".join(room for room, _ in found)
    assert written == WINGS


def test_no_package_is_missing_from_the_table() -> None:
    assert {room_of(path) for path in modules()} - {"__init__"} == set(ORDER)


@pytest.mark.parametrize(("package", "rooms"), ONLY_IN.items(), ids=ONLY_IN)
def test_a_dependency_is_imported_only_in_its_package(package: str, rooms: tuple[str, ...]) -> None:
    importers = {room_of(path) for path in modules() for name, _ in imported(path) if name.split(".")[0] == package}
    assert importers <= set(rooms)


@pytest.mark.parametrize("call", ["os.fsync", "os.fdatasync", "os.sync", "os.link"])
def test_only_storage_durable_syncs_and_links(call: str) -> None:
    assert {name_of(path) for path in modules() for name, _ in calls(path) if name == call} <= {"storage/durable.py"}


@pytest.mark.parametrize("call", ["os.kill", "os.killpg", "signal.pidfd_send_signal"])
def test_only_proctree_sends_signals(call: str) -> None:
    asking = {"procfs.py", "worker/output/scratch.py"}  # signal 0: whether a process exists
    assert {name_of(path) for path in modules() for name, _ in calls(path) if name == call} <= {"proctree.py"} | asking


def test_only_the_command_line_prints_and_exits() -> None:
    talkers = {
        (name_of(path), line)
        for path in modules()
        for name, line in calls(path)
        if name in ("print", "sys.exit", "exit", "quit", "input")
        and room_of(path) not in ("ui", "cli", "start", "__main__")
    }
    assert talkers == set()


@pytest.mark.parametrize("name", PURE)
def test_a_pure_module_uses_neither_the_system_nor_clocks_nor_randomness(name: str) -> None:
    found = {module.split(".")[0] for module, _ in imported(PACKAGE / name)}
    assert not found & IMPURE_MODULES


def test_no_module_reads_the_environment_when_it_is_imported() -> None:
    for path in modules():
        for node in tree(path).body:
            if not isinstance(node, ast.FunctionDef | ast.ClassDef | ast.AsyncFunctionDef):
                read = [one for one in ast.walk(node) if isinstance(one, ast.Attribute) and "environ" in one.attr]
                assert not read, f"{name_of(path)}:{node.lineno}"


def test_no_module_is_a_collection_of_helpers() -> None:
    names = {path.stem for path in modules()}
    assert not names & {"utils", "util", "helpers", "helper", "common", "misc", "manager"}


def test_init_files_only_reexport_names() -> None:
    for path in modules():
        if path.name == "__init__.py" and path.parent != PACKAGE:
            kinds = {type(node) for node in tree(path).body}
            assert kinds <= {ast.Expr, ast.ImportFrom, ast.Assign}, name_of(path)


def test_modules_are_short() -> None:
    sizes = {name_of(path): len(path.read_text(encoding="utf-8").splitlines()) for path in modules()}
    assert {name: size for name, size in sizes.items() if size > LONGEST_MODULE} == {}
    whole = [size for name, size in sizes.items() if not name.endswith("__init__.py")]
    assert statistics.median(whole) <= LONGEST_MEDIAN


def test_functions_fit_on_a_screen() -> None:
    long = {
        f"{name_of(path)}:{node.lineno} {node.name}": node.end_lineno - node.lineno + 1
        for path in modules()
        for node in ast.walk(tree(path))
        if isinstance(node, ast.FunctionDef)
        and node.end_lineno is not None
        and node.end_lineno - node.lineno + 1 > LONGEST_FUNCTION
    }
    assert long == {}


@pytest.mark.parametrize("path", modules(), ids=name_of)
def test_every_module_has_a_docstring(path: Path) -> None:
    assert ast.get_docstring(tree(path))


LATE = {"taskfarmer.config", "taskfarmer.dependencies", "importlib.metadata", "shutil"}
"""Modules that a function may import: for INI files, for errors, for plug-ins, and for temporary directories."""


def test_only_verbs_and_extras_import_modules_inside_functions() -> None:
    found = {
        (name_of(path), name)
        for path in modules()
        if room_of(path) not in ("cli", "ui", "start")
        for node in ast.walk(tree(path))
        if isinstance(node, ast.FunctionDef)
        for inner in ast.walk(node)
        if isinstance(inner, ast.Import | ast.ImportFrom)
        for name in ([inner.module] if isinstance(inner, ast.ImportFrom) else [alias.name for alias in inner.names])
        if name not in LATE
    }
    assert found == set()


# --- which modules a command loads -------------------------------------------------------------------

NEVER = {"asyncio", "importlib.metadata", "pydantic", "rich"}
REPORT = """
import atexit, os, sys
main = os.getpid()
def tell():
    if os.getpid() == main:
        with open(os.environ["LOADED"], "w") as file:
            file.write("\\n".join(sys.modules))
atexit.register(tell)
from taskfarmer.start import pytaskfarmer
pytaskfarmer()
"""


def loaded(folder: Path, *arguments: str) -> set[str]:
    """The modules that the command has loaded when it exits."""
    report = folder / "loaded"
    subprocess.run(
        [sys.executable, "-c", REPORT, *arguments],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(HERE), "LOADED": str(report)},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        check=True,
        timeout=60,
    )
    return set(report.read_text(encoding="utf-8").split())


def test_version_loads_neither_the_farmer_nor_its_dependencies(tmp_path: Path) -> None:
    found = loaded(tmp_path, "--version")
    assert found & (NEVER | {"filelock", "multiprocessing", "taskfarmer.farmer", "taskfarmer.ledger"}) == set()


def test_a_run_off_a_terminal_loads_only_what_it_needs(tmp_path: Path) -> None:
    (tmp_path / "list").write_text("true\n", encoding="ascii")
    found = loaded(tmp_path, "list")
    assert found & (NEVER | {"configparser", "taskfarmer.config", "taskfarmer.inspect.status"}) == set()
    assert "taskfarmer.farmer" in found


# --- linters and type checker ------------------------------------------------------------------------


@pytest.mark.parametrize(
    "command",
    [("ruff", "check", "."), ("ruff", "format", "--check", "."), ("mypy",)],
    ids=["ruff check", "ruff format", "mypy --strict"],
)
def test_the_tools_find_no_errors(command: tuple[str, ...]) -> None:
    done = subprocess.run([sys.executable, "-m", *command], cwd=HERE, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
