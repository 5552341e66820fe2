"""Runners, which execute the commands of tasks: the classes that INI files name and that users subclass."""

from taskfarmer.runners.base import CommandRunner, Runner
from taskfarmer.runners.shell import BasicRunner
from taskfarmer.runners.shifter import ShifterRunner

__all__ = ["BasicRunner", "CommandRunner", "Runner", "ShifterRunner"]
