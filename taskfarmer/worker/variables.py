"""Variables of this process that have another value for each task.

The C library keeps every value that a variable was ever set to: glibc never frees one, and looks through all of them
whenever one is set. A million tasks cost a worker 140 megabytes so, and six microseconds each. Here the text is in
memory of ours, to which the environment points, and is changed where it is.
"""

from __future__ import annotations

import ctypes
import os
from typing import Any

_ROOM = 20
"""Bytes for a value before there must be a larger text: a 64-bit number's."""


class Variable:
    """A variable in `os.environ`, and in the environment of whatever this process starts without naming one.

    Somebody else may set or delete it meanwhile; the next `set` is seen all the same.
    """

    def __init__(self, name: bytes) -> None:
        self.name = name
        self._start = len(name) + 1
        self._room = 0
        self._text: Any = None
        self._bytes = bytearray()
        self._last: object = self  # what Python shows where nobody else has changed it
        self._shown = _shown_by_python()

    def set(self, value: bytes) -> None:
        shown = self._shown
        if shown is None:
            os.environb[self.name] = value
            return
        end = self._start + len(value) + 1
        if end > self._room:
            self._make_room(len(value))
        elif shown.get(self.name) is not self._last:
            _putenv(self._text)
        self._bytes[self._start : end] = value + b"\0"
        shown[self.name] = self._last = value

    def _make_room(self, size: int) -> None:
        room = self._start + max(_ROOM, 2 * size) + 1
        fresh = bytearray(self.name + b"=").ljust(room, b"\0")
        text = (ctypes.c_char * room).from_buffer(fresh)
        _putenv(text)
        self._bytes, self._text, self._room = fresh, text, room  # the old text goes now that nothing points to it


def _shown_by_python() -> dict[bytes, bytes] | None:
    """What `os.environ` is a view of; None where this Python has it elsewhere, or calls nothing by ctypes."""
    shown = getattr(os.environb, "_data", None)
    return shown if isinstance(shown, dict) and _putenv is not None else None


def _find_putenv() -> Any:
    try:
        return ctypes.CDLL(None).putenv
    except (OSError, AttributeError):
        return None


_putenv = _find_putenv()
