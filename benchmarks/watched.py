"""A farmer that is observed from inside: REPORT [--gate PATH] [--own-lock] [--lone-slots] and a farmer's arguments.

It writes a JSON document into REPORT when the farmer exits: start and end of its work, each exchange with the ledger,
its waits for the lock, and the results of its commits. With --gate it creates a file PATH.<pid>, and waits until the
lock on PATH is free. With --own-lock it has a private lock, as if locks were not shared between nodes; with
--lone-slots a worker for each slot. Otherwise its behavior is unchanged.
"""

from __future__ import annotations

import fcntl
import json
import os
import resource
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from taskfarmer.farmer import farmer
from taskfarmer.ledger.ledger import Ledger
from taskfarmer.pool import processes
from taskfarmer.storage.locks import FarmLock

_PAGE = os.sysconf("SC_PAGE_SIZE") / 1e6


class Watch:
    """The measurements of one farmer. An exchange is [seconds, end, ended, unprocessed, megabytes]."""

    def __init__(self, gate: str | None) -> None:
        self.gate = gate
        self.ledger: Ledger | None = None
        self.begin = self.end = 0.0
        self.exchanges: list[list[float]] = []
        self.waits: list[float] = []

    def exchanging(self, exchange: Any) -> Any:
        def watched(ledger: Ledger, *args: Any, **options: Any) -> Any:
            self.ledger = ledger
            begin = time.time()
            try:
                return exchange(ledger, *args, **options)
            finally:
                end, state = time.time(), ledger.state
                ended = state.finished + state.failed
                self.exchanges.append([end - begin, end, ended, state.unprocessed, _resident()])

        return watched

    def holding(self, held: Any) -> Any:
        @contextmanager
        def watched(lock: FarmLock, *args: Any, **options: Any) -> Iterator[bool]:
            begin = time.monotonic()
            with held(lock, *args, **options) as got:
                self.waits.append(time.monotonic() - begin)
                yield got

        return watched

    def running(self, run: Any) -> Any:
        def watched(one: farmer.Farmer) -> Any:
            if self.gate is not None:
                Path(f"{self.gate}.{os.getpid()}").touch()
                with open(self.gate, "rb") as file:
                    fcntl.flock(file, fcntl.LOCK_SH)
            self.begin = time.time()
            try:
                return run(one)
            finally:
                self.end = time.time()

        return watched

    def report(self) -> dict[str, Any]:
        commits = self.ledger.commits if self.ledger is not None else None
        own, below = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
        return {
            "begin": self.begin,
            "end": self.end,
            "exchanges": self.exchanges,
            "waits": self.waits,
            "commits": commits.commits if commits is not None else 0,
            "lost": commits.lost if commits is not None else 0,
            "cpu": own.ru_utime + own.ru_stime,
            "cpu below": below.ru_utime + below.ru_stime,
        }


def _resident() -> float:
    return int(Path("/proc/self/statm").read_bytes().split()[1]) * _PAGE


def _own_locks(make: Any) -> Any:
    def made(lock: FarmLock, path: str, *args: Any, **options: Any) -> None:
        make(lock, f"{path}.{os.getpid()}", *args, **options)

    return made


def main() -> None:
    report, *arguments = sys.argv[1:]
    gate = None
    if arguments[0] == "--gate":
        gate, arguments = arguments[1], arguments[2:]
    if arguments[0] == "--own-lock":
        arguments = arguments[1:]
        setattr(FarmLock, "__init__", _own_locks(FarmLock.__init__))  # noqa: B010
    if arguments[0] == "--lone-slots":
        arguments = arguments[1:]
        setattr(processes, "teams", lambda slots, runner: [range(slot, slot + 1) for slot in range(slots)])  # noqa: B010
    watch = Watch(gate)
    for where, name, wrap in (
        (Ledger, "exchange", watch.exchanging),
        (FarmLock, "held", watch.holding),
        (farmer.Farmer, "run", watch.running),
    ):
        setattr(where, name, wrap(getattr(where, name)))
    sys.argv = ["pytaskfarmer.py", *arguments]
    from taskfarmer.start import pytaskfarmer

    try:
        pytaskfarmer()
    finally:
        Path(report).write_text(json.dumps(watch.report()), encoding="ascii")


if __name__ == "__main__":
    main()
