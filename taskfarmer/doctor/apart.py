"""Runs a function in a forked process: tests of locks and names need two processes."""

from __future__ import annotations

import errno
import json
import os
import socket
from collections.abc import Callable
from typing import Any

from taskfarmer.proctree import kill_child

PATIENCE = 60.0
"""Seconds without a message after which a process is considered stuck in the file system."""
KILL_PATIENCE = 1.0
"""Seconds to wait for a killed process; a process stuck in the file system is abandoned."""
_BLOCK = 1 << 16
_NOTIFY = b"."


class Channel:
    """A channel between two processes: one byte is a notification; the result follows at the end."""

    def __init__(self, ours: socket.socket) -> None:
        self._socket = ours
        self._socket.settimeout(PATIENCE)

    def notify(self) -> None:
        self._socket.sendall(_NOTIFY)

    def wait(self) -> None:
        """Wait for a notification, or for the exit of the other process; does not consume its result."""
        if self._receive(1, socket.MSG_PEEK) == _NOTIFY:
            self._socket.recv(1)

    def notified(self) -> bool:
        """Whether the other process has sent a notification or exited; does not wait."""
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

    def read_all(self) -> bytes:
        """All bytes until the other process closes the channel."""
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


class ForkedCall(Channel):
    """Runs `action` in a forked process. It is called with its end of the channel, and returns a JSON value.

    The end of the `with` block kills the process if it still runs.
    """

    def __init__(self, action: Callable[[Channel], Any]) -> None:
        ours, theirs = socket.socketpair()
        self._pid = os.fork()
        if self._pid == 0:
            ours.close()
            _run(action, Channel(theirs))
        theirs.close()
        super().__init__(ours)

    def result(self) -> Any:
        """The return value of the function; raises the OSError that it raised."""
        document = json.loads(self.read_all().lstrip(_NOTIFY) or b"null")
        if document is None:
            raise OSError(None, "a process that tested the file system was killed")
        if "error" in document:
            number, text, name = document["error"]
            raise OSError(number, text, name)
        return document["result"]

    def __enter__(self) -> ForkedCall:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
        kill_child(self._pid, KILL_PATIENCE)


def _run(action: Callable[[Channel], Any], channel: Channel) -> None:
    try:
        try:
            answer = {"result": action(channel)}
        except OSError as error:
            answer = {"error": [error.errno, error.strerror or str(error), error.filename]}
        channel.send(json.dumps(answer).encode("ascii"))
    finally:
        os._exit(0)
