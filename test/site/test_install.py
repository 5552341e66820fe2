"""`docs/install.md` and `packaging/`: the commands of the page work as described, and all versions are up to date."""

from __future__ import annotations

import ast
import json
import os
import re
import shutil
import struct
import subprocess
import sys
from collections.abc import Sequence
from importlib.metadata import requires
from pathlib import Path

import pytest

import taskfarmer
from support.farming import need
from support.users import VICTIM, variables, words_as

TOP = Path(__file__).parents[2]
PACKAGING = TOP / "packaging"
PAGE = (TOP / "docs" / "install.md").read_text(encoding="utf-8")
PROJECT = (TOP / "pyproject.toml").read_text(encoding="utf-8")
SUMMARY = re.search(r'^description = "(.*)"', PROJECT, re.MULTILINE)[1]  # type: ignore[index]
PYTHON = re.search(r'^requires-python = ">=(.*)"', PROJECT, re.MULTILINE)[1]  # type: ignore[index]
NEEDS = dict(re.findall(r'"([a-z]+)>=([\d.]+)"', re.search(r"^dependencies = (.*)", PROJECT, re.MULTILINE)[1]))  # type: ignore[index]
INSTALL = " install --no-compile .\n"
UNCHECKED = 0b01
"""PEP 552: the flags of a compiled file whose source is never checked."""


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)


# --- a release ---------------------------------------------------------------------------------------


def installed(name: str, found: set[str]) -> None:
    """Add a distribution and its dependencies, as far as they are installed here."""
    try:
        needed = requires(name) or []
    except ImportError:
        return
    found.add(name)
    for one in needed:
        other = re.match(r"[\w.-]+", one)
        if "extra ==" not in one and other and other[0] not in found:
            installed(other[0], found)


def build_wheel(folder: Path) -> Path:
    """A wheel of this checkout; built without network access if hatchling is installed."""
    done = subprocess.run([sys.executable, "-c", "import hatchling.build"], capture_output=True, check=False)
    isolation = {"PIP_NO_BUILD_ISOLATION": "0"} if not done.returncode else {}  # pip reads it as --no-build-isolation
    building = ["wheel", "-q", "--no-deps", "--no-cache-dir", "-w", str(folder), str(TOP)]
    built = subprocess.run(
        [sys.executable, "-m", "pip", *building], env={**os.environ, **isolation}, capture_output=True, text=True
    )
    need(not built.returncode, f"hatchling is not here and cannot be fetched: {built.stderr.strip()[-200:]}")
    (wheel,) = folder.glob("*.whl")
    return wheel


