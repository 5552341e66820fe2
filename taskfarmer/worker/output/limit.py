"""Limits of output: `--log-limit`, and whether the disk of the logs has free space.

If a task writes more than its limit, the middle of its output is cut out after it ends. A line in its place contains
the number of bytes that were cut out.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator

from taskfarmer.storage import durable

_PROBE_SIZE = 4096
_BLOCK = 1 << 20
Span = tuple[int, int] | bytes
"""A part of a shortened file: a range of bytes of the original file, or the line in place of the middle."""
_FULL = (errno.ENOSPC, errno.EDQUOT)


def cut_line(size: int) -> bytes:
    """The line in place of `size` bytes that were cut out."""
    return b"\n=== taskfarmer: %d bytes were cut out here (--log-limit) ===\n" % size


def kept_spans(start: int, end: int, limit: int) -> Iterator[Span]:
    """The spans to keep of the bytes `start` to `end` of a file.

    Nothing is cut out if the line in its place would be longer.
    """
    size, half = end - start, limit // 2
    cut = size - 2 * half
    line = cut_line(cut)
    if not limit or cut <= len(line):
        yield start, end
        return
    yield start, start + half
    yield line
    yield end - half, end


def cut_out_middle(fd: int, start: int, limit: int) -> None:
    """Shorten a file to `limit` bytes after `start`. `fd` is open for reading and writing, without O_APPEND."""
    target = start
    for span in list(kept_spans(start, os.fstat(fd).st_size, limit)):
        if isinstance(span, bytes):
            target += _write_at(fd, span, target)
            continue
        source, end = span
        if source == target:
            target = end
            continue
        while source < end:
            data = os.pread(fd, min(_BLOCK, end - source), source)
            if not data:
                break
            target += _write_at(fd, data, target)
            source += len(data)
    os.ftruncate(fd, target)


def _write_at(fd: int, data: bytes, offset: int) -> int:
    view = memoryview(data)
    while view:
        written = os.pwrite(fd, view, offset)
        view, offset = view[written:], offset + written
    return len(data)


def has_room(fd: int, by_writing: bool = True) -> bool:
    """Whether the file system of an open directory has free space; True if that is unknown.

    An exceeded quota, or a file system without free inodes, is only noticed `by_writing` a small file.
    """
    try:
        found = os.fstatvfs(fd)
    except OSError:
        return True
    if found.f_blocks and not found.f_bavail:
        return False
    return not by_writing or _accepts_file(fd)


def _accepts_file(fd: int) -> bool:
    name = f".probe.{durable.random_name()}"
    try:
        probe = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, durable.FILE_MODE, dir_fd=fd)
        try:
            try:
                durable.write_all(probe, bytes(_PROBE_SIZE))
            finally:
                os.close(probe)
        finally:
            os.unlink(name, dir_fd=fd)
    except OSError as error:
        return error.errno not in _FULL
    return True
