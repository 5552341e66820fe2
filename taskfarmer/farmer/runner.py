"""Finds the runner that `-r` names."""

from __future__ import annotations

import os

from taskfarmer.options import Reporter, Settings
from taskfarmer.runners.base import Runner
from taskfarmer.runners.shell import BasicRunner


def find_runner(settings: Settings, reporter: Reporter) -> Runner:
    """The runner that `-r` names. The default one needs no configuration, so no INI file is read for it."""
    if settings.runner == "default":
        return BasicRunner()
    from taskfarmer.config import Configuration

    found = Configuration.search(settings.config, beside=os.path.dirname(os.path.abspath(settings.tasklist)))
    for warning in found.warnings:
        reporter.warning(warning)
    runner: Runner = found.runner(settings.runner)
    return runner
