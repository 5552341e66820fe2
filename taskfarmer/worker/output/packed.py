"""What the workers of a farmer append to its packed file and index. Each worker has both open for itself.

A piece is one `write` to a file that is open to append, so that its place is known from where the descriptor stands
afterwards. Lines of the index wait for the next flush: whoever reads finds the parts without them, too.
"""

from __future__ import annotations

import errno
import os
import time
import zlib

from taskfarmer.formats import packs
from taskfarmer.formats.packs import Part
from taskfarmer.storage import durable
from taskfarmer.storage.layout import Workdir
from taskfarmer.worker.output.folder import GONE, LogFolder
from taskfarmer.worker.output.limit import kept

_FLAGS = os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
_MOST_WAITING = 1 << 16
"""Lines of the index that wait for room on the disk."""
_ROOM = packs.CHUNK - packs.LONGEST_HEAD


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
    """The packed file and the index of a farmer, as one worker writes them."""

    def __init__(self, logs: LogFolder) -> None:
        place = logs.place
        self.workdir = Workdir(place.workdir, place.logs)
        self.folder = Folder(logs, self.workdir.packed)
        self.limit = place.log_limit
        self._farmer = place.farmer
        self._packed = self._index = -1
        self._waiting: list[bytes] = []

    def add(self, fd: int, size: int, task_id: int, attempt: int, status: int) -> None:
        """Append what a task wrote into a file of this size; OSError where the disk does not take it."""
        if self._packed >= 0 and removed(self._packed):
            durable.close_quietly(self._packed)
            self._packed = -1
        if self._packed < 0:
            self._packed = self.folder.open(os.path.basename(self.workdir.pack(self._farmer)), _FLAGS)
        when = time.strftime("%Y-%m-%d %H:%M:%S")
        pieces: list[tuple[int, int]] = []
        crc = 0
        for span in kept(0, size, self.limit):
            place, end = (0, len(span)) if isinstance(span, bytes) else span
            while place < end:
                data = span if isinstance(span, bytes) else os.pread(fd, min(_ROOM, end - place), place)
                if not data:
                    break
                crc = zlib.crc32(data, crc)
                if pieces:
                    head = packs.next_head(task_id, attempt, len(data))
                else:
                    head = packs.head(task_id, attempt, status, len(data), when)
                pieces.append(self._append(head, data))
                place += len(data)
        self.say(_part(task_id, attempt, status, crc, tuple(pieces)))

    def _append(self, head: bytes, data: bytes) -> tuple[int, int]:
        whole = head + data if data.endswith(b"\n") else head + data + b"\n"
        if os.write(self._packed, whole) < len(whole):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return os.lseek(self._packed, 0, os.SEEK_CUR) - len(whole) + len(head), len(data)

    def nothing(self, task_id: int, attempt: int, status: int) -> None:
        """A task of which the index says that it runs has ended, and there is no part of it."""
        self.say(_part(task_id, attempt, status, 0, ()))

    def say(self, line: bytes) -> None:
        """A line for the index, at the next flush."""
        if len(self._waiting) < _MOST_WAITING:
            self._waiting.append(line)

    def flush(self) -> None:
        if not self._waiting:
            return
        data = b"".join(self._waiting)
        try:
            if self._index >= 0 and removed(self._index):
                durable.close_quietly(self._index)
                self._index = -1
            if self._index < 0:
                self._index = self.folder.open(os.path.basename(self.workdir.pack_index(self._farmer)), _FLAGS)
            written = os.write(self._index, data)
        except OSError:
            return  # a full disk: they wait
        self._waiting = [data[written:]] if written < len(data) else []


def _part(task_id: int, attempt: int, status: int, crc: int, pieces: tuple[tuple[int, int], ...]) -> bytes:
    number = os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0
    return packs.part_line(Part(task_id, attempt, 0 if number else status >> 8, number, crc, pieces))
