"""Imports a task list into a farm."""

from taskfarmer.intake.intake import Intake
from taskfarmer.intake.lastline import QUIET
from taskfarmer.intake.preview import preview

__all__ = ["QUIET", "Intake", "preview"]
