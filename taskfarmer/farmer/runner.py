"""The runner that a farmer was asked to use."""

from __future__ import annotations

import os

from taskfarmer.options import Reporter, Settings
from taskfarmer.runners.base import Runner
from taskfarmer.runners.shell import BasicRunner


def find_runner(settings: Settings, reporter: Reporter) -> Runner:
    """The runner that the user asked for; for the default one no configuration is read."""
    if settings.runner == "default":
        return BasicRunner()
    import subprocess  # noqa: F401  # for runners that start programs by themselves; once tasks run it is too late

    from taskfarmer.config import Configuration

    found = Configuration.search(settings.config, beside=os.path.dirname(os.path.abspath(settings.tasklist)))
    for warning in found.warnings:
        reporter.warning(warning)
    runner: Runner = found.runner(settings.runner)
    return runner
