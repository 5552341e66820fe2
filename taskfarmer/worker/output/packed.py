"""How the workers of a farmer append to its packed file. Each worker opens the file itself.

A piece is one `write` to a file that is open with O_APPEND, so the pieces of several workers do not mix.
"""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Iterable, Iterator

from taskfarmer.formats import packs
from taskfarmer.storage import durable
from taskfarmer.storage.layout import Workdir
from taskfarmer.worker.output.folder import DIRECTORY_REMOVED, LogFolder
from taskfarmer.worker.output.limit import Span, kept_spans

_FLAGS = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK


class LogSubdirectory:
    """A directory inside the logs directory. It is created when first needed, and again if it is removed."""

    def __init__(self, logs: LogFolder, path: str) -> None:
        self.path = path
        self._logs = logs
        self._shared = logs.context.shared
        self._fd = -1

    @property
    def fd(self) -> int:
        if self._fd < 0:
            try:
                self._create()
            except OSError as error:
                if error.errno not in DIRECTORY_REMOVED:
                    raise
                self._logs.restore()
                self._create()
        return self._fd

    def _create(self) -> None:
        name, flags = os.path.basename(self.path), os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC | os.O_NOFOLLOW
        try:
            os.mkdir(name, durable.FOLDER_MODE, dir_fd=self._logs.fd)
            if self._shared:
                durable.share_directory(self.path)
        except FileExistsError:
            pass
        self._fd = os.open(name, flags, dir_fd=self._logs.fd)

    def open(self, name: str, flags: int) -> int:
        """Open a file of the directory. If the file is to be created, the directory is restored first if necessary."""
        try:
            fd = os.open(name, flags, durable.FILE_MODE, dir_fd=self.fd)
        except OSError as error:
            if error.errno not in DIRECTORY_REMOVED or not flags & os.O_CREAT or self._fd < 0:
                raise
            durable.close_quietly(self._fd)
            self._fd = -1
            fd = os.open(name, flags, durable.FILE_MODE, dir_fd=self.fd)
        if self._shared:
            durable.grant_group(fd, durable.GROUP_WRITES)
        return fd


def is_unlinked(fd: int) -> bool:
    """Whether an open file was removed."""
    try:
        return not os.fstat(fd).st_nlink
    except OSError:  # stale handle on a network file system
        return True


class PackWriter:
    """Appends to the packed file of a farmer, for one worker."""

    def __init__(self, logs: LogFolder) -> None:
        context = logs.context
        self.workdir = Workdir(context.workdir, context.logs)
        self.folder = LogSubdirectory(logs, self.workdir.packed)
        self._limit = context.log_limit
        self._farmer = context.farmer
        self._fd = -1

    def add(self, fd: int, size: int, task_id: int, attempt: int, status: int) -> None:
        """Append the output of a finished attempt: the first `size` bytes of a scratch file.

        Without output, only a head line is written. Raises OSError if the disk does not accept all of it, or if
        the scratch file is shorter than `size`.
        """
        spans = list(kept_spans(0, size, self._limit))
        total = sum(len(span) if isinstance(span, bytes) else span[1] - span[0] for span in spans)
        when = time.strftime("%Y-%m-%d %H:%M:%S")
        written = 0
        for data in _blocks(fd, spans):
            if written:
                head = packs.next_head(task_id, attempt, len(data))
            else:
                head = packs.first_head(task_id, attempt, status, (len(data), total), when)
            self._append(head, data)
            written += len(data)
        if not total:
            self._append(packs.first_head(task_id, attempt, status, (0, 0), when))
        elif written < total:
            raise OSError(errno.ENODATA, os.strerror(errno.ENODATA))

    def add_running(self, task_id: int, attempt: int, slot: int, number: int) -> None:
        """Append a head line that records the scratch file of a running attempt. Raises OSError like `add`."""
        self._append(packs.running_head(task_id, attempt, slot, number))

    def _append(self, head: bytes, data: bytes = b"") -> None:
        if self._fd >= 0 and is_unlinked(self._fd):
            durable.close_quietly(self._fd)
            self._fd = -1
        if self._fd < 0:
            self._fd = self.folder.open(os.path.basename(self.workdir.pack(self._farmer)), _FLAGS)
        piece = head + data if not data or data.endswith(b"\n") else head + data + b"\n"
        if os.write(self._fd, piece) < len(piece):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def _blocks(fd: int, spans: Iterable[Span]) -> Iterator[bytes]:
    """The bytes of the spans, in blocks that fit into a piece."""
    for span in spans:
        if isinstance(span, bytes):
            yield span
            continue
        offset, end = span
        while offset < end and (data := os.pread(fd, min(packs.LONGEST_BODY, end - offset), offset)):
            yield data
            offset += len(data)
