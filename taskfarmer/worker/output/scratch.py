"""`packed`, `failed` and `--log-limit`: a slot's tasks write into a scratch file. Their output is taken from there.

A task has only the scratch file of its slot, so it cannot hurt what others wrote, whatever it does to its output. Only
a scratch file is ever cut: attempts on other nodes and other farms may append to a log at any time.
Nothing is done for a task that writes nothing. A scratch file is not used again if something of an ended task still has
it open, or if it was removed. A crash leaves the scratch files of tasks that ran, and of those for which there was no
room elsewhere. If a task runs longer than a moment, a head line in the farmer's packed file records its scratch file.
"""

from __future__ import annotations

import math
import os
import time
from typing import TextIO

from taskfarmer.errors import AGAIN, remedy
from taskfarmer.storage import durable
from taskfarmer.worker.context import NotStarted, SlotContext
from taskfarmer.worker.output.files import ANY, Logs, close, text_file
from taskfarmer.worker.output.folder import LogFolder
from taskfarmer.worker.output.limit import kept, shorten
from taskfarmer.worker.output.packed import Folder, Pack, removed

MOMENT = 0.02
"""Seconds after which the scratch file of a running task is announced in the packed file."""
_RETRY_AFTER = 1.0
"""Seconds until an announcement that the disk did not accept is tried again."""
LARGE = 1 << 26
"""Bytes of output from which on a file is kept as it is: to copy it would keep the worker's other slots waiting."""
_FLAGS = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW
_BLOCK = 1 << 20


