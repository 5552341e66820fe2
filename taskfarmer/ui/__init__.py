"""Turn data into text: lines, tables, JSON. Only `stdout` and `stderr` write anything."""

from taskfarmer.ui.lines import closing, progress
from taskfarmer.ui.printable import escape_blocks, printable, shell_word
from taskfarmer.ui.table import table

__all__ = ["closing", "escape_blocks", "printable", "progress", "shell_word", "table"]
