"""Data made readable: one line, a table, or JSON. Everything here returns text; the command line prints it."""

from taskfarmer.render.farmers import closing, progress
from taskfarmer.render.printable import printable, shell_word, visible
from taskfarmer.render.table import table

__all__ = ["closing", "printable", "progress", "shell_word", "table", "visible"]
