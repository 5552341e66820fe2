"""How the command line speaks on stderr: a line at a time, and never at the price of a farmer.

A terminal that is gone, a pipe that nobody reads, a full disk behind `2>log`: what cannot be said is
dropped. So lines go to the descriptor itself, without a buffer whose rest would fail again at exit.
"""

from __future__ import annotations

import os
import sys
import time
from typing import NamedTuple

from taskfarmer.options import Progress, Reporter
from taskfarmer.ui import printable, progress


def print_error(text: str) -> None:
    """One line on stderr, made printable; never an error."""
    encoding = getattr(sys.stderr, "encoding", None) or "utf-8"
    data = (printable(text) + "\n").encode(encoding, "backslashreplace")
    try:
        while data:
            data = data[os.write(2, data) :]
    except OSError:
        pass


class Voice(NamedTuple):
    """A farmer's voice: lines with time and host. `quiet` leaves warnings, `verbose` adds details."""

    quiet: bool = False
    verbose: bool = False
    host: str = ""

    def info(self, text: str) -> None:
        if not self.quiet:
            self.say(text)

    def detail(self, text: str) -> None:
        if self.verbose:
            self.say(text)

    def warning(self, text: str) -> None:
        self.say(f"warning: {text}")

    def progress(self, now: Progress) -> None:
        self.info(progress(now))

    def say(self, text: str) -> None:
        host = self.host or os.uname().nodename
        print_error(f"{time.strftime('%Y-%m-%d %H:%M:%S')} {host}: {text}")

    def reporter(self) -> Reporter:
        return Reporter(self.info, self.detail, self.warning, self.progress)
