"""Stores a command that is too long for an argument in a file that a shell can read."""

from __future__ import annotations

import os

# The largest single argument on Linux, including its final NUL (execve(2), MAX_ARG_STRLEN).
ARGUMENT_LIMIT = 131072


def is_too_long(command: str) -> bool:
    """Whether `command` is too long to be one argument of a program."""
    # A character has at most 4 bytes, so short commands, nearly all of them, need not be encoded to be measured.
    return len(command) * 4 >= ARGUMENT_LIMIT and len(os.fsencode(command)) >= ARGUMENT_LIMIT


class Script:
    """A file that contains a command until `close`. It is in memory (memfd), so a crash leaves no file.

    If the system has no memfd, it is a file in $TMPDIR; a worker that is killed with SIGKILL does not remove that.
    """

    def __init__(self, command: str) -> None:
        self._file: str | None = None
        self._descriptor = -1
        try:
            # No close-on-exec: the shell opens it through /proc/self/fd.
            self._descriptor = os.memfd_create("task", 0)
            self.path = f"/proc/self/fd/{self._descriptor}"
            os.stat(self.path)  # fails if /proc is not mounted
        except (AttributeError, OSError):
            if self._descriptor >= 0:
                os.close(self._descriptor)
            folder = os.environ.get("TMPDIR") or "/tmp"
            self._file = self.path = f"{folder}/taskfarmer-{os.getpid()}-{os.urandom(8).hex()}"
            self._descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            self._write(os.fsencode(command))
        except OSError:
            self.close()
            raise

    def close(self) -> None:
        """Close and remove the file. A shell that is still running has its own descriptor."""
        os.close(self._descriptor)
        if self._file is not None:
            os.unlink(self._file)

    def _write(self, text: bytes) -> None:
        rest = memoryview(text)
        while rest:
            rest = rest[os.write(self._descriptor, rest) :]
