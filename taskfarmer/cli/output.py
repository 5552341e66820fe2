"""What goes to stdout: bytes as they are, for pipes and files."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterable

import click

BLOCK = 1 << 16


def put(data: bytes | str) -> None:
    """Write to stdout now. Where nobody reads any more (`| head`), the command is done, and well."""
    if isinstance(data, str):
        data = data.encode(sys.stdout.encoding or "utf-8", "backslashreplace")
    try:
        view = memoryview(data)
        while view:
            view = view[os.write(1, view) :]
    except BrokenPipeError:
        raise click.exceptions.Exit(0) from None
    except OSError as error:
        error.filename = error.filename or "stdout"
        raise


def put_lines(lines: Iterable[bytes]) -> None:
    """Write many lines, a block at a time."""
    gathered: list[bytes] = []
    size = 0
    for line in lines:
        gathered.append(line)
        size += len(line)
        if size >= BLOCK:
            put(b"".join(gathered))
            gathered.clear()
            size = 0
    put(b"".join(gathered))


def terminal_width() -> int | None:
    """The width of the terminal that stdout is, None where it is none."""
    return shutil.get_terminal_size().columns if os.isatty(1) else None
