"""What a worker writes about an attempt: the line for the journal, and those for the views."""

from __future__ import annotations

import os
import zlib
from dataclasses import dataclass
from typing import Any

from taskfarmer.model import FAILED, FINISHED, RETURNED, time_class
from taskfarmer.pool.wire import News
from taskfarmer.trace import time_slice


@dataclass
class Recorder:
    """Gathers what is to be sent to the farmer about the tasks of one batch."""

    farmer: int
    slot: int

    def __post_init__(self) -> None:
        self._begin(0)

    def _begin(self, number: int) -> None:
        self.number = number
        self.count = self.finished = self.failed = 0
        self.seconds = 0.0
        self._results: list[bytes] = []
        self._finished: list[bytes] = []
        self._failed: list[bytes] = []
        self._slices: list[bytes] = []
        self._times = bytearray()

    def add(
        self,
        line: bytes,
        task_id: int,
        attempt: int,
        command: bytes,
        start: float,
        end: float,
        wait_status: int,
        usage: Any,
        interrupted: bool,
    ) -> bool:
        """Record how an attempt ended; True where the task is to be given back.

        A task that ends well although it was asked to end is finished.
        """
        status, number = (0, os.WTERMSIG(wait_status)) if os.WIFSIGNALED(wait_status) else (wait_status >> 8, 0)
        outcome = FINISHED if not wait_status else RETURNED if interrupted else FAILED
        user, system, peak = usage
        body = b"%d %d %d %.6f %.6f %s %d %d %.6f %.6f %d files" % (
            task_id,
            attempt,
            self.slot,
            start,
            end,
            outcome,
            status,
            number,
            user,
            system,
            peak,
        )
        self._results.append(b"%s %08x\n" % (body, zlib.crc32(body)))
        self._slices.append(
            time_slice(
                self.farmer,
                self.slot,
                task_id,
                attempt,
                command,
                start,
                end,
                outcome,
                status,
                number,
                user,
                system,
                peak,
            )
        )
        self._count(outcome, line, end - start)
        return outcome is RETURNED

    def _count(self, outcome: bytes, line: bytes, seconds: float) -> None:
        self.count += 1
        self.seconds += seconds
        if outcome is FINISHED:
            self.finished += 1
            self._finished.append(line)
            if seconds >= 1:
                self._times.append(time_class(seconds))
        elif outcome is FAILED:
            self.failed += 1
            self._failed.append(line)

    def news(self, kind: bytes, next_number: int) -> bytes:
        """Everything gathered as one frame; empty from here on."""
        frame = News(
            kind,
            self.slot,
            self.number,
            self.count,
            self.finished,
            self.failed,
            self.seconds,
            b"".join(self._results),
            b"".join(self._finished),
            b"".join(self._failed),
            b"".join(self._slices),
            bytes(self._times),
        ).encode()
        self._begin(next_number)
        return frame

    def start_batch(self, number: int) -> None:
        self._begin(number)
