"""Data made readable: one line, a table, or JSON. Everything here returns text; the command line prints it."""

from taskfarmer.ui.lines import closing, progress
from taskfarmer.ui.printable import printable, shell_word, visible
from taskfarmer.ui.table import table

__all__ = ["closing", "printable", "progress", "shell_word", "table", "visible"]
