"""Runs a scheduler's command line client with a timeout, and leaves no process of it running."""

from __future__ import annotations

import signal
import subprocess
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from taskfarmer.proctree import send_to_group

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
        send_to_group(process.pid, signal.SIGKILL)  # the client is the leader of a session
        try:
            out, err = process.communicate(timeout=DRAIN_SECONDS)
        except subprocess.TimeoutExpired as more:  # another process still has its pipes open
            out, err = more.stdout or b"", more.stderr or b""
        return Answer(None, _text(out), _text(err))
    finally:
        if process.returncode is None:
            send_to_group(process.pid, signal.SIGKILL)
            process.wait()
        for pipe in (process.stdout, process.stderr):
            if pipe is not None:
                pipe.close()


def _text(data: bytes) -> str:
    return data.decode("utf-8", "surrogateescape")
