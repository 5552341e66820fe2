"""Reading the files of a farm, which may belong to a stranger: regular files only, with a maximum size for each kind.

Work directories lie in shared scratch space, and `status`, `logs`, `check` and `jobs` read those of other users. A link
to /dev/zero, a FIFO, or a sparse file of a terabyte must not use much memory or time. So files are opened without
blocking, documents are read up to a limit, and large files (results, segments, views, logs) are read in blocks and
split into lines of limited length. Otherwise an OSError names the file: EINVAL (EISDIR for a directory) if it is not a
regular file, EOVERFLOW if it is too long.
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
"""Bytes per read: most files are shorter than the first block."""


def retry_stale(action: Callable[[], T], tries: int = 5) -> T:
    """The result of `action`, which is retried if NFS answers that a file handle is stale."""
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
    """Add the file name to errors of calls on its descriptor."""
    try:
        yield
    except OSError as error:
        if error.filename is None:
            error.filename = path
        raise


@contextmanager
def opened(path: str) -> Iterator[int]:
    """A read-only descriptor of a file. A FIFO or a terminal in its place does not block."""
    fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY)
    try:
        with with_filename(path):
            yield fd
    finally:
        os.close(fd)


def regular(fd: int, path: str) -> int:
    """The size of an open file; OSError if it is not a regular file."""
    found = os.fstat(fd)
    if not stat.S_ISREG(found.st_mode):
        number = errno.EISDIR if stat.S_ISDIR(found.st_mode) else errno.EINVAL
        raise OSError(number, "not a regular file", path)
    return found.st_size


def read(path: str, most: int = limits.DOCUMENT) -> bytes:
    """The content of a file of at most `most` bytes. The file is opened again each time, since NFS asks the server only
    then (close-to-open).

    On a shared file system a status request costs more than a read. So only a file that does not end within the first
    block is checked: a FIFO is empty at first, and a device delivers more than a block.
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
        pass  # a FIFO with a writer
    return parts[0] if len(parts) == 1 else b"".join(parts)


def read_range(path: str, start: int, stop: int) -> bytes:
    """Bytes `start` to `stop` of the file; fewer if it is shorter."""

    def attempt() -> bytes:
        with opened(path) as fd:
            os.lseek(fd, start, os.SEEK_SET)
            return b"".join(blocks(fd, stop - start))

    return retry_stale(attempt)


def blocks(fd: int, size: int | None = None) -> Iterator[bytes]:
    """The next `size` bytes of an open file, or all up to its end, in blocks."""
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
    """The next lines of an open file, each with its line feed; the last one may have no line feed.

    A line longer than `longest` bytes is cut at that length, without a line feed, and the iteration stops.
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
