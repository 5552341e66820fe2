"""The status of a farm, as text and as JSON."""

from __future__ import annotations

import json
import os
from dataclasses import asdict
from typing import Any

from taskfarmer.inspect.status import Failure, FarmerStatus, Status
from taskfarmer.ui.printable import json_safe, local_time, printable, shell_word
from taskfarmer.ui.table import table

SCHEMA = 1
_COMMAND_WIDTH = 60
_LOCKS = {
    "shared": "shared between nodes",
    "local": "not shared between nodes: farmers contend, which costs time but no data",
    "unsupported": "not supported by the file system: farmers contend, which costs time but no data",
}


def as_json(status: Status) -> str:
    """Return one JSON document. `schema_version` increases if a member's meaning changes, not if members are added."""
    document: dict[str, Any] = {"schema_version": SCHEMA, **asdict(status)}
    return json.dumps(json_safe(document), indent=2) + "\n"


def as_text(status: Status, width: int | None = None) -> str:
    """Return lines and tables for a terminal of `width` columns; None if stdout is not a terminal."""
    parts = [_totals(status)]
    if status.farmers:
        rows = [_farmer_row(farmer) for farmer in status.farmers]
        header = ["FARMER", "HOST", "PID", "JOB", "SLOTS", "HELD", "RUNNING", "STARTED", "STATE", "WHY"]
        parts.append(table(header, rows, width))
    if status.failures:
        rows = [_failure_row(failure) for failure in status.failures]
        parts.append(table(["FAILED", "ATTEMPT", "ENDED", "HOW", "COMMAND", "LOG"], rows, width))
        if status.failed > len(status.failures):
            all_failures = shell_word(status.workdir + "/failed")
            parts.append(f"the newest of {status.failed} failures; all are in {all_failures}\n")
    return "\n".join(parts)


def _totals(status: Status) -> str:
    lines = [
        f"{'farm':<12} {printable(status.workdir)} (revision {status.revision}, {status.farm})",
        f"{'task list':<12} {printable(status.list_path)}"
        + (f" (handler {printable(status.handler)})" if status.handler != "default" else ""),
        f"{'tasks':<12} {status.tasks}",
    ]
    for name in ("finished", "failed", "held", "unprocessed"):
        count = getattr(status, name)
        share = f"  {100 * count / status.tasks:5.1f} %" if status.tasks else ""
        lines.append(f"  {name:<11} {count}{share}")
    lines.append(f"{'farmers':<12} {len(status.farmers)}")
    if status.group is not None:
        lines.append(f"{'group':<12} members of {printable(status.group)} may join")
    if status.locks is not None:
        lines.append(f"{'locks':<12} {_LOCKS.get(status.locks, status.locks)} ({' and '.join(status.locks_between)})")
    return "\n".join(lines) + "\n"


def _farmer_row(farmer: FarmerStatus) -> list[str]:
    return [
        farmer.farmer,
        farmer.host or "?",
        str(farmer.pid or "?"),
        farmer.job or "-",
        str(farmer.slots),
        str(farmer.held),
        str(farmer.running),
        local_time(farmer.started) if farmer.started is not None else "?",
        farmer.verdict,
        farmer.evidence,
    ]


def describe_failure(failure: Failure) -> str:
    if failure.outcome == "lost":
        return "lost: farmers or workers died"
    return f"signal {failure.signal}" if failure.signal else f"exit status {failure.status}"


def _failure_row(failure: Failure) -> list[str]:
    relative = os.path.relpath(failure.log)
    return [
        str(failure.task_id),
        str(failure.attempt),
        local_time(failure.end),
        describe_failure(failure),
        printable(failure.command, _COMMAND_WIDTH),
        min(failure.log, relative, key=len),
    ]
