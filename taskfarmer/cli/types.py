"""Types of option values, with an error message for each invalid value."""

from __future__ import annotations

import math
import re
import signal
from typing import TYPE_CHECKING

import click

from taskfarmer.formats.durations import seconds

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

MOST_PROCESSES = 4096
LEAST_SIZE = 1024
"""Of a log: in a smaller one, the line about the removed bytes would take up too much."""


class Duration(click.ParamType):  # type: ignore[type-arg]  # generic since click 8.4 only
    """Convert a duration to seconds; with `or_none`, `none` means infinite."""

    name = "duration"

    def __init__(self, least: float = 0.0, or_none: bool = False, positive: bool = False) -> None:
        self.least = least
        self.or_none = or_none
        self.positive = positive

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> float | None:
        if not isinstance(value, str):
            return value  # type: ignore[return-value]
        if self.or_none and value.strip().lower() == "none":
            return math.inf
        try:
            found = seconds(value)
        except ValueError as error:
            self.fail(str(error), param, ctx)
        if self.positive and not found:
            self.fail("must be longer than 0 s" + ("; use `none` for no limit" if self.or_none else ""), param, ctx)
        if found < self.least:
            self.fail(f"must be at least {self.least:g} s", param, ctx)
        return found


class SignalName(click.ParamType):  # type: ignore[type-arg]  # generic since click 8.4 only
    """Convert a signal's number or name, with or without SIG, to its number."""

    name = "signal"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> int:
        text = str(value).upper()
        number = int(text) if text.isdecimal() else getattr(signal, "SIG" + text.removeprefix("SIG"), 0)
        if number not in signal.valid_signals() or number in (signal.SIGKILL, signal.SIGSTOP):
            self.fail(f"{value!r} is not a signal that a task can catch; use a name like USR1", param, ctx)
        return int(number)


class Processes(click.ParamType):  # type: ignore[type-arg]  # generic since click 8.4 only
    """Convert a number of concurrent tasks; `auto` is the number of CPUs that this process may use."""

    name = "processes"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> int:
        if isinstance(value, int):
            return value
        text = str(value)
        if text.lower() == "auto":
            from taskfarmer.cpus import usable_cpus  # imported late: only `auto` needs it

            return min(usable_cpus(), MOST_PROCESSES)
        if not re.fullmatch(r"[+-]?\d{1,18}", text, re.ASCII):
            self.fail(
                f"{text!r} is not a number of tasks; if it is the task list, write `-n auto {text}` (-n without a "
                "number works only at the end or before another option)",
                param,
                ctx,
            )
        if not 1 <= int(text) <= MOST_PROCESSES:
            self.fail(f"must be 1 to {MOST_PROCESSES}, not {int(text)}", param, ctx)
        return int(text)


class Size(click.ParamType):  # type: ignore[type-arg]  # generic since click 8.4 only
    """Convert a size with a suffix to bytes; 0 means no limit. As in GNU tools, `k` is 1024 and `kB` is 1000."""

    name = "size"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> int:
        match = re.fullmatch(r"(\d{1,15})(?:([kmgt])(i?b)?|b)?", str(value).strip(), re.ASCII | re.IGNORECASE)
        if match is None:
            self.fail(f"{value!r} is not a size; use 64k, 10M, 1G or a number of bytes", param, ctx)
        base = 1000 if (match[3] or "").lower() == "b" else 1024
        size = int(match[1]) * int(base ** (1 + "kmgt".index(match[2].lower())) if match[2] else 1)
        if 0 < size < LEAST_SIZE:
            self.fail(f"must be at least {LEAST_SIZE // 1024}k", param, ctx)
        return size


class Name(click.ParamType):  # type: ignore[type-arg]  # generic since click 8.4 only
    """A path that is not empty; it need not exist."""

    name = "path"

    def __init__(self, only_folders: bool = False) -> None:
        self.only_folders = only_folders

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> str:
        if not value:
            self.fail("empty path", param, ctx)
        return str(value)

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        from click.shell_completion import CompletionItem

        return [CompletionItem(incomplete, type="dir" if self.only_folders else "file")]
