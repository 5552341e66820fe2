"""How much may be written: `--log-limit`, and whether the disk has room for more.

When a task has written more than its limit, the middle of its output is cut out after it ends. A line in its place
contains the number of bytes.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator

from taskfarmer.storage import durable

_PAGE = 4096
_BLOCK = 1 << 20
Span = tuple[int, int] | bytes
"""What is kept of a file: a range of its bytes, or a line in their place."""
_FULL = (errno.ENOSPC, errno.EDQUOT)


def missing(size: int) -> bytes:
    """The line that stands for what was cut out."""
    return b"\n=== taskfarmer: %d bytes were cut out here (--log-limit) ===\n" % size


def kept(start: int, end: int, limit: int) -> Iterator[Span]:
    """What is kept of the bytes `start` to `end` of a file: ranges of it, and the line between them.

    Nothing is cut out where that would make room for less than the line.
    """
    size, half = end - start, limit // 2
    cut = size - 2 * half
    line = missing(cut)
    if not limit or cut <= len(line):
        yield start, end
        return
    yield start, start + half
    yield line
    yield end - half, end


def shorten(fd: int, start: int, limit: int) -> None:
    """Cut the middle out of the bytes of a file from `start` on; it is open for both, and not to append."""
    place = start
    for part in list(kept(start, os.fstat(fd).st_size, limit)):
        if isinstance(part, bytes):
            place += _put(fd, part, place)
            continue
        begin, end = part
        if begin == place:
            place = end
            continue
        while begin < end:
            data = os.pread(fd, min(_BLOCK, end - begin), begin)
            if not data:
                break
            place += _put(fd, data, place)
            begin += len(data)
    os.ftruncate(fd, place)


def _put(fd: int, data: bytes, place: int) -> int:
    view = memoryview(data)
    while view:
        written = os.pwrite(fd, view, place)
        view, place = view[written:], place + written
    return len(data)


def has_room(fd: int, by_writing: bool = True) -> bool:
    """Whether the file system of an open directory has room for more; True where it does not say.

    That a quota is exceeded, or that no more files can be made, is only seen `by_writing` a small file.
    """
    try:
        found = os.fstatvfs(fd)
    except OSError:
        return True
    if found.f_blocks and not found.f_bavail:
        return False
    return not by_writing or _takes_a_file(fd)


def _takes_a_file(fd: int) -> bool:
    name = f".probe.{durable.random_name()}"
    try:
        probe = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, durable.FILE_MODE, dir_fd=fd)
        try:
            try:
                durable.write_all(probe, bytes(_PAGE))
            finally:
                os.close(probe)
        finally:
            os.unlink(name, dir_fd=fd)
    except OSError as error:
        return error.errno not in _FULL
    return True
