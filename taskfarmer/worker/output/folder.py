"""The files `log_<ID>`, in the logs directory that a worker has open.

An existing log is never emptied, truncated or replaced: it may contain output of a recorded attempt, of another farm
with the same --logs-dir, or a file of the user. An attempt that finds a log writes a header line first, in one of two
ways:

* take over: create a new file with a copy of the log, and give it the log's name. Attempts after the first do this in
  the farm's private logs directory. An earlier attempt may be suspended on a node that was cut off. It has the old file
  open, so it can no longer write to the log.
* append: if the log is large, if it has a header of another farm or of a later attempt, and for a first attempt. A
  first attempt that finds a log is late: other farmers may have run its task as a later attempt.

A take-over renames the old file to `log_<ID>.<attempt>`, links the new one to `log_<ID>`, and removes the old one. It
only removes a file if it has copied every byte: if the renamed file is a different one, or has grown, it gets its name
back. After writing its header, an attempt checks that the log is still the same file, so that one of two concurrent
attempts notices the other. A crash leaves the old file under either name.
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

DIRECTORY_REMOVED = (errno.ENOENT, errno.ESTALE)
"""Errors of operations in an open directory that was removed."""
_APPENDING = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOFOLLOW
_NEW = _APPENDING | os.O_EXCL
_READING = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOFOLLOW
COPY_LIMIT = 1 << 22
"""Bytes of the largest log that is copied: to copy a log blocks the worker's other slots."""
_TRIES = 3


class LogFolder:
    """The open logs directory. If it is removed while tasks run, it is created and opened again."""

    def __init__(self, context: SlotContext) -> None:
        self.context = context
        self.fd = context.logs_fd
        self.all_headers = context.all_headers

    def open_new(self, name: str) -> int:
        """Create a file; FileExistsError if it exists."""
        try:
            return os.open(name, _NEW, durable.FILE_MODE, dir_fd=self.fd)
        except OSError as error:
            if error.errno not in DIRECTORY_REMOVED:
                raise
        self.restore()
        return os.open(name, _NEW, durable.FILE_MODE, dir_fd=self.fd)

    def restore(self) -> None:
        """Create and open the directory again. The descriptor stays the same, since all slots share it."""
        context = self.context
        with suppress(FileExistsError):
            os.mkdir(context.logs, durable.FOLDER_MODE)
            if context.shared:
                durable.share_directory(context.logs)
        fd = os.open(context.logs, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC | os.O_NOFOLLOW)
        try:
            found = os.fstat(fd)
            if found.st_mode & stat.S_IWOTH or (found.st_uid != os.geteuid() and not context.shared):
                raise PermissionError(errno.EPERM, "re-created by another user, or with write permission for all")
            os.dup2(fd, self.fd, inheritable=False)
        finally:
            os.close(fd)
        self.all_headers = self.all_headers or not context.own_logs  # it may be another farm's directory now

    def open_log(self, task_id: int, attempt: int) -> int:
        """Open a task's log with O_APPEND, and write a header line if it may contain other output.

        O_NONBLOCK keeps a FIFO of that name from blocking the worker; for a regular file it has no effect. A symbolic
        link is not followed: it could lead to any file of the user.
        """
        try:
            fd = self._open_new_log(f"log_{task_id}", task_id, attempt)
            if fd < 0 and attempt > 1 and self.context.own_logs:
                fd = self._take_over(task_id, attempt)
            return fd if fd >= 0 else self._append(task_id, attempt)
        except OSError as error:
            reason = "a symbolic link, which is not followed" if error.errno == errno.ELOOP else error.strerror
            path = os.path.join(self.context.logs, f"log_{task_id}")
            raise NotStarted(f"{path}: {reason}; the log cannot be opened; {remedy(error, 'move it away')}") from error

    def _open_new_log(self, name: str, task_id: int, attempt: int) -> int:
        """A descriptor of a new log; -1 if the log exists."""
        try:
            fd = self.open_new(name)
        except FileExistsError:
            return -1
        try:
            if self.context.shared:
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
        return packs.attempt_header(self.context.farm, task_id, attempt, self.context.host, when)

    def _append(self, task_id: int, attempt: int) -> int:
        name = f"log_{task_id}"
        for tries_left in range(_TRIES - 1, -1, -1):
            fd = os.open(name, _APPENDING, durable.FILE_MODE, dir_fd=self.fd)
            try:
                if self.context.shared:
                    durable.grant_group(fd, durable.GROUP_WRITES)
                os.write(fd, self._missing_line_feed(name) + self._header(task_id, attempt))
                if not tries_left or self._is_named(name, fd):
                    return fd
            except OSError:
                durable.close_quietly(fd)
                raise
            durable.close_quietly(fd)
        raise AssertionError("unreachable")

    def _missing_line_feed(self, name: str) -> bytes:
        """A line feed if the last line of a log has none, or if that is unknown."""
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
        """A new file with a copy of the log, open with O_APPEND; -1 if the attempt must append to the log instead."""
        name = f"log_{task_id}"
        try:
            old = os.open(name, _READING, dir_fd=self.fd)
        except FileNotFoundError:
            return -1
        try:
            data = self._read_to_copy(old, attempt)
            if data is None:
                return -1
            temporary = f".{name}.{durable.random_name()}"
            fd = self.open_new(temporary)
            try:
                try:
                    if self.context.shared:
                        durable.grant_group(fd, durable.GROUP_WRITES)
                    end = b"" if not data or data.endswith(b"\n") else b"\n"
                    durable.write_all(fd, data + end + self._header(task_id, attempt))
                    if self._replace(name, temporary, f"{name}.{attempt}", old, len(data)):
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

    def _read_to_copy(self, old: int, attempt: int) -> bytes | None:
        """The bytes of a log that the attempt takes over; None if it must append."""
        found = os.fstat(old)
        if not stat.S_ISREG(found.st_mode) or found.st_size > COPY_LIMIT:
            return None
        data = bytearray()
        while len(data) <= COPY_LIMIT and (block := os.pread(old, COPY_LIMIT, len(data))):
            data += block
        farm = self.context.farm.encode()
        if len(data) > COPY_LIMIT:
            return None
        for header in packs.ATTEMPT_HEADER.finditer(data):
            if header[3] != farm or int(header[1]) >= attempt:
                return None
        return bytes(data)

    def _replace(self, name: str, temporary: str, aside: str, old: int, size: int) -> bool:
        """Give the log's name to the new file, which has a copy of `size` bytes of the old one. Return success."""
        with suppress(FileNotFoundError):
            os.stat(aside, dir_fd=self.fd, follow_symlinks=False)
            return False  # left by an earlier try, whose copy is unknown
        try:
            os.rename(name, aside, src_dir_fd=self.fd, dst_dir_fd=self.fd)
        except FileNotFoundError:
            return False
        moved = os.stat(aside, dir_fd=self.fd, follow_symlinks=False)
        replaced = False
        if os.path.samestat(moved, os.fstat(old)) and moved.st_size == size:
            with suppress(OSError):
                durable.add_name(temporary, name, self.fd, self.fd)
                replaced = True
        if not replaced:
            try:
                durable.add_name(aside, name, self.fd, self.fd)
            except FileExistsError:
                return False  # another attempt has created a log meanwhile; the old one keeps its new name
            except OSError:  # the file system does not support links
                os.rename(aside, name, src_dir_fd=self.fd, dst_dir_fd=self.fd)
                return False
        os.unlink(aside, dir_fd=self.fd)
        return replaced
