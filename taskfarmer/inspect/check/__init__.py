"""An independent reader of a farm: counts every task in exactly one place, and names what is wrong.

It reads the files by their format (docs/workdir-format.md), not through the classes that write them, so
that a mistake in those does not hide itself. It looks at one revision, the newest, and at what that
counts of each file; so it may run while farmers work. Nothing is ever changed.
"""

from taskfarmer.inspect.check.reader import check
from taskfarmer.inspect.check.report import Finding, Report

__all__ = ["Finding", "Report", "check"]
