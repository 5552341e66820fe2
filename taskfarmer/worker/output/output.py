"""The logs of all slots of one worker: made by their mode, and looked at now and then."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import suppress

from taskfarmer.worker.context import SlotContext
from taskfarmer.worker.output.files import FileLogs, Logs, NoLogs
from taskfarmer.worker.output.folder import LogFolder
from taskfarmer.worker.output.packed import Folder, Pack
from taskfarmer.worker.output.scratch import MOMENT, FailedLogs, LimitedLogs, PackedLogs

LOOK_EVERY = 5.0
"""Seconds between looks at the sizes of running tasks' logs, where they have a limit."""


class Output:
    def __init__(self, places: Sequence[SlotContext]) -> None:
        first = places[0]
        folder = LogFolder(first)
        self._pack = Pack(folder)
        running = Folder(folder, self._pack.workdir.running)
        self.slots = {place.slot: _logs_of(place, folder, self._pack, running) for place in places}
        self._limited = first.log_limit > 0 and first.log_mode != "none"
        self._waiting = self._limited or first.log_mode in ("packed", "failed")
        self._looked = 0.0

    def patience(self) -> float | None:
        """Seconds after which `flush` is to be called although nothing happens; None for never."""
        if self._waiting and any(logs.waits for logs in self.slots.values()):
            return MOMENT
        return LOOK_EVERY if self._limited else None

    def flush(self) -> None:
        """Tell the index what there is to tell; hold running tasks to their limit."""
        now = time.monotonic()
        if self._waiting:
            for logs in self.slots.values():
                logs.flush(now)
            self._pack.flush()
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
