"""The check from start to finish."""

from __future__ import annotations

import os
import time

from taskfarmer.inspect.check.journals import check_journals
from taskfarmer.inspect.check.report import FindingLog, Report, Unreadable, refuse_if_limited
from taskfarmer.inspect.check.revisions import Newest, newest_revision, read_farm
from taskfarmer.inspect.check.tasks import FAILED, FINISHED, HELD, RETURNED, UNCLAIMED, TaskTable, read_tasks
from taskfarmer.inspect.check.views import check_views
from taskfarmer.ledger.state import State
from taskfarmer.peers.arrivals import MOST, is_gone, unregistered
from taskfarmer.peers.identity import load_identity, new_identity
from taskfarmer.storage.layout import Workdir


def check(workdir: Workdir) -> Report:
    """Read the whole farm. NotAFarm if it does not exist, or if this version does not know its format."""
    findings = FindingLog()
    report = Report()
    try:
        farm = read_farm(workdir, findings)
        workdir = workdir._replace(logs_dir=farm.logs)
        newest = newest_revision(workdir, farm.farm, findings)
        report.revision, report.farmers = newest.state.revision, len(newest.state.farmers)
        tasks = read_tasks(workdir, newest, findings)
        recorded = check_journals(workdir, newest.state, tasks, findings)
        _check_folders(workdir, findings)
        _count(report, newest, tasks, findings)
        arriving = _check_farmers(workdir, newest.state, farm.lease, findings)
        check_views(workdir, newest.state, tasks, recorded, findings, arriving or bool(newest.state.farmers))
    except Unreadable:
        pass
    report.findings = findings.all()
    return report


def _check_folders(workdir: Workdir, findings: FindingLog) -> None:
    """Check the folders of heartbeats and logs, without which no farmer can start."""
    for folder, note in ((workdir.farmers, False), (workdir.logs, True)):  # logs may be visible only on other nodes
        try:
            os.scandir(folder).close()
        except OSError as error:
            refuse_if_limited(folder, error)
            text = f"{error.strerror}; no farmer can start; an empty folder will do"
            findings.add(folder, text, note=note)


def _check_farmers(workdir: Workdir, state: State, lease: float, findings: FindingLog) -> bool:
    """Whether an unregistered farmer may be running: it is about to join, or updates the views before it exits.

    Adds a note for the files of a dead farmer, and for a registered farmer without an identity file.
    """
    me = new_identity(0, "", {})
    arriving = False
    for farmer in unregistered(workdir, state.farmers)[:MOST]:
        if is_gone(workdir, me, farmer, lease, time.time()):
            text = "left over from a farmer killed while it started or exited; the last farmer to exit removes it"
            findings.add(workdir.alive(farmer), text, note=True)
        else:
            arriving = arriving or os.path.lexists(workdir.alive(farmer))
    for farmer in state.farmers:
        if load_identity(workdir, farmer) is None:
            text = "missing or corrupt: the host of this registered farmer is unknown; it can still be expelled"
            findings.add(workdir.identity(farmer), text, "farmers", note=True)
    return arriving


def _count(report: Report, newest: Newest, tasks: TaskTable, findings: FindingLog) -> None:
    """Count the tasks in each place, and compare the counts with the ledger."""
    place = tasks.place
    report.tasks = len(place)
    report.unprocessed = place.count(UNCLAIMED) + place.count(RETURNED)
    report.held = place.count(HELD)
    report.finished, report.failed = place.count(FINISHED), place.count(FAILED)
    for name, counted, recorded in (
        ("finished", report.finished, newest.state.finished),
        ("failed", report.failed, newest.state.failed),
    ):
        if counted != recorded:
            findings.add(newest.path, f"counts {recorded} {name} tasks, but the results contain {counted}")
