"""The check from end to end."""

from __future__ import annotations

import os
import time

from taskfarmer.inspect.check.journals import check_journals
from taskfarmer.inspect.check.report import ProblemLog, Report, Unreadable, refuse_if_limited
from taskfarmer.inspect.check.revisions import Snapshot, newest_revision, read_farm
from taskfarmer.inspect.check.tasks import FAILED, FINISHED, FRESH, HELD, RETURNED, Tasks, read_tasks
from taskfarmer.inspect.check.views import check_views
from taskfarmer.peers.arrivals import MOST, is_gone, unregistered
from taskfarmer.peers.identity import load_identity, new_identity
from taskfarmer.storage.layout import Workdir


def check(workdir: Workdir) -> Report:
    """Read the whole farm. NotAFarm where there is none, or one of a format that this version does not know."""
    findings = ProblemLog()
    report = Report()
    try:
        farm = read_farm(workdir, findings)
        workdir = workdir._replace(logs_dir=farm.logs)
        snapshot = newest_revision(workdir, farm.farm, findings)
        report.revision, report.farmers = snapshot.number, len(snapshot.claims)
        tasks = read_tasks(workdir, snapshot, findings)
        recorded = check_journals(workdir, snapshot, tasks, findings)
        _check_folders(workdir, findings)
        _count(report, snapshot, tasks, findings)
        arriving = _check_farmers(workdir, snapshot, farm.lease, findings)
        check_views(workdir, snapshot, tasks, recorded, findings, behind=arriving or bool(snapshot.claims))
    except Unreadable:
        pass
    report.findings = findings.all()
    return report


def _check_folders(workdir: Workdir, findings: ProblemLog) -> None:
    """Whether farmers can show that they live, and have a place for logs. Neither says anything of a task's place."""
    for folder, note in ((workdir.farmers, False), (workdir.logs, True)):  # logs may be where other nodes find them
        try:
            os.scandir(folder).close()
        except OSError as error:
            refuse_if_limited(folder, error)
            findings.tell(folder, f"{error.strerror}; no farmer can start; an empty folder will do", note=note)


def _check_farmers(workdir: Workdir, snapshot: Snapshot, lease: float, findings: ProblemLog) -> bool:
    """Whether a farmer that is not registered may be at work: it is about to join, or makes the views exact as it goes.

    A note for what is left of one that is dead, and for a registered one of which nothing says who it is.
    """
    me = new_identity(0, "", {})
    arriving = False
    for farmer in unregistered(workdir, snapshot.claims)[:MOST]:
        if is_gone(workdir, me, farmer, lease, time.time()):
            text = "left of a farmer that was killed as it came or went; the last farmer of the list removes it"
            findings.tell(workdir.alive(farmer), text, note=True)
        else:
            arriving = arriving or os.path.lexists(workdir.alive(farmer))
    for farmer in snapshot.claims:
        if load_identity(workdir, farmer) is None:
            text = "missing or damaged: nothing says who this registered farmer is; it can be expelled all the same"
            findings.tell(workdir.identity(farmer), text, "farmers", note=True)
    return arriving


def _count(report: Report, snapshot: Snapshot, tasks: Tasks, findings: ProblemLog) -> None:
    """Count the tasks in each place, and compare with what the ledger says."""
    place = tasks.place
    report.tasks = len(place)
    report.unprocessed = place.count(FRESH) + place.count(RETURNED)
    report.held = place.count(HELD)
    report.finished, report.failed = place.count(FINISHED), place.count(FAILED)
    for name, counted, said in (
        ("finished", report.finished, snapshot.finished),
        ("failed", report.failed, snapshot.failed),
    ):
        if counted != said:
            findings.tell(snapshot.path, f"says {said} {name} where the results have {counted}")
