"""A check of a whole farm: it finds each task in exactly one place, and reports every problem with its file.

It uses the ledger's readers. It looks at one revision, the newest, and at the bytes of each file that count for that
revision, so it may run while farmers work. It never changes anything.
"""

from taskfarmer.inspect.check.reader import check
from taskfarmer.inspect.check.report import Finding, Report

__all__ = ["Finding", "Report", "check"]
