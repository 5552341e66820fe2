"""The farmer's records of its workers: their processes, their slots, the batches that each slot has, their reports."""

from __future__ import annotations

import math
import socket
import time
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field

from taskfarmer.formats.intervals import Interval
from taskfarmer.ledger.ledger import FarmerReport
from taskfarmer.protocol import WorkerReport, WorkerReports
from taskfarmer.worker.main import WorkerProcess

FEW = 8
"""Up to so many slots have a worker each. With more slots, a worker serves up to so many of them."""


def slots_per_worker(slots: int, shared: bool) -> list[range]:
    """The slots of each worker; one for each worker if workers are not `shared`.

    A custom runner has its process for itself, since PyTaskFarmer promises it one task at a time.
    """
    width = min(FEW, -(-slots // FEW)) if shared else 1
    return [range(first, min(first + width, slots)) for first in range(0, slots, width)]


@dataclass
class PoolReport:
    """The reports of all workers since the last call of `Pool.wait`.

    `outcomes` are for the ledger, the other fields for the user. `hopeless` is the reason why the pool starts no more
    workers; empty as long as it does.
    """

    outcomes: FarmerReport = field(default_factory=FarmerReport)
    troubles: list[str] = field(default_factory=list)
    survivors: list[int] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    leftovers: list[tuple[int, int]] = field(default_factory=list)
    """Tasks that left processes, and the number of these; the ID is negative if the task is not known."""
    hopeless: str = ""


@dataclass
class AssignedBatch:
    """Tasks that a worker has. It runs them in order, so the first `done` have ended."""

    number: int
    interval: Interval
    lines: list[bytes]
    done: int = 0

    @property
    def left(self) -> int:
        return self.interval.count - self.done


class SlotHandle:
    """A slot and its batches; its worker runs the first of them.

    `outstanding` tasks of them have not ended. `progressed` is when one ended last. `asked_back` is True if the worker
    was asked to give back the tasks that it has not started.
    """

    def __init__(self, slot: int, worker: WorkerHandle) -> None:
        self.slot = slot
        self.worker = worker
        self.batches: deque[AssignedBatch] = deque()
        self.outstanding = 0
        self.progressed = time.monotonic()
        self.asked_back = False


class WorkerHandle:
    """A worker: its process, the socket to it, and its slots.

    `suspect` is the report of an interrupted task although the farmer does not stop. It waits, and with it all later
    reports, until `suspect_until`: by then the farmer knows whether it is to stop, too. `died` are tasks that ran when
    the worker ended. `checks` counts the checks in a row that found the process stopped or gone. A worker that is
    `retiring` has asked to be replaced, and gets no more tasks.
    """

    def __init__(self, slots: Iterable[int], process: WorkerProcess, link: socket.socket) -> None:
        self.process = process
        self.started = time.monotonic()
        self.link = link
        self.reports = WorkerReports()
        self.unsent = bytearray()
        self.suspect: WorkerReport | None = None
        self.suspect_until = -math.inf
        self.died: list[Interval] = []
        self.checks = 0
        self.retiring = False
        self.slots = {slot: SlotHandle(slot, self) for slot in slots}

    @property
    def pid(self) -> int:
        pid = self.process.pid
        assert pid is not None  # it was started
        return pid

    @property
    def has_tasks(self) -> bool:
        return any(slot.batches for slot in self.slots.values())
