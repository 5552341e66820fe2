"""The logs of all slots of one worker."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence

from taskfarmer.worker.context import SlotContext
from taskfarmer.worker.output.files import FileLogs, Logs, NoLogs
from taskfarmer.worker.output.folder import LogFolder
from taskfarmer.worker.output.packed import LogSubdirectory, PackWriter
from taskfarmer.worker.output.scratch import FailedLogs, LimitedLogs, PackedLogs


class Output:
    """Creates the logs of each slot for the farmer's `--logs`, and announces the scratch files of running tasks."""

    def __init__(self, contexts: Sequence[SlotContext]) -> None:
        folder = LogFolder(contexts[0])
        pack = PackWriter(folder)
        running = LogSubdirectory(folder, pack.workdir.running)
        self.slots = {context.slot: _logs_of(context, folder, pack, running) for context in contexts}

    def seconds_until_flush(self) -> float | None:
        """Seconds until `flush` must be called although no task ends; None if it need not be called."""
        announce_at = min(logs.announce_at for logs in self.slots.values())
        return max(0.0, announce_at - time.monotonic()) if announce_at < math.inf else None

    def flush(self) -> None:
        """Announce the scratch files of tasks that have been running long enough."""
        now = time.monotonic()
        for logs in self.slots.values():
            if now >= logs.announce_at:
                logs.announce()

    def close(self) -> None:
        self.flush()
        for logs in self.slots.values():
            logs.close()


def _logs_of(context: SlotContext, folder: LogFolder, pack: PackWriter, running: LogSubdirectory) -> Logs:
    if context.log_mode == "none":
        return NoLogs(context)
    if context.log_mode == "packed":
        return PackedLogs(context, pack, running)
    if context.log_mode == "failed":
        return FailedLogs(context, folder, pack, running)
    return LimitedLogs(context, folder, pack, running) if context.log_limit else FileLogs(folder)
