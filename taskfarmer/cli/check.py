"""`check`: compare all files of a farm with each other."""

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
from taskfarmer.ui.stdout import write_stdout


@click.command(
    cls=Verb,
    name="check",
    short_help="Check that a farm is consistent; rebuild its views.",
    epilog="""\b
Examples:
  taskfarmer check list.txt_workdir
  taskfarmer check list.txt_workdir --repair

\b
Exit status:
  0   each task is in exactly one place, and all files agree (notes are
      not errors)
  1   errors were found; each line names a file
  2   no farm found in WORKDIR
  74  file system error, out of memory, or too many open files (ulimit -n)
""",
)
@workdir_argument
@click.option("--repair", is_flag=True, help="Rebuild the views if they disagree with the ledger.")
@verbose_option
def command(workdir: str, repair: bool) -> int:
    """Read a whole farm, check that each task is in exactly one place, and list all errors.

    You may run it at any time. While farmers run, the views (toprocess, finished, failed, timeline.json) may lag
    behind; this is a note and not an error. Without --repair nothing is changed.
    """
    found = Workdir.at(workdir)
    report = check_farm(found)
    _print(report)
    if repair and report.disagreeing_views:
        if not report.only_views:
            write_stdout("not repaired: the views depend on files that are damaged\n")
        else:
            _repair(workdir)
            write_stdout("the views were rebuilt\n")
            report = check_farm(found)
            _print(report)
    elif repair:
        write_stdout("nothing to repair: only views can be rebuilt, and they are correct\n")
    elif report.errors and report.only_views:
        print_error("to rebuild the views: taskfarmer check WORKDIR --repair")
    if not report.only_views:
        print_error(
            "restore the files named in the errors from a snapshot of the file system, or start over in another work "
            "directory (-w)"
        )
    return 1 if report.errors else 0


def _repair(path: str) -> None:
    # imported late: `taskfarmer --help` imports this module, but does not need it
    from taskfarmer.views import rebuild

    workdir, farm = open_farm(path, change=True)
    rebuild(workdir, Ledger(workdir, farm, "check"))


def _print(report: Report) -> None:
    for finding in report.findings:
        write_stdout(printable(f"{'note' if finding.note else 'error'}: {finding.path}: {finding.text}") + "\n")
    errors = len(report.errors)
    verdict = f"{errors} error{'s' if errors != 1 else ''}" if errors else "each in exactly one place"
    farmers = f", {report.farmers} farmers" if report.farmers else ""
    write_stdout(
        f"revision {report.revision}: {report.tasks} tasks: {report.finished} finished, {report.failed} failed, "
        f"{report.held} held, {report.unprocessed} unprocessed{farmers}: {verdict}\n"
    )
