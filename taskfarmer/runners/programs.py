"""Finds programs on PATH and caches their paths, like the `hash` of a shell."""

from __future__ import annotations

import os


class Programs:
    """Finds programs on PATH. Paths are cached until PATH changes; a program that was not found is searched again."""

    def __init__(self) -> None:
        self._path: str | None = None
        self._found: dict[str, str] = {}

    def find(self, name: str) -> str | None:
        """Return the path of the program that bash would start for `name`; None if only bash can decide."""
        path = os.environ.get("PATH")
        if path != self._path:
            self._path = path
            self._found.clear()
        found = self._found.get(name)
        if found is None:
            found = None if is_function(name) else _search(name, path)
            if found is not None:
                self._found[name] = found
        return found

    def forget(self) -> None:
        """Clear the cache, because a program in it no longer exists."""
        self._found.clear()


def is_function(name: str) -> bool:
    """Whether the environment has an exported bash function of that name. Functions take precedence over programs."""
    # Red Hat patched bash 4.2 in 2014 to use the second form.
    return f"BASH_FUNC_{name}%%" in os.environ or f"BASH_FUNC_{name}()" in os.environ


def _search(name: str, path: str | None) -> str | None:
    if "/" in name:
        return name
    if path is None:  # then bash uses its built-in default
        return None
    for folder in path.split(":"):
        if folder.startswith("~"):  # only bash expands a tilde in PATH
            return None
        candidate = f"{folder or '.'}/{name}"
        if os.path.isfile(candidate) and os.access(candidate, os.X_OK):
            return candidate
    return None
