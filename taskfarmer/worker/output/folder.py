"""The files `log_<ID>`, in the directory of the logs as one worker has it open.

A log that exists is never emptied, cut or replaced: it may have the output of a recorded attempt, of another farm with
the same --logs-dir, or of the user. An attempt that finds one writes a header line first, and there are two ways:

* take over: a new file starts with a copy of the log so far and gets its name. This is for attempts after the first, in
  a directory of the farm's own. An earlier attempt may be asleep on a node that was cut off. It has the old file open,
  so it cannot write into the log any more.
* append: if the log is large, or has a header of another farm or of a later attempt, and for a first attempt. A first
  attempt that finds a log is late: others may have run its task as a later attempt.

Taking over renames the old file to `log_<ID>.<attempt>`, links the new one to `log_<ID>`, and removes the old one. It
removes only a file of which it has copied every byte: if the renamed file is another one, or has grown, it gets its
name back. An attempt with a header checks after writing it that the log is still the same file, so that one of the two
notices the other. A crash leaves the old file under either name.
"""

from __future__ import annotations

import errno
import os
import stat
import time
from contextlib import suppress

from taskfarmer.errors import remedy
from taskfarmer.formats import packs
from taskfarmer.storage import durable
from taskfarmer.worker.context import NotStarted, SlotContext

GONE = (errno.ENOENT, errno.ESTALE)
"""Errors of operations in a directory that was removed."""
_APPENDING = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOFOLLOW
_NEW = _APPENDING | os.O_EXCL
_READING = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOFOLLOW
MOST_COPIED = 1 << 22
"""Bytes of the largest log that is copied. A copy keeps the worker's other slots waiting."""
_TRIES = 3


