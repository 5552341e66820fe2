"""Reading the files of a farm, which may be anybody's: regular files only, and never more than their kind can hold.

Work directories lie in shared scratch, and `status`, `logs`, `check` and `jobs` read those of strangers. A link to
/dev/zero, a FIFO or a sparse file of a terabyte in place of a file must cost neither memory nor time. So a file is
opened without waiting, a document is read up to a limit, and what may be large (results, segments, views, logs) is
read in blocks and split into lines of a limited length. What does not fit is an OSError that names the file:
EINVAL (EISDIR for a directory) if it is not a regular file, EOVERFLOW if it is too long.
"""

from __future__ import annotations

import errno
import os
import stat
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from taskfarmer.formats import limits

T = TypeVar("T")

STALE = (errno.ESTALE, errno.EINTR)
_FIRST_BLOCK, BLOCK = 1 << 16, 1 << 20
"""Bytes that are read at once: most files are shorter than the first."""


def retry_stale(action: Callable[[], T], tries: int = 5) -> T:
    """What `action` returns; tried again while NFS answers that a handle is stale."""
    for left in range(tries - 1, -1, -1):
        try:
            return action()
        except OSError as error:
            if error.errno not in STALE or not left:
                raise
            time.sleep(0.02)
    raise AssertionError("unreachable")


@contextmanager
def with_filename(path: str) -> Iterator[None]:
    """Name the file in errors of calls that were made with its descriptor."""
    try:
        yield
    except OSError as error:
        if error.filename is None:
            error.filename = path
        raise


@contextmanager
def opened(path: str) -> Iterator[int]:
    """A descriptor of a file. Neither a FIFO nor a terminal in its place keeps anybody waiting."""
    fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY)
    try:
        with with_filename(path):
            yield fd
    finally:
        os.close(fd)


def regular(fd: int, path: str) -> int:
    """The size of an open file; OSError if it is not a regular one."""
    found = os.fstat(fd)
    if not stat.S_ISREG(found.st_mode):
        number = errno.EISDIR if stat.S_ISDIR(found.st_mode) else errno.EINVAL
        raise OSError(number, "not a regular file", path)
    return found.st_size


def read(path: str, most: int = limits.DOCUMENT) -> bytes:
    """The whole file of at most so many bytes. Opened anew, since NFS looks at the server only then (close-to-open).

    On a file system that many nodes share, to ask for the status of a file costs more than to read it. So only one
    that does not end within the first block is asked what it is: a FIFO is empty until then, and a device gives more.
    """

    def attempt() -> bytes:
        with opened(path) as fd:
            return _whole(fd, path, most)

    return retry_stale(attempt)


def _whole(fd: int, path: str, most: int) -> bytes:
    parts: list[bytes] = []
    size = 0
    try:
        while part := os.read(fd, BLOCK if parts else _FIRST_BLOCK):
            parts.append(part)
            known, size = size, size + len(part)
            if (known < _FIRST_BLOCK <= size and regular(fd, path) > most) or size > most:
                raise OSError(errno.EOVERFLOW, f"longer than the {most} bytes that such a file may have", path)
    except BlockingIOError:
        pass  # a FIFO that somebody has open
    return parts[0] if len(parts) == 1 else b"".join(parts)


def read_range(path: str, start: int, stop: int) -> bytes:
    """Bytes `start` to `stop` of the file; fewer where it is shorter."""

    def attempt() -> bytes:
        with opened(path) as fd:
            os.lseek(fd, start, os.SEEK_SET)
            return b"".join(blocks(fd, stop - start))

    return retry_stale(attempt)


def blocks(fd: int, size: int | None = None) -> Iterator[bytes]:
    """What follows in an open file, up to `size` bytes or to its end, a block at a time."""
    try:
        while size is None or size > 0:
            data = os.read(fd, BLOCK if size is None else min(size, BLOCK))
            if not data:
                return
            if size is not None:
                size -= len(data)
            yield data
    except BlockingIOError:
        pass


def lines(fd: int, longest: int, size: int | None = None) -> Iterator[bytes]:
    """The lines that follow in an open file, each with its line feed; the last one may have none.

    A line that is longer than `longest` bytes is cut there, so it has no line feed, and nothing follows it.
    """
    rest: list[bytes] = []
    kept = 0
    for data in blocks(fd, size):
        end = data.rfind(b"\n") + 1
        if end:
            whole = b"".join([*rest, data[:end]])
            rest, kept = [], 0
            for line in whole.splitlines(keepends=True) if b"\r" not in whole else _split(whole):
                if len(line) > longest:
                    yield line[:longest]
                    return
                yield line
        if end < len(data):
            rest.append(data[end:])
            kept += len(data) - end
            if kept > longest:
                yield b"".join(rest)[:longest]
                return
    if rest:
        yield b"".join(rest)


def _split(data: bytes) -> list[bytes]:
    return [line + b"\n" for line in data.split(b"\n")[:-1]]