def test_a_release_is_installed_by_the_commands_of_the_page_and_run_by_another_user(
    place: Path, options: Sequence[str]
) -> None:
    """Files that pip would download are copied from here; the other steps run unchanged."""
    wheel = build_wheel(place)
    script = blocks("bash")[0]
    release = place / "1.0.0"
    assert "release=/sw/taskfarmer/1.0.0\n" in script
    assert script.count(INSTALL) == 1
    before, install, after = script.replace("/sw/taskfarmer/1.0.0", str(release)).partition(INSTALL)
    fetch = f'cp -r {place}/fetched/. "$release"/lib/python3*/site-packages/\n'
    script = before + install.replace(" .\n", f" {wheel}\n") + fetch + blocks("bash")[1] + after
    fetched = place / "fetched"
    needed: set[str] = set()
    for name in NEEDS:
        installed(name, needed)
    for name in needed:
        copy_distribution(name, fetched)
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    environment |= {"PIP_NO_INDEX": "1", "PIP_NO_DEPS": "1"}
    environment |= {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    made = subprocess.run(
        ["bash", "-euc", script], cwd=TOP, env=environment, capture_output=True, text=True, umask=0o077, timeout=120
    )
    assert made.returncode == 0, made.stderr

    (package,) = release.glob("lib/python3*/site-packages/taskfarmer")
    sources = list(package.rglob("*.py"))
    assert len(sources) > 50
    for source in sources:
        (compiled,) = (source.parent / "__pycache__").glob(f"{source.stem}.*.pyc")
        assert struct.unpack("<I", compiled.read_bytes()[4:8])[0] == UNCHECKED
    found = {path: path.lstat() for path in release.rglob("*")}
    assert [str(path) for path, one in found.items() if one.st_mode & 0o222 and not path.is_symlink()] == []
    assert [str(path) for path, one in found.items() if not one.st_mode & 0o004] == []
    assert sorted(path.name for path in (release / "commands").iterdir()) == ["pytaskfarmer.py", "taskfarmer"]

    home = place / "home"
    home.mkdir()
    os.chown(home, VICTIM, VICTIM)
    theirs = variables(home, PATH=f"{release}/commands:/usr/bin:/bin", PYTHONVERBOSE="1")
    del theirs["PYTHONPATH"], theirs["PYTHONDONTWRITEBYTECODE"]
    shutil.copy(TOP / "examples" / "hello.txt", home)
    words = [*words_as(), "pytaskfarmer.py", str(home / "hello.txt")]
    done = subprocess.run(words, cwd=home, env=theirs, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr[-2000:]
    loaded = set(re.findall(rf"^# code object from '?({re.escape(str(package))}[^'\n]*)", done.stderr, re.MULTILINE))
    assert len(loaded) > 30, "it is the release that ran"
    assert {path for path in loaded if not path.endswith(".pyc")} == set(), "nothing was compiled"
    assert {path: path.lstat().st_mtime_ns for path in release.rglob("*")} == {
        path: one.st_mtime_ns for path, one in found.items()
    }


def copy_distribution(name: str, target: Path) -> None:
    from importlib.metadata import files

    for path in files(name) or []:
        source = Path(str(path.locate()))
        if ".." not in path.parts and path.suffix != ".pyc" and source.is_file():
            (target / path).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(source, target / path)


# --- packaging ---------------------------------------------------------------------------------------


def newer(text: str) -> tuple[int, ...]:
    return tuple(map(int, text.split(".")))


def test_the_module_file_in_tcl_offers_the_commands_of_the_release_of_its_name() -> None:
    need(shutil.which("tclsh"), "tclsh (tcl) is not installed")
    stubs = """
        proc module-info {what} { return taskfarmer/9.8.7 }
        foreach name {module-whatis conflict prepend-path} { proc $name args "puts \\"$name \\$args\\"" }
        source [lindex $argv 0]
        ModulesHelp
    """
    path = PACKAGING / "modulefile" / "taskfarmer.tcl"
    assert path.read_text().startswith("#%Module\n")
    done = subprocess.run(["tclsh", "/dev/stdin", path], input=stubs, capture_output=True, text=True, timeout=20)
    assert done.returncode == 0, done.stderr
    assert "prepend-path PATH /sw/taskfarmer/9.8.7/commands" in done.stdout.splitlines()
    assert SUMMARY in done.stdout
    assert "pytaskfarmer.py --help" in done.stderr


def test_the_module_file_in_lua_offers_them_too() -> None:
    lua = next(filter(shutil.which, ("lua", "lua5.4", "lua5.3")), None)
    need(lua, "lua (lua5.4) is not installed")
    assert lua is not None
    stubs = """
        for _, name in ipairs { "help", "whatis", "conflict", "prepend_path" } do
            _G[name] = function(...) print(name, ...) end
        end
        function myModuleVersion() return "9.8.7" end
        function pathJoin(...) return table.concat({ ... }, "/") end
        dofile(arg[1])
    """
    path = PACKAGING / "modulefile" / "taskfarmer.lua"
    done = subprocess.run([lua, "-", path], input=stubs, capture_output=True, text=True, timeout=20)
    assert done.returncode == 0, done.stderr
    assert "prepend_path\tPATH\t/sw/taskfarmer/9.8.7/commands" in done.stdout.splitlines()
    assert SUMMARY in done.stdout


def test_the_conda_recipe_has_the_versions_and_commands_of_the_project() -> None:
    load = "import json, sys, yaml; json.dump(yaml.safe_load(sys.stdin), sys.stdout)"
    pythons = [sys.executable, "/usr/bin/python3"]
    text = (PACKAGING / "conda" / "recipe.yaml").read_text()
    tried = [subprocess.run([one, "-c", load], input=text, capture_output=True, text=True) for one in pythons]
    read = next((one.stdout for one in tried if not one.returncode), None)
    need(read, "no Python here has yaml (python3-yaml)")
    recipe = json.loads(str(read))
    assert recipe["context"] == {"version": taskfarmer.__version__, "python_min": PYTHON}
    assert recipe["requirements"]["run"] == [
        "python >=${{ python_min }}",
        *(f"{name} >={version}" for name, version in NEEDS.items()),
    ]
    scripts = re.findall(r'^"?([\w.]+)"? = "(taskfarmer\.start:\w+)"', PROJECT, re.MULTILINE)
    assert recipe["build"]["python"]["entry_points"] == [f"{name} = {where}" for name, where in scripts]
    assert recipe["about"]["summary"] == SUMMARY
    assert (PACKAGING / "conda" / recipe["source"]["path"]).resolve() == TOP


def test_the_spack_recipe_has_the_versions_of_the_project() -> None:
    path = PACKAGING / "spack" / "package.py"
    tree = ast.parse(path.read_text())
    compile(tree, str(path), "exec")
    (recipe,) = (one for one in tree.body if isinstance(one, ast.ClassDef))
    calls = [one.value for one in recipe.body if isinstance(one, ast.Expr) and isinstance(one.value, ast.Call)]
    said = [(ast.unparse(call.func), ast.literal_eval(call.args[0])) for call in calls]
    assert [what for name, what in said if name == "version"] == [taskfarmer.__version__]
    needed = [f"python@{PYTHON}:", "py-hatchling", *(f"py-{name}@{version}:" for name, version in NEEDS.items())]
    assert [what for name, what in said if name == "depends_on"] == needed
    assert ast.get_docstring(recipe) == SUMMARY


def test_the_image_has_a_python_that_the_project_supports() -> None:
    text = (PACKAGING / "Containerfile").read_text()
    versions = re.findall(r"^FROM docker\.io/library/python:([\d.]+)-slim", text, re.MULTILINE)
    assert len(versions) == 2
    assert len(set(versions)) == 1, "what was installed for one does not run with another"
    assert newer(versions[0]) >= newer(PYTHON)
    assert set(re.findall(r"/opt/taskfarmer/bin/(\w+)", text)) == {"pip", "python"}


# --- configuration of a site -------------------------------------------------------------------------


@pytest.mark.parametrize("mode", [0o644, 0o666])
def test_a_runner_of_the_site_is_available_to_all_users(place: Path, options: Sequence[str], mode: int) -> None:
    """With the file of the page in the real `/etc` of a mount namespace; `apptainer` is a stub."""
    need(shutil.which("unshare"), "unshare (util-linux) is not installed")
    etc, program, home = place / "etc", place / "bin" / "apptainer", place / "home"
    (etc / "runners.d").mkdir(parents=True)
    (ini,) = blocks("ini")
    assert ini.startswith("# /etc/pytaskfarmer/runners.d/apptainer.ini\n")
    (etc / "runners.d" / "apptainer.ini").write_text(ini)
    (etc / "runners.d" / "apptainer.ini").chmod(mode)
    program.parent.mkdir()
    program.write_text('#!/bin/sh\necho "in $1 $2"; shift 2; exec "$@"\n')
    program.chmod(0o755)
    shutil.copy(TOP / "examples" / "slurm" / "container.py", program.parent)
    home.mkdir()
    (home / "list").write_text("echo task $PROC_NUMBER\n")
    os.chown(home, VICTIM, VICTIM)
    theirs = variables(home, PATH=f"{program.parent}:{os.environ['PATH']}")
    theirs["PYTHONPATH"] += f":{program.parent}"
    inside = (
        f"cp -a /etc {place}/all && mkdir -p {place}/all/pytaskfarmer && cp -a {etc}/. {place}/all/pytaskfarmer && "
        f'mount --bind {place}/all /etc && exec "$@"'
    )
    command = [*words_as(*options), sys.executable, "-m", "taskfarmer", "run", "-r", "apptainer", str(home / "list")]
    done = subprocess.run(
        ["unshare", "--mount", "sh", "-euc", inside, "sh", *command],
        cwd=home,
        env=theirs,
        capture_output=True,
        text=True,
        timeout=60,
    )
    if mode == 0o644:
        assert done.returncode == 0, done.stderr
        assert (home / "list_workdir" / "logs" / "log_0").read_text() == "in exec docker://debian:12\ntask 0\n"
    else:
        assert done.returncode == 2
        assert "/etc/pytaskfarmer/runners.d/apptainer.ini: ignored because it is world-writable" in done.stderr
