"""The two commands, as the shell starts them.

Nothing is imported here that takes time: a stop signal that comes before `hold` ends the interpreter, so
the command line, and all that it needs, is imported behind it.
"""

from __future__ import annotations

import gc
import os
import sys

from taskfarmer import __version__, signals

_GARBAGE = 100_000
"""Objects after which Python looks for garbage: what modules are made of is none, and was searched again and again."""


def pytaskfarmer() -> None:
    """`pytaskfarmer.py TASKLIST`: run a task list."""
    signals.hold()
    _start("pytaskfarmer.py")


def taskfarmer() -> None:
    """`taskfarmer VERB`: run a task list, and everything else."""
    signals.hold()
    _start("taskfarmer")


def _start(program: str) -> None:
    if sys.argv[1:] == ["--version"] and _tell_version():
        return
    gc.set_threshold(_GARBAGE)
    try:
        from taskfarmer.cli import main

        status = main(program, sys.argv[1:])
    except Exception as error:  # `main` lets none through, unless it cannot work with the packages that are found
        status = _explain(program, error)
    gc.freeze()  # or the interpreter looks for garbage in all of it once more, a tenth of the time of a short list
    sys.exit(status)


def _explain(program: str, error: Exception) -> int:
    """Say in one line why there is no command line; the exit status."""
    from taskfarmer.dependencies import outdated

    status, line = 2, outdated()
    if line is None and isinstance(error, ModuleNotFoundError):
        # a checkout that is called by its path, with a Python that has not what it needs
        line = f"no module {error.name} in {sys.executable}; install it with pip"
    elif line is None:
        status = 74 if isinstance(error, OSError) else 70
        line = f"taskfarmer cannot be started: {type(error).__name__}: {error}"
    sys.stderr.write(f"{program}: error: {' '.join(line.split())}\n")
    return status


def _tell_version() -> bool:
    """The answer that needs no command line; False where stdout does not take it, and the command line is to say so."""
    try:
        os.write(1, f"taskfarmer {__version__}\n".encode())
    except OSError:
        return False
    return True
