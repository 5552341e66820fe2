"""A scheduler's client, called with patience: what it says, and nothing of it is left running."""

from __future__ import annotations

import signal
import subprocess
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from taskfarmer.proctree import send_to_group

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
        send_to_group(process.pid, signal.SIGKILL)  # the client is the leader of a session
        try:
            out, err = process.communicate(timeout=LAST_WORDS)
        except subprocess.TimeoutExpired as more:  # somebody else has its pipes
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
