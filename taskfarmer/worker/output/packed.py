"""How the workers of a farmer append to its packed file. Each worker opens the file itself.

A piece is one `write` to a file that is open to append, so pieces of several workers do not mix.
"""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Iterable, Iterator

from taskfarmer.formats import packs
from taskfarmer.storage import durable
from taskfarmer.storage.layout import Workdir
from taskfarmer.worker.output.folder import GONE, LogFolder
from taskfarmer.worker.output.limit import Span, kept

_FLAGS = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK


class Folder:
    """A directory inside that of the logs. It is made when it is first needed, and again if it is removed."""

    def __init__(self, logs: LogFolder, path: str) -> None:
        self.path = path
        self._logs = logs
        self._shared = logs.place.shared
        self._fd = -1

    @property
    def fd(self) -> int:
        if self._fd < 0:
            try:
                self._make()
            except OSError as error:
                if error.errno not in GONE:
                    raise
                self._logs.restore()
                self._make()
        return self._fd

    def _make(self) -> None:
        name, flags = os.path.basename(self.path), os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC | os.O_NOFOLLOW
        try:
            os.mkdir(name, durable.FOLDER_MODE, dir_fd=self._logs.fd)
            if self._shared:
                durable.share_directory(self.path)
        except FileExistsError:
            pass
        self._fd = os.open(name, flags, dir_fd=self._logs.fd)

    def open(self, name: str, flags: int) -> int:
        try:
            fd = os.open(name, flags, durable.FILE_MODE, dir_fd=self.fd)
        except OSError as error:
            if error.errno not in GONE or not flags & os.O_CREAT or self._fd < 0:
                raise
            durable.close_quietly(self._fd)
            self._fd = -1
            fd = os.open(name, flags, durable.FILE_MODE, dir_fd=self.fd)
        if self._shared:
            durable.grant_group(fd, durable.GROUP_WRITES)
        return fd


def removed(fd: int) -> bool:
    """Whether an open file has no name any more."""
    try:
        return not os.fstat(fd).st_nlink
    except OSError:  # a network file system has lost it
        return True


class Pack:
    """The packed file of a farmer, as one worker writes it."""

    def __init__(self, logs: LogFolder) -> None:
        place = logs.place
        self.workdir = Workdir(place.workdir, place.logs)
        self.folder = Folder(logs, self.workdir.packed)
        self.limit = place.log_limit
        self._farmer = place.farmer
        self._fd = -1

    def add(self, fd: int, size: int, task_id: int, attempt: int, status: int) -> None:
        """Append the output of a finished attempt: the first `size` bytes of a scratch file.

        An attempt without output gets a head line, too. OSError if the disk does not accept all of it, or if the
        scratch file is shorter.
        """
        spans = list(kept(0, size, self.limit))
        total = sum(len(span) if isinstance(span, bytes) else span[1] - span[0] for span in spans)
        when = time.strftime("%Y-%m-%d %H:%M:%S")
        written = 0
        for data in _chunks(fd, spans):
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
        """Append a head line with the scratch file that a running attempt writes to; OSError as for `add`."""
        self._append(packs.running_head(task_id, attempt, slot, number))

    def _append(self, head: bytes, data: bytes = b"") -> None:
        if self._fd >= 0 and removed(self._fd):
            durable.close_quietly(self._fd)
            self._fd = -1
        if self._fd < 0:
            self._fd = self.folder.open(os.path.basename(self.workdir.pack(self._farmer)), _FLAGS)
        piece = head + data if not data or data.endswith(b"\n") else head + data + b"\n"
        if os.write(self._fd, piece) < len(piece):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def _chunks(fd: int, spans: Iterable[Span]) -> Iterator[bytes]:
    """The bytes of spans, in blocks that fit into a piece."""
    for span in spans:
        if isinstance(span, bytes):
            yield span
            continue
        place, end = span
        while place < end and (data := os.pread(fd, min(packs.LONGEST_BODY, end - place), place)):
            yield data
            place += len(data)
