"""Runs a scheduler's command line client with a timeout, and leaves no process of it running."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Mapping, Sequence
from typing import NamedTuple

DRAIN_SECONDS = 2.0
"""Seconds to read the output that a killed client left in its pipes."""


class Answer(NamedTuple):
    """The output of a client. `status` is its exit status, None if it timed out."""

    status: int | None
    out: str
    err: str

    @property
    def line(self) -> str:
        """All of its output on one line."""
        return " ".join(f"{self.err} {self.out}".split())


def call(words: Sequence[str], environ: Mapping[str, str], timeout: float) -> Answer:
    """Run a client until it exits, or for `timeout` seconds. OSError if it cannot be started."""
    process = subprocess.Popen(
        words,
        env=dict(environ),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )
    try:
        out, err = process.communicate(timeout=timeout)
        return Answer(process.returncode, _text(out), _text(err))
    except subprocess.TimeoutExpired:
        _kill(process)
        try:
            out, err = process.communicate(timeout=DRAIN_SECONDS)
        except subprocess.TimeoutExpired as more:  # another process still has its pipes open
            out, err = more.stdout or b"", more.stderr or b""
        return Answer(None, _text(out), _text(err))
    finally:
        if process.returncode is None:
            _kill(process)
            process.wait()
        for pipe in (process.stdout, process.stderr):
            if pipe is not None:
                pipe.close()


def _kill(process: subprocess.Popen[bytes]) -> None:
    """Kill a client and the processes it started, which are in the same session."""
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        pass


def _text(data: bytes) -> str:
    return data.decode("utf-8", "surrogateescape")
