"""Tables: aligned words for files and pipes, and rich's for a terminal. The only importer of rich."""

from __future__ import annotations

from collections.abc import Sequence

from taskfarmer.ui.printable import printable


def table(header: Sequence[str], rows: Sequence[Sequence[str]], width: int | None = None) -> str:
    """Rows under a header, with a newline at the end of each line.

    `width` is that of the terminal, None for anything else: then nothing is cut or wrapped, so that
    `grep` finds a row as a line.
    """
    shown = [[printable(cell) for cell in row] for row in rows]
    return _plain(header, shown) if width is None else _rich(header, shown, width)


def _plain(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [list(header), *rows]
    widths = [max(len(line[column]) for line in lines) for column in range(len(header))]
    return "".join("  ".join(map(str.ljust, line, widths)).rstrip() + "\n" for line in lines)


def _rich(header: Sequence[str], rows: Sequence[Sequence[str]], width: int) -> str:
    # not at the top: it takes longer to import than most commands take to run
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    made = Table(box=SIMPLE_HEAD, pad_edge=False, expand=False)
    for name in header:
        made.add_column(Text(name), overflow="fold")
    for row in rows:
        made.add_row(*map(Text, row))
    console = Console(width=width, force_terminal=True)
    with console.capture() as capture:
        console.print(made)
    return capture.get()
