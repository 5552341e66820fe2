"""Finds packages that are older than required. Used only after an unexpected error.

Module systems of clusters put packages on PYTHONPATH, and Python finds them before ours. The resulting error depends on
the version: a missing name, an unknown argument, a wrong type. So the versions are compared after an error, and not at
each start.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterable, Iterator
from importlib import metadata, util
from typing import NamedTuple

NEEDED = {"click": "8.1", "filelock": "3.30", "pydantic": "2", "rich": "13"}
"""The oldest supported versions, as in pyproject.toml."""

_MODULES = {"markdown-it-py": "markdown_it"}
"""The modules of distributions with other names."""
_REQUIREMENT = re.compile(r"([\w.-]+)\s*\(?([^;()]*)\)?\s*$")
_LEAST = re.compile(r"(>=|==|~=)\s*(\d[\d.]*)(?!\S*\*)")
_VERSION = re.compile(r"^(?:__version__|version|VERSION)\b[^=\n]*=\s*['\"](\d[\w.]*)", re.MULTILINE)


def outdated() -> str | None:
    """One line about the first package that is too old, among ours and their requirements; None if all are recent."""
    try:
        return next(_complaints(), None)
    except Exception:  # packages that are corrupt or half installed: then the original error is reported
        return None


class _Need(NamedTuple):
    """A requirement of `by`, a text for the user. `exact` allows this version only, otherwise newer ones, too."""

    by: str
    name: str
    version: str
    exact: bool = False


def _complaints() -> Iterator[str]:
    asked = [_Need("taskfarmer", name, least) for name, least in NEEDED.items()]
    seen = set()
    while asked:
        need = asked.pop(0)
        place = _place(_MODULES.get(need.name, need.name.replace("-", "_")))
        if need in seen or place is None:
            continue
        seen.add(need)
        found, needs = _found(need.name, place)
        if found is not None:
            have, want = _numbers(found), _numbers(need.version)
            if have < want or (need.exact and have != want):
                yield _line(need, found, os.path.dirname(place))
            by = f"{need.name} {found} in {os.path.dirname(place)}"
            asked += [_Need(by, *one) for one in needs]


def _line(need: _Need, found: str, folder: str) -> str:
    by, name, version, exact = need
    wanted = f"{name} {version}" if exact else f"{name} {version} or newer"
    paths = [path for path in os.environ.get("PYTHONPATH", "").split(os.pathsep) if path]
    advice = f"install it: {sys.executable} -m pip install '{name}{'==' if exact else '>='}{version}'"
    for path in paths:
        if os.path.realpath(path) == os.path.realpath(folder) or f" in {path}" in by:
            advice = f"remove {path} from PYTHONPATH, or unload the module that added it"
    wrong = "is too old" if _numbers(found) < _numbers(version) else "is incompatible"
    return f"{name} {found} in {folder} {wrong}: {by} needs {wanted}; {advice}"


def _place(module: str) -> str | None:
    """The directory or file of a module, as Python finds it; None if the module is missing."""
    try:
        spec = util.find_spec(module)
    except (ImportError, ValueError):  # a module that is half imported
        return None
    if spec is None:
        return None
    return next(iter(spec.submodule_search_locations or ()), spec.origin)


def _found(name: str, place: str) -> tuple[str | None, list[tuple[str, str, bool]]]:
    """The version of a package (None if unknown), and its requirements: name, version, exact."""
    for one in metadata.distributions(name=name, path=[os.path.dirname(place)]):
        return one.version, list(_needs(one.requires or ()))
    files = (os.path.join(place, file) for file in ("version.py", "_version.py", "__init__.py"))
    for path in (place, *files):
        try:
            with open(path, encoding="utf-8", errors="replace") as file:
                match = _VERSION.search(file.read())
        except OSError:
            continue
        if match:
            return match[1], []
    return None, []


def _needs(requires: Iterable[str]) -> Iterator[tuple[str, str, bool]]:
    """Name and version of each requirement, and whether it is exact. Conditional ones are left out."""
    for text in requires:
        match = _REQUIREMENT.match(text)
        least = _LEAST.search(match[2]) if match else None
        if match and least:
            yield match[1], least[2], least[1] == "=="


def _numbers(version: str) -> tuple[int, ...]:
    """The numbers of a version, for comparison, without trailing zeros."""
    match = re.match(r"\d+(?:\.\d+)*", version)
    numbers = [int(part) for part in match[0].split(".")] if match else []
    while numbers and not numbers[-1]:
        numbers.pop()
    return tuple(numbers)
