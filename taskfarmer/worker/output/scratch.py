"""`packed`, `failed` and `--log-limit`: the tasks of a slot write to a scratch file. Their output is copied from there.

A task only has the scratch file of its slot open, so it cannot damage the output of other tasks. Only scratch files are
ever truncated: attempts on other nodes and other farms may append to a log at any time. If a task writes nothing, no
file is touched. A worker stops using a scratch file if a process of an ended task still has it open, or if it was
removed.

A crash leaves the scratch files of running tasks, and of tasks whose output could not be copied. If a task runs longer
than `ANNOUNCE_AFTER`, a head line in the farmer's packed file records its scratch file.
"""

from __future__ import annotations

import math
import os
import time
from typing import TextIO

from taskfarmer.errors import AGAIN, remedy
from taskfarmer.storage import durable
from taskfarmer.worker.context import NotStarted, SlotContext
from taskfarmer.worker.output.files import ANY_CHILD, Logs, close_text_quietly, text_file
from taskfarmer.worker.output.folder import LogFolder
from taskfarmer.worker.output.limit import cut_out_middle, kept_spans
from taskfarmer.worker.output.packed import LogSubdirectory, PackWriter, is_unlinked

ANNOUNCE_AFTER = 0.02
"""Seconds after which the scratch file of a running task is announced in the packed file."""
_RETRY_AFTER = 1.0
"""Seconds until an announcement that the disk did not accept is retried."""
LARGE = 1 << 26
"""Bytes of output above which the scratch file is kept as it is: to copy it would block the worker's other slots."""
_FLAGS = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW
_BLOCK = 1 << 20


