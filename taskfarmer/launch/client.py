"""A scheduler's client, called with patience: what it says, and nothing of it is left running."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Mapping, Sequence
from typing import NamedTuple

LAST_WORDS = 2.0


class Answer(NamedTuple):
    """What a client said. `status` is its exit status, None where it had not ended in time."""

    status: int | None
    out: str
    err: str

    @property
    def words(self) -> str:
        """All that it said, on one line."""
        return " ".join(f"{self.err} {self.out}".split())


def call(words: Sequence[str], environ: Mapping[str, str], patience: float) -> Answer:
    """Run a client to its end, or for `patience` seconds. OSError where it cannot be started."""
    process = subprocess.Popen(
        words,
        env=dict(environ),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )
    try:
        out, err = process.communicate(timeout=patience)
        return Answer(process.returncode, _text(out), _text(err))
    except subprocess.TimeoutExpired:
        _end(process)
        try:
            out, err = process.communicate(timeout=LAST_WORDS)
        except subprocess.TimeoutExpired as more:  # somebody else has its pipes
            out, err = more.stdout or b"", more.stderr or b""
        return Answer(None, _text(out), _text(err))
    finally:
        if process.returncode is None:
            _end(process)
            process.wait()
        for pipe in (process.stdout, process.stderr):
            if pipe is not None:
                pipe.close()


def _end(process: subprocess.Popen[bytes]) -> None:
    """End a client and what it started: they are a session of their own."""
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        pass


def _text(data: bytes) -> str:
    return data.decode("utf-8", "surrogateescape")
