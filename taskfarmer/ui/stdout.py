"""What goes to stdout: bytes as they are for pipes and files, and made visible for a terminal."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Iterator

import click

from taskfarmer.ui import visible

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


def write_untrusted(blocks: Iterable[bytes]) -> None:
    """Write what others wrote. A terminal would obey the control characters in it, so there they are escaped."""
    for block in visible(blocks) if os.isatty(1) else blocks:
        put(block)


def put_lines(lines: Iterable[bytes]) -> None:
    """Write many lines that others wrote, a block at a time."""
    write_untrusted(_gathered(lines))


def _gathered(lines: Iterable[bytes]) -> Iterator[bytes]:
    gathered: list[bytes] = []
    size = 0
    for line in lines:
        gathered.append(line)
        size += len(line)
        if size >= BLOCK:
            yield b"".join(gathered)
            gathered.clear()
            size = 0
    yield b"".join(gathered)


def terminal_width() -> int | None:
    """The width of the terminal that stdout is, None where it is none."""
    if not os.isatty(1):
        return None
    import shutil  # a run has no use for it

    return shutil.get_terminal_size().columns
