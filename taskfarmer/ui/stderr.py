"""Lines on stderr. A failing stderr never stops a farmer.

If the terminal is gone, the pipe has no reader, or the disk under `2>log` is full, the line is dropped. Lines are
written to the descriptor itself: a buffer would try again at exit, and fail again.
"""

from __future__ import annotations

import os
import sys
import time
from typing import NamedTuple

from taskfarmer.options import Progress, Reporter
from taskfarmer.ui import printable, progress


def print_error(text: str) -> None:
    """Write one line to stderr, escaped; ignore any failure."""
    encoding = getattr(sys.stderr, "encoding", None) or "utf-8"
    data = (printable(text) + "\n").encode(encoding, "backslashreplace")
    try:
        while data:
            data = data[os.write(2, data) :]
    except OSError:
        pass


class FarmerLog(NamedTuple):
    """A farmer's log on stderr: lines with time and host. `quiet` keeps only warnings, `verbose` adds details."""

    quiet: bool = False
    verbose: bool = False
    host: str = ""

    def info(self, text: str) -> None:
        if not self.quiet:
            self.write(text)

    def detail(self, text: str) -> None:
        if self.verbose:
            self.write(text)

    def warning(self, text: str) -> None:
        self.write(f"warning: {text}")

    def progress(self, now: Progress) -> None:
        self.info(progress(now))

    def write(self, text: str) -> None:
        host = self.host or os.uname().nodename
        print_error(f"{time.strftime('%Y-%m-%d %H:%M:%S')} {host}: {text}")

    def reporter(self) -> Reporter:
        return Reporter(self.info, self.detail, self.warning, self.progress)
