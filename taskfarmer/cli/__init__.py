"""The command line: a module per verb. Nothing else in taskfarmer prints or exits."""

from taskfarmer.cli.program import main

__all__ = ["main"]
