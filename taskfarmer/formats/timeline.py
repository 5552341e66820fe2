"""Events in the trace event format (Chrome, Perfetto) for attempts and their farmers.

A farmer is a process of the trace and a slot is a thread of it, so slices of one thread never overlap. Times are in
microseconds. https://docs.google.com/document/d/1CvAClvFfyA5R-PhYUmn5OOQtYMH4h6I0nSsKchNAySU
"""

from __future__ import annotations

import json
import re

_NAME = 256
_NOT_PLAIN = re.compile(rb"[^ !#-\[\]-~]").search
"""Finds bytes that JSON escapes: quotes, backslashes, control characters, and everything outside of ASCII."""


def farmer_number(farmer: str) -> int:
    """The process number of a farmer in a timeline: the random suffix of its ID, at most 31 bits."""
    return int(farmer[-8:], 16) & 0x7FFFFFFF


def time_slice(
    farmer: int,
    slot: int,
    task_id: int,
    attempt: int,
    command: bytes,
    start: float,
    end: float,
    outcome: bytes,
    status: int,
    number: int,
    user: float,
    system: float,
    peak: int,
) -> bytes:
    """One complete event (`ph` X) for an attempt, preceded by `,\\n`. `start` and `end` are seconds since the epoch."""
    form = slice_form(farmer, slot, attempt, outcome, status, number)
    times = start * 1e6, max(0.0, end - start) * 1e6
    return form % (quoted(command), *times, task_id, b"%.6f" % user, b"%.6f" % system, peak)


def slice_form(farmer: int, slot: int, attempt: int, outcome: bytes, status: int, number: int) -> bytes:
    """A format string for events of attempts with the same end.

    Its fields: quoted command, start and duration in microseconds, ID, CPU seconds as bytes, and peak.
    """
    return (
        b',\n{"name":%%s,"cat":"task","ph":"X","ts":%%d,"dur":%%d,"pid":%d,"tid":%d,"args":{"id":%%d,"attempt":%d,'
        b'"outcome":"%s","exit_status":%d,"signal":%d,"user_s":%%s,"system_s":%%s,"peak_kb":%%d}}'
        % (farmer, slot, attempt, outcome, status, number)
    )


def quoted(command: bytes) -> bytes:
    """A command as JSON, shortened if it is long."""
    if len(command) <= _NAME and not _NOT_PLAIN(command):
        return b'"%s"' % command
    text = command.decode("utf-8", "replace")
    return json.dumps(text if len(text) <= _NAME else text[:_NAME] + "…").encode("ascii")


def named(number: int, name: str, slots: int, labels: str = "") -> bytes:
    """Metadata events (`ph` M) that name a farmer's process and its slots, each preceded by `,\\n`."""
    events = [_name("process_name", number, 0, name)]
    if labels:
        events.append(_name("process_labels", number, 0, labels, "labels"))
    events += [_name("thread_name", number, slot, f"slot {slot}") for slot in range(slots)]
    return b"".join(events)


def _name(kind: str, pid: int, tid: int, text: str, member: str = "name") -> bytes:
    document = {"name": kind, "ph": "M", "pid": pid, "tid": tid, "args": {member: text}}
    return b",\n" + json.dumps(document).encode("ascii")
