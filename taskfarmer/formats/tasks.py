"""Task lines: `ID command`, or `ID {"command": ...}` if the command cannot be written on a line as it is."""

from __future__ import annotations

import json
from typing import Any

_JSON_START = b'{"command":'


class TimedCommand(bytes):
    """A command with the number of seconds that its user expects it to take."""

    seconds: float

    @classmethod
    def of(cls, command: bytes, seconds: float) -> TimedCommand:
        found = cls(command)
        found.seconds = seconds
        return found


def task_line(task_id: int, command: bytes) -> bytes:
    """The line of a task, with its newline.

    A command is written as JSON if it has options, has a line break, or looks like our JSON form, so that a reader
    never has to guess. Both forms preserve bytes that are not UTF-8.
    """
    if isinstance(command, TimedCommand):
        text = command.decode("utf-8", "surrogateescape")
        return b"%d %s\n" % (task_id, json.dumps({"command": text, "time": command.seconds}).encode("ascii"))
    if b"\n" in command or b"\r" in command or command.startswith(_JSON_START):
        text = command.decode("utf-8", "surrogateescape")
        command = json.dumps({"command": text}).encode("ascii")
    return b"%d %s\n" % (task_id, command)


def parse_task(line: bytes) -> tuple[int, bytes]:
    """ID and command in a task's line, with or without newline; ValueError if the line is invalid."""
    number, _, command = line.rstrip(b"\n").partition(b" ")
    if command[:1] == b"{" and command.startswith(_JSON_START):
        text = _options(command).get("command")
        if not isinstance(text, str):
            raise ValueError(f"invalid command: {command[:60]!r}")
        command = text.encode("utf-8", "surrogateescape")
    return int(number), command


def task_time(line: bytes) -> float | None:
    """The number of seconds in a task's line; None if the line has no time."""
    _, _, command = line.rstrip(b"\n").partition(b" ")
    if b'"time"' not in command or not command.startswith(_JSON_START):
        return None
    seconds = _options(command).get("time")
    return float(seconds) if isinstance(seconds, (int, float)) and 0 <= seconds < 1e18 else None


def _options(command: bytes) -> Any:
    try:
        return json.loads(command)
    except RecursionError:
        raise ValueError(f"invalid command: {command[:60]!r}") from None
