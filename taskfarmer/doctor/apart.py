"""A function in a process of its own: two processes are what a lock or a name has to tell apart."""

from __future__ import annotations

import errno
import json
import os
import socket
from collections.abc import Callable
from typing import Any

from taskfarmer.proctree import kill_child

PATIENCE = 60.0
"""Seconds after which a process that says nothing is taken for stuck in the file system."""
LAST_BREATH = 1.0
"""Seconds that a killed process has to be gone; one that the kernel holds in the file system is left behind."""
_BLOCK = 1 << 16
_NOD = b"."


class Line:
    """What two processes say to each other: a byte for a nod, and at the end the result."""

    def __init__(self, ours: socket.socket) -> None:
        self._socket = ours
        self._socket.settimeout(PATIENCE)

    def nod(self) -> None:
        self._socket.sendall(_NOD)

    def wait(self) -> None:
        """Wait for a nod; the end of the other process counts as one, and its result is left to be read."""
        if self._receive(1, socket.MSG_PEEK) == _NOD:
            self._socket.recv(1)

    def gone(self) -> bool:
        """Whether the other side has nodded or ended since, without waiting."""
        self._socket.setblocking(False)
        try:
            self._socket.recv(1)
        except BlockingIOError:
            return False
        finally:
            self._socket.settimeout(PATIENCE)
        return True

    def send(self, data: bytes) -> None:
        self._socket.sendall(data)

    def rest(self) -> bytes:
        """All that comes until the other side ends."""
        data = b""
        while block := self._receive(_BLOCK):
            data += block
        return data

    def _receive(self, size: int, flags: int = 0) -> bytes:
        try:
            return self._socket.recv(size, flags)
        except TimeoutError as error:
            raise OSError(errno.ETIMEDOUT, f"no answer for {PATIENCE:g} s") from error

    def close(self) -> None:
        self._socket.close()


class ForkedCall(Line):
    """`action` in a forked process. It gets its end of the line, and returns what JSON can hold.

    At the end of a `with` block the process is ended, if it has not ended by itself.
    """

    def __init__(self, action: Callable[[Line], Any]) -> None:
        ours, theirs = socket.socketpair()
        self._pid = os.fork()
        if self._pid == 0:
            ours.close()
            _run(action, Line(theirs))
        theirs.close()
        super().__init__(ours)

    def result(self) -> Any:
        """What the function returned; the OSError that it ended with is raised here."""
        document = json.loads(self.rest().lstrip(_NOD) or b"null")
        if document is None:
            raise OSError(None, "a process that tried the file system was killed")
        if "error" in document:
            number, text, name = document["error"]
            raise OSError(number, text, name)
        return document["result"]

    def __enter__(self) -> ForkedCall:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
        kill_child(self._pid, LAST_BREATH)


def _run(action: Callable[[Line], Any], line: Line) -> None:
    try:
        try:
            answer = {"result": action(line)}
        except OSError as error:
            answer = {"error": [error.errno, error.strerror or str(error), error.filename]}
        line.send(json.dumps(answer).encode("ascii"))
    finally:
        os._exit(0)
