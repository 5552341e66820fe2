"""The logs of all slots of one worker."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence

from taskfarmer.worker.context import SlotContext
from taskfarmer.worker.output.files import FileLogs, Logs, NoLogs
from taskfarmer.worker.output.folder import LogFolder
from taskfarmer.worker.output.packed import Folder, Pack
from taskfarmer.worker.output.scratch import FailedLogs, LimitedLogs, PackedLogs


class Output:
    """Makes the logs of each slot by `--logs`, and announces the scratch files of tasks that run longer."""

    def __init__(self, places: Sequence[SlotContext]) -> None:
        folder = LogFolder(places[0])
        pack = Pack(folder)
        running = Folder(folder, pack.workdir.running)
        self.slots = {place.slot: _logs_of(place, folder, pack, running) for place in places}

    def patience(self) -> float | None:
        """Seconds after which `flush` is to be called although nothing happens; None for never."""
        next_time = min(logs.announce_at for logs in self.slots.values())
        return max(0.0, next_time - time.monotonic()) if next_time < math.inf else None

    def flush(self) -> None:
        """Announce the scratch files of tasks that have been running for a moment."""
        now = time.monotonic()
        for logs in self.slots.values():
            if now >= logs.announce_at:
                logs.announce()

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
