"""Entry points of the two commands.

A stop signal that arrives before `hold` would kill the interpreter. So this module imports little, and imports the
command line after `hold`.
"""

from __future__ import annotations

import gc
import os
import sys

from taskfarmer import __version__, signals

_GC_THRESHOLD = 100_000
"""New objects that trigger a garbage collection. With the default, imports alone trigger many, which find nothing."""


def pytaskfarmer() -> None:
    """`pytaskfarmer.py TASKLIST`: run a task list."""
    signals.hold()
    _start("pytaskfarmer.py")


def taskfarmer() -> None:
    """`taskfarmer VERB`: run a task list or manage its farm."""
    signals.hold()
    _start("taskfarmer")


def _start(program: str) -> None:
    if sys.argv[1:] == ["--version"] and _print_version():
        return
    gc.set_threshold(_GC_THRESHOLD)
    try:
        from taskfarmer.cli import main

        status = main(program, sys.argv[1:])
    except Exception as error:  # `main` handles all, unless a package is missing or too old
        status = _print_import_error(program, error)
    gc.freeze()  # skips the last collection at exit, a tenth of the run time of a short list
    sys.exit(status)


def _print_import_error(program: str, error: Exception) -> int:
    """Print one line about a command line that cannot be imported, and return the exit status."""
    from taskfarmer.dependencies import outdated

    status, line = 2, outdated()
    if line is None and isinstance(error, ModuleNotFoundError):
        # a checkout that is run by its path, with a Python that lacks a dependency
        line = f"{sys.executable} has no module {error.name}; install it with pip"
    elif line is None:
        status = 74 if isinstance(error, OSError) else 70
        line = f"cannot start: {type(error).__name__}: {error}"
    sys.stderr.write(f"{program}: error: {' '.join(line.split())}\n")
    return status


def _print_version() -> bool:
    """Print the version without importing click. False if stdout fails; the command line then reports the error."""
    try:
        os.write(1, f"taskfarmer {__version__}\n".encode())
    except OSError:
        return False
    return True
