"""The command line, with one module for each verb. Only this package prints and exits."""

from taskfarmer.cli.program import main

__all__ = ["main"]
