"""`check`: every file of a farm against every other."""

from __future__ import annotations

import click

from taskfarmer.cli.arguments import Verb
from taskfarmer.cli.options import open_farm, verbose_option, workdir_argument
from taskfarmer.inspect.check import Report
from taskfarmer.inspect.check import check as check_farm
from taskfarmer.ledger import Ledger
from taskfarmer.storage.layout import Workdir
from taskfarmer.ui import printable
from taskfarmer.ui.stderr import print_error
from taskfarmer.ui.stdout import put


@click.command(
    cls=Verb,
    name="check",
    short_help="Find out whether a farm is sound; repair its views.",
    epilog="""\b
Examples:
  taskfarmer check list.txt_workdir
  taskfarmer check list.txt_workdir --repair

\b
Exit status:
  0   every task is in exactly one place, and all files agree (notes are no faults)
  1   something is wrong; each line names the file
  2   there is no farm in WORKDIR
  74  the file system fails, there is not enough memory, or a limit of open files is too low (ulimit -n)
""",
)
@workdir_argument
@click.option("--repair", is_flag=True, help="Make the views anew where they disagree with the ledger.")
@verbose_option
def command(workdir: str, repair: bool) -> int:
    """Read a whole farm, count each of its tasks in exactly one place, and name what is wrong.

    May be used at any time, also while farmers work: then the views (toprocess, finished, failed,
    timeline.json) may be behind, which is told as a note. Changes nothing without --repair.
    """
    found = Workdir.at(workdir)
    report = check_farm(found)
    _show(report)
    if repair and report.disagreeing_views:
        if not report.only_views:
            put("not repaired: the views are made of files that are damaged themselves\n")
        else:
            _repair(workdir)
            put("the views were made anew\n")
            report = check_farm(found)
            _show(report)
    elif repair:
        put("nothing to repair: only views can be made anew, and they agree\n")
    elif report.errors and report.only_views:
        print_error("the views can be made anew: taskfarmer check WORKDIR --repair")
    if not report.only_views:
        print_error(
            "restore the files that errors name from a snapshot of the file system, or start anew in another work "
            "directory (-w)"
        )
    return 1 if report.errors else 0


def _repair(path: str) -> None:
    # not at the top: it is for this case alone, and `taskfarmer --help` imports this
    from taskfarmer.views import rebuild

    workdir, farm = open_farm(path, change=True)
    rebuild(workdir, Ledger(workdir, farm, "check"))


def _show(report: Report) -> None:
    for finding in report.findings:
        put(printable(f"{'note' if finding.note else 'error'}: {finding.path}: {finding.text}") + "\n")
    errors = len(report.errors)
    verdict = f"{errors} error{'s' if errors != 1 else ''}" if errors else "each in exactly one place"
    farmers = f", {report.farmers} farmers" if report.farmers else ""
    put(
        f"revision {report.revision}: {report.tasks} tasks: {report.finished} finished, {report.failed} failed, "
        f"{report.held} held, {report.unprocessed} unprocessed{farmers}: {verdict}\n"
    )
