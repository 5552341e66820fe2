"""Verbs in separate processes with a time limit; file permissions apply to them, even for root.

    python verbs.py ARGUMENT...

runs `taskfarmer ARGUMENT...`, but waits only a few seconds, not a minute, for file systems that show old contents.
"""

from __future__ import annotations

import ctypes
import os
import re
import signal
import subprocess
import sys
import traceback
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

TOP = Path(__file__).parents[2]

LIMIT = 60
"""Seconds after which a verb counts as hanging."""
PATIENCE = 2.0
_OVERRIDES = (1, 2)
"""CAP_DAC_OVERRIDE and CAP_DAC_READ_SEARCH, which let root ignore permissions."""


@dataclass(frozen=True)
class Done:
    """The result of a verb. `status` is negative for a signal; SIGALRM marks a hang."""

    verb: str
    status: int
    out: str
    err: str

    @property
    def hung(self) -> bool:
        return self.status == -signal.SIGALRM

    @property
    def said(self) -> str:
        return self.out + self.err


def shorten_patience() -> None:
    """Wait a few seconds, not a minute, for file systems that show old contents."""
    from taskfarmer.farmer import backoff, farmer
    from taskfarmer.inspect.check import journals
    from taskfarmer.ledger import commits, results

    journals.PATIENCE = 1.0
    farmer.RECORD_TIMEOUT = backoff.GIVE_UP_AFTER = 3.0
    commits.Commits.__init__.__defaults__ = (PATIENCE,)
    for function in (results.survey, results.read_counted, results.with_newer_states):
        function.__defaults__ = (PATIENCE, *(function.__defaults__ or ())[1:])


def drop_override_capabilities() -> None:
    """Drop the capabilities that let root ignore permissions, for this process and its future children."""
    if os.getuid():
        return
    libc = ctypes.CDLL(None, use_errno=True)
    for number in _OVERRIDES:
        libc.prctl(24, number, 0, 0, 0)  # PR_CAPBSET_DROP
    header = (ctypes.c_uint32 * 2)(0x20080522, 0)
    sets = (ctypes.c_uint32 * 6)()
    if libc.capget(header, sets):
        raise OSError(ctypes.get_errno(), "capget")
    keep = ~sum(1 << number for number in _OVERRIDES) & 0xFFFFFFFF
    for place in range(3):
        sets[place] &= keep
    if libc.capset(header, sets):
        raise OSError(ctypes.get_errno(), "capset")


def main(arguments: Sequence[str]) -> int:
    """Run `taskfarmer ARGUMENT...` in this process."""
    drop_override_capabilities()
    shorten_patience()
    from taskfarmer.cli import program

    return program.main("taskfarmer", list(arguments))


def verb(folder: Path, *arguments: str) -> Done:
    """Run a verb in a forked child, which costs a hundredth of a fresh interpreter."""
    out, err = folder / "verb.out", folder / "verb.err"
    pid = os.fork()
    if not pid:
        status = 99
        try:
            os.chdir(folder)
            for number, path in ((1, out), (2, err)):
                os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), number)
            signal.signal(signal.SIGALRM, signal.SIG_DFL)
            signal.alarm(LIMIT)
            for name in ("stdout", "stderr"):
                setattr(sys, name, open(1 if name == "stdout" else 2, "w", closefd=False))  # noqa: SIM115
            status = main(arguments)
        except Exception:
            traceback.print_exc()
            sys.stderr.flush()
        finally:
            os._exit(status)
    _, answer = os.waitpid(pid, 0)
    return Done(" ".join(arguments), os.waitstatus_to_exitcode(answer), text(out), text(err))


def run(folder: Path, *arguments: str) -> Done:
    """Run a verb in a fresh interpreter and a new process group, which is killed if it hangs."""
    environment = {
        name: value for name, value in os.environ.items() if name not in ("SCRATCH", "TASKFARMER_CONFIG_DIR")
    }
    environment["PYTHONPATH"] = f"{TOP}:{TOP / 'test'}"
    with open(folder / "run.err", "wb") as file:
        process = subprocess.Popen(
            [sys.executable, "-m", "support.verbs", *arguments],
            cwd=folder,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=file,
            start_new_session=True,
        )
    try:
        status = process.wait(LIMIT)
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(15)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        status = -signal.SIGALRM
    return Done(" ".join(arguments), status, "", text(folder / "run.err"))


def text(path: Path) -> str:
    return re.sub(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d ", "", path.read_text(errors="backslashreplace"))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
