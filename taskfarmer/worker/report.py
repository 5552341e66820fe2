"""The lines that a worker writes about attempts, for the journal and for the views.

The lines of many attempts are formatted at once, when they are reported. Right after a task has ended our code has
left the CPU caches, and each line of it costs several times as much.
"""

from __future__ import annotations

import os
from dataclasses import dataclass

from taskfarmer.formats.durations import time_class
from taskfarmer.formats.results import FAILED, FINISHED, RETURNED, result_form, with_crc
from taskfarmer.formats.timeline import quoted, slice_form
from taskfarmer.protocol import WorkerReport
from taskfarmer.worker.batch import Task

Usage = tuple[float, float, int]
"""User and system CPU seconds, and peak memory in kilobytes."""


@dataclass
class Recorder:
    """Collects the attempts of one batch of a slot that are not reported yet."""

    farmer: int
    slot: int
    log: bytes
    """The value of `--logs`: the 12th word of a result line."""

    def __post_init__(self) -> None:
        self.start_batch(0)

    def start_batch(self, number: int) -> None:
        self.number = number
        self.attempts: list[tuple[Task, float, int, Usage, bytes]] = []

    def add_unsuccessful(self, task: Task, end: float, wait_status: int, usage: Usage, interrupted: bool) -> None:
        """Add an attempt that did not finish; `end` is in epoch seconds."""
        self.attempts.append((task, end, wait_status, usage, RETURNED if interrupted else FAILED))

    def encode(self, kind: bytes) -> bytes:
        """Remove the collected attempts and return them as one encoded report."""
        number, attempts = self.number, self.attempts
        self.start_batch(number)
        results: list[bytes] = []
        slices: list[bytes] = []
        finished: list[bytes] = []
        failed: list[bytes] = []
        times = bytearray()
        total = 0.0
        alike: tuple[int, bytes] | None = None
        for task, end, wait_status, usage, outcome in attempts:
            if (wait_status, outcome) != alike:
                alike = wait_status, outcome
                result, event = self._forms(task.batch.attempt, wait_status, outcome)
            start, task_id = task.start, task.task_id
            user, system, peak = b"%.6f" % usage[0], b"%.6f" % usage[1], usage[2]
            seconds = end - start
            results.append(with_crc(result % (task_id, start, end, user, system, peak)))
            name, begin, length = quoted(task.command), start * 1e6, max(0.0, seconds) * 1e6
            slices.append(event % (name, begin, length, task_id, user, system, peak))
            total += seconds
            if outcome is FINISHED:
                finished.append(task.line)
                if seconds >= 1:
                    times.append(time_class(seconds))
            elif outcome is FAILED:
                failed.append(task.line)
        return WorkerReport(
            kind,
            self.slot,
            number,
            len(attempts),
            len(finished),
            len(failed),
            total,
            b"".join(results),
            _lines_of(finished),
            _lines_of(failed),
            b"".join(slices),
            bytes(times),
        ).encode()

    def _forms(self, attempt: int, wait_status: int, outcome: bytes) -> tuple[bytes, bytes]:
        """Templates of the lines for the journal and the timeline, for attempts that ended alike."""
        status, signal = _status_and_signal(wait_status)
        return (
            result_form(attempt, self.slot, outcome, status, signal, self.log),
            slice_form(self.farmer, self.slot, attempt, outcome, status, signal),
        )


def _status_and_signal(wait_status: int) -> tuple[int, int]:
    return (0, os.WTERMSIG(wait_status)) if os.WIFSIGNALED(wait_status) else (wait_status >> 8, 0)


def _lines_of(tasks: list[bytes]) -> bytes:
    return b"\n".join(tasks) + b"\n" if tasks else b""
