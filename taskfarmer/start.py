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
    from taskfarmer import loader

    loader.install()
    try:
        from taskfarmer.cli import main
    except ModuleNotFoundError as error:
        # a checkout that is called by its path, with a Python that has not what it needs
        sys.stderr.write(f"{program}: error: no module {error.name} in {sys.executable}; install it with pip\n")
        sys.exit(2)
    status = main(program, sys.argv[1:])
    gc.freeze()  # or the interpreter looks for garbage in all of it once more, a tenth of the time of a short list
    sys.exit(status)


def _tell_version() -> bool:
    """The answer that needs no command line; False where stdout does not take it, and the command line is to say so."""
    try:
        os.write(1, f"taskfarmer {__version__}\n".encode())
    except OSError:
        return False
    return True
