"""A farm's status for people and for programs."""

from __future__ import annotations

import json
import os
from dataclasses import asdict
from typing import Any

from taskfarmer.inspect.status import Failure, FarmerStatus, Status
from taskfarmer.ui.printable import moment, printable, shell_word, unicode
from taskfarmer.ui.table import table

SCHEMA = 1
_COMMAND = 60
_LOCKS = {
    "shared": "shared between nodes",
    "local": "not shared between nodes: farmers collide, which takes time and loses nothing",
    "unsupported": "the file system has none: farmers collide, which takes time and loses nothing",
}


def as_json(status: Status) -> str:
    """One JSON document. `schema_version` rises when a member changes its meaning; members may be added."""
    document: dict[str, Any] = {"schema_version": SCHEMA, **asdict(status)}
    return json.dumps(unicode(document), indent=2) + "\n"


def as_text(status: Status, width: int | None = None) -> str:
    """Lines and tables; `width` is that of the terminal, None for anything else."""
    parts = [_head(status)]
    if status.farmers:
        rows = [_farmer_row(farmer) for farmer in status.farmers]
        header = ["FARMER", "HOST", "PID", "JOB", "SLOTS", "HELD", "RUNNING", "STARTED", "STATE", "WHY"]
        parts.append(table(header, rows, width))
    if status.failures:
        rows = [_failure_row(failure) for failure in status.failures]
        parts.append(table(["FAILED", "ATTEMPT", "ENDED", "HOW", "COMMAND", "LOG"], rows, width))
        if status.failed > len(status.failures):
            parts.append(f"these are the newest of {status.failed}; all: {shell_word(status.workdir + '/failed')}\n")
    return "\n".join(parts)


def _head(status: Status) -> str:
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
        moment(farmer.started) if farmer.started is not None else "?",
        farmer.verdict,
        farmer.evidence,
    ]


def how(failure: Failure) -> str:
    """How a task failed, in words."""
    if failure.outcome == "lost":
        return "lost: farmers or workers died"
    return f"signal {failure.signal}" if failure.signal else f"exit status {failure.status}"


def _failure_row(failure: Failure) -> list[str]:
    return [
        str(failure.task_id),
        str(failure.attempt),
        moment(failure.end),
        how(failure),
        printable(failure.command, _COMMAND),
        os.path.relpath(failure.log) if len(os.path.relpath(failure.log)) < len(failure.log) else failure.log,
    ]