class ScratchLogs(Logs):
    """The scratch file of a slot. Subclasses decide where the output of an ended task is stored."""

    stores_empty = False
    """Whether `_store` must also be called if a task wrote nothing."""

    def __init__(self, context: SlotContext, pack: PackWriter, running: LogSubdirectory) -> None:
        super().__init__(context)
        self._pack = pack
        self._running = running
        self._fd = -1
        self._name = ""
        self._path = b""
        self._count = 0
        self._text: TextIO | None = None
        self._task: tuple[int, int] | None = None
        self._announced = False

    def open(self, task_id: int, attempt: int) -> tuple[int, bytes]:
        if self._fd < 0:
            self._create()
        self._task = task_id, attempt
        self.announce_at = time.monotonic() + ANNOUNCE_AFTER
        return self._fd, self._path

    def _create(self) -> None:
        workdir = self._pack.workdir
        while True:
            self._count += 1
            path = workdir.scratch(self.context.farmer, self.context.slot, self._count)
            try:
                self._fd = self._running.open(os.path.basename(path), _FLAGS)
            except FileExistsError:
                continue
            except OSError as error:
                raise NotStarted(f"{path}: {error.strerror}; cannot store logs; {remedy(error, AGAIN)}") from error
            self._name, self._path = os.path.basename(path), os.fsencode(path)
            return

    def open_text(self, fd: int) -> TextIO:
        if self._text is None:
            self._text = text_file(os.dup(fd))
        return self._text

    def release_text(self, text: TextIO) -> None:
        """Write the file's buffer. If that fails, or the runner has closed the file, the next task gets another one."""
        try:
            text.flush()
        except (OSError, ValueError):
            close_text_quietly(text)
            self._text = None

    def announce(self) -> None:
        if self._task is None:
            return
        try:
            self._pack.add_running(*self._task, self.context.slot, self._count)
        except OSError:
            self.announce_at = time.monotonic() + _RETRY_AFTER
        else:
            self.announce_at = math.inf
            self._announced = True

    def on_task_end(self, task_id: int, attempt: int, status: int, group: int = 0) -> None:
        if self._task is None:
            return
        self._task = None
        self.announce_at = math.inf
        try:
            size = os.lseek(self._fd, 0, os.SEEK_END)  # as exact as fstat, and cheaper
        except OSError:  # stale handle on a network file system
            size = 1
        leftovers = _has_processes(group)
        recorded = False
        if size or leftovers or self.stores_empty:
            try:
                recorded = self._store(size, task_id, attempt, status, leftovers)
                if self._fd >= 0 and is_unlinked(self._fd):
                    self._close()
            except OSError:  # a full disk, for example: the scratch file still contains everything
                self._set_aside(task_id, attempt)
                recorded = True
        if self._announced:
            self._announced = False
            if not recorded:
                self._record_end(task_id, attempt, status)

    def _record_end(self, task_id: int, attempt: int, status: int) -> None:
        """Record that an announced task has ended, before another task writes to the scratch file."""
        try:
            self._pack.add(self._fd, 0, task_id, attempt, status)
        except OSError:
            if self._fd >= 0:
                self._remove()

    def _store(self, size: int, task_id: int, attempt: int, status: int, leftovers: bool) -> bool:
        """Store the output of an ended task. Return whether `taskfarmer logs` then ignores the announcement.

        It does so if the packed file has all of the output, or if the scratch file was set aside.
        """
        raise NotImplementedError

    def _shorten(self) -> None:
        """Shorten the scratch file to its limit; FileNotFoundError if it was removed."""
        if self.context.log_limit:
            fd = self._running.open(self._name, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
            try:
                cut_out_middle(fd, 0, self.context.log_limit)
            finally:
                os.close(fd)

    def _set_aside(self, task_id: int, attempt: int) -> None:
        """Keep the scratch file, under a name that contains the task and the attempt."""
        name = os.path.basename(self._pack.workdir.set_aside(self.context.farmer, task_id, attempt))
        try:
            os.rename(self._name, name, src_dir_fd=self._running.fd, dst_dir_fd=self._pack.folder.fd)
        except OSError:
            pass
        self._close()

    def _close(self) -> None:
        """Stop using the scratch file; the next task gets a new one."""
        if self._text is not None:
            close_text_quietly(self._text)
            self._text = None
        durable.close_quietly(self._fd)
        self._fd = -1

    def _remove(self) -> None:
        try:
            os.unlink(self._name, dir_fd=self._running.fd)
        except OSError:
            pass
        self._close()

    def close(self) -> None:
        if self._fd >= 0 and self._task is None:
            self._remove()


class PackedLogs(ScratchLogs):
    """`packed`: all output is appended to one file of the farmer."""

    def _store(self, size: int, task_id: int, attempt: int, status: int, leftovers: bool) -> bool:
        large = min(size, self.context.log_limit or size) > LARGE
        if (leftovers or large) and not is_unlinked(self._fd):
            if not leftovers:
                self._shorten()
            self._set_aside(task_id, attempt)
            return True
        self._pack.add(self._fd, size, task_id, attempt, status)
        if leftovers:
            self._close()
        else:
            os.ftruncate(self._fd, 0)
        return True


class FailedLogs(ScratchLogs):
    """`failed`: tasks that did not succeed get a file as in mode `files`; other output is discarded."""

    def __init__(self, context: SlotContext, folder: LogFolder, pack: PackWriter, running: LogSubdirectory) -> None:
        super().__init__(context, pack, running)
        self._folder = folder

    def _wants_log(self, size: int, status: int) -> bool:
        return size > 0 and status != 0

    def _store(self, size: int, task_id: int, attempt: int, status: int, leftovers: bool) -> bool:
        if self._wants_log(size, status):
            if self._link_as_log(task_id, attempt):
                self._remove()
                return False
            if leftovers and not is_unlinked(self._fd):
                self._shorten()
                self._set_aside(task_id, attempt)
                return True
            self._copy_to_log(task_id, attempt)
        if leftovers:
            self._remove()
        else:
            os.ftruncate(self._fd, 0)
        return False

    def _link_as_log(self, task_id: int, attempt: int) -> bool:
        """Link the scratch file to `log_<ID>`. Return False if that file exists, or if it must start with a header."""
        if attempt > 1 or self._folder.all_headers:
            return False
        try:
            self._shorten()
            durable.add_name(self._name, f"log_{task_id}", self._running.fd, self._folder.fd)
        except OSError:
            return False  # the output is copied instead
        return True

    def _copy_to_log(self, task_id: int, attempt: int) -> None:
        try:
            log = self._folder.open_log(task_id, attempt)
        except NotStarted as error:
            raise OSError from error
        try:
            for span in kept_spans(0, os.fstat(self._fd).st_size, self.context.log_limit):
                offset, end = (0, len(span)) if isinstance(span, bytes) else span
                while offset < end:
                    data = span if isinstance(span, bytes) else os.pread(self._fd, min(_BLOCK, end - offset), offset)
                    if not data:
                        break
                    durable.write_all(log, data)
                    offset += len(data)
        finally:
            durable.close_quietly(log)


class LimitedLogs(FailedLogs):
    """`files` with `--log-limit`: every task gets a file, and its output is shortened first."""

    stores_empty = True

    def _wants_log(self, size: int, status: int) -> bool:
        return True


def _has_processes(group: int) -> bool:
    """Whether processes of an ended task are alive: in its process group, or any child of this process."""
    if not group:
        return False
    try:
        if group == ANY_CHILD:
            return os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None
        os.killpg(group, 0)
    except (ProcessLookupError, ChildProcessError):
        return False
    except PermissionError:
        pass
    return True