class LogFolder:
    """The directory of the logs. It is opened again, and made again, if it is removed while tasks run."""

    def __init__(self, place: SlotContext) -> None:
        self.place = place
        self.fd = place.logs_fd
        self.all_headers = place.all_headers

    def open_new(self, name: str) -> int:
        """Make a file; FileExistsError if there is one."""
        try:
            return os.open(name, _NEW, durable.FILE_MODE, dir_fd=self.fd)
        except OSError as error:
            if error.errno not in GONE:
                raise
        self.restore()
        return os.open(name, _NEW, durable.FILE_MODE, dir_fd=self.fd)

    def restore(self) -> None:
        """Open the directory again under its name, with the same descriptor, which all slots have."""
        place = self.place
        with suppress(FileExistsError):
            os.mkdir(place.logs, durable.FOLDER_MODE)
            if place.shared:
                durable.share_directory(place.logs)
        fd = os.open(place.logs, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC | os.O_NOFOLLOW)
        try:
            found = os.fstat(fd)
            if found.st_mode & stat.S_IWOTH or (found.st_uid != os.geteuid() and not place.shared):
                raise PermissionError(errno.EPERM, "removed and made again by another user, or for everybody")
            os.dup2(fd, self.fd, inheritable=False)
        finally:
            os.close(fd)
        self.all_headers = self.all_headers or not place.own_logs  # it may be another farm's directory now

    def open_log(self, task_id: int, attempt: int) -> int:
        """Open a task's log to append. Its first line is a header if the log may have anything of others.

        O_NONBLOCK: a FIFO of that name must not stop us; on a file it means nothing. A symbolic link could lead to any
        of our files, and is not followed.
        """
        try:
            fd = self._open_new_log(f"log_{task_id}", task_id, attempt)
            if fd < 0 and attempt > 1 and self.place.own_logs:
                fd = self._take_over(task_id, attempt)
            return fd if fd >= 0 else self._append(task_id, attempt)
        except OSError as error:
            reason = "a symbolic link, which is not followed" if error.errno == errno.ELOOP else error.strerror
            path = os.path.join(self.place.logs, f"log_{task_id}")
            what = f"the log cannot be opened; {remedy(error, 'move it away')}"
            raise NotStarted(f"{path}: {reason}; {what}") from error

    def _open_new_log(self, name: str, task_id: int, attempt: int) -> int:
        """A log that did not exist; -1 if it does."""
        try:
            fd = self.open_new(name)
        except FileExistsError:
            return -1
        try:
            if self.place.shared:
                durable.grant_group(fd, durable.GROUP_WRITES)
            if attempt > 1 or self.all_headers:
                os.write(fd, self._header(task_id, attempt))
                if not self._is_named(name, fd):
                    durable.close_quietly(fd)
                    return -1
        except OSError:
            durable.close_quietly(fd)
            raise
        return fd

    def _header(self, task_id: int, attempt: int) -> bytes:
        when = time.strftime("%Y-%m-%d %H:%M:%S")
        return packs.attempt_head(self.place.farm, task_id, attempt, self.place.host, when)

    def _append(self, task_id: int, attempt: int) -> int:
        name = f"log_{task_id}"
        for left in range(_TRIES - 1, -1, -1):
            fd = os.open(name, _APPENDING, durable.FILE_MODE, dir_fd=self.fd)
            try:
                if self.place.shared:
                    durable.grant_group(fd, durable.GROUP_WRITES)
                os.write(fd, self._line_feed(name) + self._header(task_id, attempt))
                if not left or self._is_named(name, fd):
                    return fd
            except OSError:
                durable.close_quietly(fd)
                raise
            durable.close_quietly(fd)
        raise AssertionError("unreachable")

    def _line_feed(self, name: str) -> bytes:
        """The end of the last line of a log, if it has none."""
        try:
            fd = os.open(name, _READING, dir_fd=self.fd)
        except OSError:
            return b"\n"
        try:
            size = os.fstat(fd).st_size
            return b"\n" if size and os.pread(fd, 1, size - 1) != b"\n" else b""
        except OSError:
            return b"\n"
        finally:
            durable.close_quietly(fd)

    def _is_named(self, name: str, fd: int) -> bool:
        try:
            return os.path.samestat(os.stat(name, dir_fd=self.fd, follow_symlinks=False), os.fstat(fd))
        except FileNotFoundError:
            return False

    def _take_over(self, task_id: int, attempt: int) -> int:
        """A new file with a copy of the log so far, open to append; -1 if the log is to be appended to."""
        name = f"log_{task_id}"
        try:
            old = os.open(name, _READING, dir_fd=self.fd)
        except FileNotFoundError:
            return -1
        try:
            data = self._copied(old, attempt)
            if data is None:
                return -1
            temporary = f".{name}.{durable.random_name()}"
            fd = self.open_new(temporary)
            try:
                try:
                    if self.place.shared:
                        durable.grant_group(fd, durable.GROUP_WRITES)
                    end = b"" if not data or data.endswith(b"\n") else b"\n"
                    durable.write_all(fd, data + end + self._header(task_id, attempt))
                    if self._exchange(name, temporary, f"{name}.{attempt}", old, len(data)):
                        return fd
                finally:
                    with suppress(OSError):
                        os.unlink(temporary, dir_fd=self.fd)
            except BaseException:
                durable.close_quietly(fd)
                raise
            durable.close_quietly(fd)
            return -1
        finally:
            durable.close_quietly(old)

    def _copied(self, old: int, attempt: int) -> bytes | None:
        """The bytes of a log that this attempt is to copy; None if it is to append."""
        found = os.fstat(old)
        if not stat.S_ISREG(found.st_mode) or found.st_size > MOST_COPIED:
            return None
        data = bytearray()
        while len(data) <= MOST_COPIED and (block := os.pread(old, MOST_COPIED, len(data))):
            data += block
        ours = self.place.farm.encode()
        if len(data) > MOST_COPIED:
            return None
        for header in packs.ATTEMPT.finditer(data):
            if header[3] != ours or int(header[1]) >= attempt:
                return None
        return bytes(data)

    def _exchange(self, name: str, temporary: str, aside: str, old: int, size: int) -> bool:
        """Give the new file the name of the old one, of which so many bytes were copied; whether that was done."""
        with suppress(FileNotFoundError):
            os.stat(aside, dir_fd=self.fd, follow_symlinks=False)
            return False  # from an earlier try, with a copy that we do not know
        try:
            os.rename(name, aside, src_dir_fd=self.fd, dst_dir_fd=self.fd)
        except FileNotFoundError:
            return False
        moved = os.stat(aside, dir_fd=self.fd, follow_symlinks=False)
        done = False
        if os.path.samestat(moved, os.fstat(old)) and moved.st_size == size:
            with suppress(OSError):
                durable.add_name(temporary, name, self.fd, self.fd)
                done = True
        if not done:
            try:
                durable.add_name(aside, name, self.fd, self.fd)
            except FileExistsError:
                return False  # another attempt has made a log since; the old one keeps its new name
            except OSError:  # the file system has no links
                os.rename(aside, name, src_dir_fd=self.fd, dst_dir_fd=self.fd)
                return False
        os.unlink(aside, dir_fd=self.fd)
        return done
