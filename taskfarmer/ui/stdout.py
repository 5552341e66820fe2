"""Output on stdout: unchanged bytes for pipes and files, escaped text for a terminal."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Iterator

import click

from taskfarmer.ui import escape_blocks

BLOCK = 1 << 16


def write_stdout(data: bytes | str) -> None:
    """Write to stdout, unbuffered. If the reader has closed the pipe (`| head`), exit with 0."""
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
    """Write bytes from other users; on a terminal, escape control characters, which the terminal would execute."""
    for block in escape_blocks(blocks) if os.isatty(1) else blocks:
        write_stdout(block)


def write_untrusted_lines(lines: Iterable[bytes]) -> None:
    """Write many lines from other users, a block at a time."""
    write_untrusted(_joined(lines))


def _joined(lines: Iterable[bytes]) -> Iterator[bytes]:
    pending: list[bytes] = []
    size = 0
    for line in lines:
        pending.append(line)
        size += len(line)
        if size >= BLOCK:
            yield b"".join(pending)
            pending.clear()
            size = 0
    yield b"".join(pending)


def terminal_width() -> int | None:
    """Return the terminal's width in columns; None if stdout is not a terminal."""
    if not os.isatty(1):
        return None
    import shutil  # imported late: a farmer does not need it

    return shutil.get_terminal_size().columns
