"""Where programs are: the search along PATH, remembered as a shell's `hash` does."""

from __future__ import annotations

import os


class Programs:
    """Finds programs on PATH. It remembers what it found for as long as PATH stays the same, and nothing else."""

    def __init__(self) -> None:
        self._path: str | None = None
        self._found: dict[str, str] = {}

    def find(self, name: str) -> str | None:
        """Return the path of the program that bash would start for `name`, or None where only bash can say."""
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
        """Search anew from now on: a program that was found is there no longer."""
        self._found.clear()


def is_function(name: str) -> bool:
    """Say whether bash finds an exported function of that name in the environment: functions precede programs."""
    # The second form is that of bash 4.2 as patched by Red Hat in 2014.
    return f"BASH_FUNC_{name}%%" in os.environ or f"BASH_FUNC_{name}()" in os.environ


def _search(name: str, path: str | None) -> str | None:
    if "/" in name:
        return name
    if path is None:  # bash has a default of its own then
        return None
    for folder in path.split(":"):
        if folder.startswith("~"):  # bash, and nobody else, expands it here
            return None
        candidate = f"{folder or '.'}/{name}"
        if os.path.isfile(candidate) and os.access(candidate, os.X_OK):
            return candidate
    return None
