"""How a farmer comes to its farm: the list is checked or taken in, and nothing has begun yet."""

from __future__ import annotations

import os
import time

from taskfarmer import __version__
from taskfarmer.farmer.events import of_inodes, of_unseen_processes, opening
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
    """Run a task list until there is nothing left to take, or a signal or the timeout ends it.

    UsageError, TaskListError, ConfigError, NotAFarm and others are raised before the first task starts;
    later ones end the tasks, and are told in the Ending.
    """
    begin = time.monotonic()
    runner = find_runner(settings, reporter)
    pulse = Pulse(signals)
    intake = Intake(settings, reporter, lambda: bool(signals.arrived), pulse)
    farm = intake.open()
    identity = new_identity(settings.slots, __version__, scheduled.job(os.environ))
    ledger = Ledger(intake.workdir, farm, identity.farmer, settings.slots)
    ledger.do_between(pulse)
    if intake.made is not None:
        ledger.commits.last_seen = intake.made  # as the list is, and the views: nothing to compare
    else:
        pulse()
        if grown := intake.check(ledger):
            reporter.info(f"{settings.tasklist} has {grown} more tasks at its end; they were taken in")
    reporter.info(opening(settings, ledger.state))
    pulse()
    inodes = of_inodes(settings, ledger.state, intake.workdir)
    if inodes is not None:
        reporter.info(inodes)
    unseen = of_unseen_processes()
    if unseen is not None:
        reporter.warning(unseen)
    report_mounts(reporter, intake.workdir.path, os.path.dirname(ledger.lock.path))
    edited = edited_by_hand(intake.workdir) if intake.made is None else []
    for warning in (*ledger.lock.warnings(), *edited):
        reporter.warning(warning)
    pulse()
    return Farmer(settings, reporter, pulse, runner, intake, ledger, identity, begin).run()
