"""The logs of all slots of one worker: made by their mode, and looked at now and then."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from contextlib import suppress

from taskfarmer.worker.context import SlotContext
from taskfarmer.worker.output.files import FileLogs, Logs, NoLogs
from taskfarmer.worker.output.folder import LogFolder
from taskfarmer.worker.output.packed import Folder, Pack
from taskfarmer.worker.output.scratch import FailedLogs, LimitedLogs, PackedLogs

LOOK_EVERY = 5.0
"""Seconds between looks at the sizes of running tasks' logs, where they have a limit."""


class Output:
    def __init__(self, places: Sequence[SlotContext]) -> None:
        first = places[0]
        folder = LogFolder(first)
        pack = Pack(folder)
        running = Folder(folder, pack.workdir.running)
        self.slots = {place.slot: _logs_of(place, folder, pack, running) for place in places}
        self._limited = first.log_limit > 0 and first.log_mode != "none"
        self._announces = self._limited or first.log_mode in ("packed", "failed")
        self._looked = 0.0

    def patience(self) -> float | None:
        """Seconds after which `flush` is to be called although nothing happens; None for never."""
        next_time = min(logs.announce_at for logs in self.slots.values()) if self._announces else math.inf
        if next_time < math.inf:
            return max(0.0, next_time - time.monotonic())
        return LOOK_EVERY if self._limited else None

    def flush(self) -> None:
        """Announce the scratch files of running tasks; hold these to their limit."""
        now = time.monotonic()
        if self._announces:
            for logs in self.slots.values():
                if now >= logs.announce_at:
                    logs.announce()
        if self._limited and now - self._looked >= LOOK_EVERY:
            self._looked = now
            for logs in self.slots.values():
                with suppress(OSError):  # it is looked at again
                    logs.look()

    def close(self) -> None:
        self.flush()
        for logs in self.slots.values():
            logs.close()


def _logs_of(place: SlotContext, folder: LogFolder, pack: Pack, running: Folder) -> Logs:
    if place.log_mode == "none":
        return NoLogs(place)
    if place.log_mode == "packed":
        return PackedLogs(place, pack, running)
    if place.log_mode == "failed":
        return FailedLogs(place, folder, pack, running)
    return LimitedLogs(place, folder, pack, running) if place.log_limit else FileLogs(folder)
