"""Tables: plain aligned columns for files and pipes, rich tables for a terminal. Only this module imports rich."""

from __future__ import annotations

from collections.abc import Sequence

from taskfarmer.ui.printable import printable


def table(header: Sequence[str], rows: Sequence[Sequence[str]], width: int | None = None) -> str:
    """Return the rows under a header; each line ends with a newline.

    `width` is the terminal's width. With None a row is one line, neither cut nor wrapped, so that `grep` finds it.
    """
    escaped = [[printable(cell) for cell in row] for row in rows]
    return _plain(header, escaped) if width is None else _rich(header, escaped, width)


def _plain(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [list(header), *rows]
    widths = [max(len(line[column]) for line in lines) for column in range(len(header))]
    return "".join("  ".join(map(str.ljust, line, widths)).rstrip() + "\n" for line in lines)


def _rich(header: Sequence[str], rows: Sequence[Sequence[str]], width: int) -> str:
    # imported late: the import takes longer than most commands run
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    grid = Table(box=SIMPLE_HEAD, pad_edge=False, expand=False)
    for name in header:
        grid.add_column(Text(name), overflow="fold")
    for row in rows:
        grid.add_row(*map(Text, row))
    console = Console(width=width, force_terminal=True)
    with console.capture() as capture:
        console.print(grid)
    return capture.get()
