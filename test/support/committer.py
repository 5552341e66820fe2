"""A farmer without running tasks: it claims one at a time and settles it at once, until none is left.

python committer.py WORKDIR
"""

from __future__ import annotations

import sys
import time

from taskfarmer.errors import StorageError
from taskfarmer.formats.intervals import Interval
from taskfarmer.formats.results import FINISHED, result_line
from taskfarmer.ledger.farmfile import require
from taskfarmer.ledger.ledger import FarmerReport, Ledger
from taskfarmer.peers.identity import new_identity
from taskfarmer.storage.layout import Workdir


def settled(ledger: Ledger, taken: Interval) -> FarmerReport:
    """The report of a farmer when its one claimed task has finished."""
    now = time.time()
    line = result_line(ledger.state.first_id(taken), taken.attempt, 0, now, now, FINISHED, log=b"none")
    return FarmerReport([line], [taken], finished=1, ended=1)


def commit_all(ledger: Ledger) -> int:
    """Claim and settle until no task is left; the number of commits that reported an error."""
    failures = 0
    leaving = False
    while not leaving or ledger.registered:
        try:
            gained, _ = ledger.exchange(1, leave=leaving)
        except StorageError:
            failures += 1
            continue
        for one in gained:
            ledger.add_report(settled(ledger, one))
        leaving = not gained and ledger.all_settled and not ledger.state.has_unprocessed
    return failures


def main(path: str) -> None:
    workdir = Workdir.at(path)
    ledger = Ledger(workdir, require(workdir), new_identity(1, "test", {}).farmer, 1)
    print("ready", flush=True)
    sys.stdin.readline()
    failures = commit_all(ledger)
    ledger.close()
    print(ledger.commits.commits, ledger.commits.lost, failures)


if __name__ == "__main__":
    main(sys.argv[1])
