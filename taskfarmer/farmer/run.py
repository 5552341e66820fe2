"""Starts a farmer: it imports or checks the task list, finds its farm, warns about the environment, and runs."""

from __future__ import annotations

import os
import time

from taskfarmer import __version__
from taskfarmer.farmer.events import inode_notice, procfs_warning, start_message
from taskfarmer.farmer.farmer import Farmer
from taskfarmer.farmer.pulse import Pulse
from taskfarmer.farmer.runner import find_runner
from taskfarmer.intake import Intake
from taskfarmer.ledger.ledger import Ledger
from taskfarmer.options import Ending, Reporter, Settings
from taskfarmer.peers import scheduled
from taskfarmer.peers.identity import new_identity
from taskfarmer.peers.lockproofs import report_mounts
from taskfarmer.signals import Signals
from taskfarmer.views.files import edited_by_hand


def run(settings: Settings, reporter: Reporter, signals: Signals) -> Ending:
    """Run a task list until no task can be claimed, or until a signal or the timeout stops the farmer.

    Errors before the first task starts are raised: UsageError, TaskListError, ConfigError, NotAFarm and others. Later
    errors stop the running tasks and are part of the result.
    """
    started = time.monotonic()
    runner = find_runner(settings, reporter)
    pulse = Pulse(signals)
    intake = Intake(settings, reporter, lambda: bool(signals.arrived), pulse)
    farm = intake.open()
    identity = new_identity(settings.slots, __version__, scheduled.job(os.environ))
    ledger = Ledger(intake.workdir, farm, identity.farmer, settings.slots)
    ledger.do_between(pulse)
    if intake.created is not None:
        ledger.commits.last_seen = intake.created  # just made from the list, so there is nothing to compare
    else:
        pulse()
        if grown := intake.check(ledger):
            reporter.info(f"{settings.tasklist}: imported {grown} more task{'s' * (grown != 1)}")
    reporter.info(start_message(settings, ledger.state))
    pulse()
    notice = inode_notice(settings, ledger.state, intake.workdir)
    if notice is not None:
        reporter.info(notice)
    hidden = procfs_warning()
    if hidden is not None:
        reporter.warning(hidden)
    report_mounts(reporter, intake.workdir.path, os.path.dirname(ledger.lock.path))
    edited = edited_by_hand(intake.workdir) if intake.created is None else []
    for warning in (*ledger.lock.warnings(), *edited):
        reporter.warning(warning)
    pulse()
    return Farmer(settings, reporter, pulse, runner, intake, ledger, identity, started).run()
