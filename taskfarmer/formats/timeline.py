"""Events of the trace event format (Chrome's, which Perfetto reads) for attempts and their farmers.

A farmer is a process of the trace and a slot a thread of it, so that slices of one thread never
overlap. Times are microseconds. https://docs.google.com/document/d/1CvAClvFfyA5R-PhYUmn5OOQtYMH4h6I0nSsKchNAySU
"""

from __future__ import annotations

import json
import re

_NAME = 256
_NOT_PLAIN = re.compile(rb"[^ !#-\[\]-~]").search
"""What JSON would write in another way: quotes, backslashes, control characters, and all that is not ASCII."""


def farmer_number(farmer: str) -> int:
    """The process number of a farmer in a timeline: the random part of its ID, at most 31 bits."""
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
    """One complete event (`ph` X) for an attempt, `,\\n` before it. `start` and `end` are epoch seconds."""
    form = slice_form(farmer, slot, attempt, outcome, status, number)
    times = start * 1e6, max(0.0, end - start) * 1e6
    return form % (quoted(command), *times, task_id, b"%.6f" % user, b"%.6f" % system, peak)


def slice_form(farmer: int, slot: int, attempt: int, outcome: bytes, status: int, number: int) -> bytes:
    """What events of attempts that ended alike have in common.

    A format of the quoted command, start and duration in microseconds, ID, CPU seconds as bytes, and peak.
    """
    return (
        b',\n{"name":%%s,"cat":"task","ph":"X","ts":%%d,"dur":%%d,"pid":%d,"tid":%d,"args":{"id":%%d,"attempt":%d,'
        b'"outcome":"%s","exit_status":%d,"signal":%d,"user_s":%%s,"system_s":%%s,"peak_kb":%%d}}'
        % (farmer, slot, attempt, outcome, status, number)
    )


def quoted(command: bytes) -> bytes:
    """A command as JSON, cut where it is long."""
    if len(command) <= _NAME and not _NOT_PLAIN(command):
        return b'"%s"' % command
    text = command.decode("utf-8", "replace")
    return json.dumps(text if len(text) <= _NAME else text[:_NAME] + "…").encode("ascii")


def named(number: int, name: str, slots: int, labels: str = "") -> bytes:
    """Metadata events (`ph` M) that name a farmer's process and its slots, `,\\n` before each."""
    events = [_name("process_name", number, 0, name)]
    if labels:
        events.append(_name("process_labels", number, 0, labels, "labels"))
    events += [_name("thread_name", number, slot, f"slot {slot}") for slot in range(slots)]
    return b"".join(events)


def _name(kind: str, pid: int, tid: int, text: str, member: str = "name") -> bytes:
    document = {"name": kind, "ph": "M", "pid": pid, "tid": tid, "args": {member: text}}
    return b",\n" + json.dumps(document).encode("ascii")