class ScratchLogs(Logs):
    """The scratch file of a slot. What becomes of what is in it is for subclasses."""

    keeps_empty = False
    """Whether `_keep` has something to do for a task that wrote nothing."""

    def __init__(self, place: SlotContext, pack: Pack, running: Folder) -> None:
        super().__init__(place)
        self.pack = pack
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
            self._fresh()
        self._task = task_id, attempt
        self.announce_at = time.monotonic() + MOMENT
        return self._fd, self._path

    def _fresh(self) -> None:
        workdir = self.pack.workdir
        while True:
            self._count += 1
            path = workdir.scratch(self.place.farmer, self.place.slot, self._count)
            try:
                self._fd = self._running.open(os.path.basename(path), _FLAGS)
            except FileExistsError:
                continue
            except OSError as error:
                raise NotStarted(f"{path}: {error.strerror}; logs cannot be kept; {remedy(error, AGAIN)}") from error
            self._name, self._path = os.path.basename(path), os.fsencode(path)
            return

    def text(self, fd: int) -> TextIO:
        if self._text is None:
            self._text = text_file(os.dup(fd))
        return self._text

    def end_text(self, text: TextIO) -> None:
        """Write what is in its buffer. One that takes no more, or was closed, is not used again."""
        try:
            text.flush()
        except (OSError, ValueError):
            close(text)
            self._text = None

    def announce(self) -> None:
        if self._task is None:
            return
        try:
            self.pack.add_running(*self._task, self.place.slot, self._count)
        except OSError:
            self.announce_at = time.monotonic() + _RETRY_AFTER
        else:
            self.announce_at = math.inf
            self._announced = True

    def ended(self, task_id: int, attempt: int, status: int, group: int = 0) -> None:
        if self._task is None:
            return
        self._task = None
        self.announce_at = math.inf
        try:
            size = os.lseek(self._fd, 0, os.SEEK_END)  # says as much as fstat, for less
        except OSError:  # a network file system has lost it
            size = 1
        lingers = _lives(group)
        recorded = False
        if size or lingers or self.keeps_empty:
            try:
                recorded = self._keep(size, task_id, attempt, status, lingers)
                if self._fd >= 0 and removed(self._fd):
                    self._let_go()
            except OSError:  # a full disk, say: nothing is lost that is in the scratch file
                self._set_aside(task_id, attempt)
                recorded = True
        if self._announced:
            self._announced = False
            if not recorded:
                self._record_end(task_id, attempt, status)

    def _record_end(self, task_id: int, attempt: int, status: int) -> None:
        """Record that the announced task no longer uses the scratch file, before another task writes into it."""
        try:
            self.pack.add(self._fd, 0, task_id, attempt, status)
        except OSError:
            if self._fd >= 0:
                self._remove()

    def _keep(self, size: int, task_id: int, attempt: int, status: int, lingers: bool) -> bool:
        """Keep output of an ended task as the mode requires; whether that is recorded in the packed file or a name."""
        raise NotImplementedError

    def _shorten(self) -> None:
        """Bring the scratch file to its limit; FileNotFoundError if it was removed."""
        if self.place.log_limit:
            fd = self._running.open(self._name, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
            try:
                shorten(fd, 0, self.place.log_limit)
            finally:
                os.close(fd)

    def _set_aside(self, task_id: int, attempt: int) -> None:
        """Keep the scratch file as it is, under a name that says whose it was."""
        name = os.path.basename(self.pack.workdir.set_aside(self.place.farmer, task_id, attempt))
        try:
            os.rename(self._name, name, src_dir_fd=self._running.fd, dst_dir_fd=self.pack.folder.fd)
        except OSError:
            pass
        self._let_go()

    def _let_go(self) -> None:
        if self._text is not None:
            close(self._text)
            self._text = None
        durable.close_quietly(self._fd)
        self._fd = -1

    def _remove(self) -> None:
        try:
            os.unlink(self._name, dir_fd=self._running.fd)
        except OSError:
            pass
        self._let_go()

    def close(self) -> None:
        if self._fd >= 0 and self._task is None:
            self._remove()


class PackedLogs(ScratchLogs):
    """`packed`: everything goes to one file of the farmer."""

    def _keep(self, size: int, task_id: int, attempt: int, status: int, lingers: bool) -> bool:
        large = min(size, self.place.log_limit or size) > LARGE
        if (lingers or large) and not removed(self._fd):
            if not lingers:
                self._shorten()
            self._set_aside(task_id, attempt)
            return True
        self.pack.add(self._fd, size, task_id, attempt, status)
        if lingers:
            self._let_go()
        else:
            os.ftruncate(self._fd, 0)
        return True


class FailedLogs(ScratchLogs):
    """`failed`: what did not end well gets a file as with `files`; the rest is forgotten."""

    def __init__(self, place: SlotContext, folder: LogFolder, pack: Pack, running: Folder) -> None:
        super().__init__(place, pack, running)
        self._folder = folder

    def _is_kept(self, size: int, status: int) -> bool:
        return size > 0 and status != 0

    def _keep(self, size: int, task_id: int, attempt: int, status: int, lingers: bool) -> bool:
        if self._is_kept(size, status):
            if self._becomes_log(task_id, attempt):
                self._remove()
                return False
            if lingers and not removed(self._fd):
                self._shorten()
                self._set_aside(task_id, attempt)
                return True
            self._copy(task_id, attempt)
        if lingers:
            self._remove()
        else:
            os.ftruncate(self._fd, 0)
        return False

    def _becomes_log(self, task_id: int, attempt: int) -> bool:
        """Whether the scratch file got the name of the task's log; not if that has to have a header, or exists."""
        if attempt > 1 or self._folder.all_headers:
            return False
        try:
            self._shorten()
            durable.add_name(self._name, f"log_{task_id}", self._running.fd, self._folder.fd)
        except OSError:
            return False  # it is copied then
        return True

    def _copy(self, task_id: int, attempt: int) -> None:
        try:
            log = self._folder.open_log(task_id, attempt)
        except NotStarted as error:
            raise OSError from error
        try:
            for span in kept(0, os.fstat(self._fd).st_size, self.place.log_limit):
                place, end = (0, len(span)) if isinstance(span, bytes) else span
                while place < end:
                    data = span if isinstance(span, bytes) else os.pread(self._fd, min(_BLOCK, end - place), place)
                    if not data:
                        break
                    durable.write_all(log, data)
                    place += len(data)
        finally:
            durable.close_quietly(log)


class LimitedLogs(FailedLogs):
    """`files` with `--log-limit`: every task gets a file, and what it writes is brought to the limit before."""

    keeps_empty = True

    def _is_kept(self, size: int, status: int) -> bool:
        return True


def _lives(group: int) -> bool:
    """Whether anything is left of a task that has ended: a process of its group, or any living child of ours."""
    if not group:
        return False
    try:
        if group == ANY:
            return os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None
        os.killpg(group, 0)
    except (ProcessLookupError, ChildProcessError):
        return False
    except PermissionError:
        pass
    return True
