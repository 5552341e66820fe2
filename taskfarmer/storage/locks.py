"""Locks: the exclusive lock that keeps commits of farmers from colliding, and the lock that shows that a farmer is
alive.

No decision depends on a lock alone: `link` decides (see `ledger/commits.py`). If another process never releases the
lock, commits take longer. If the lock is not shared between nodes, some commits are lost and retried. No task is lost.

Only this module imports filelock. filelock 4 needs nine file operations to acquire a lock, and they cannot be
interrupted. So it only creates the lock file; an existing file is opened once and stays open, and acquiring the lock is
one operation.
"""

from __future__ import annotations

import fcntl
import os
import random
import stat
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from filelock import Timeout, UnixFileLock

from taskfarmer.errors import UsageError

FIRST_PAUSE = 0.05
LONGEST_PAUSE = 0.5
LEAST_PATIENCE = 0.2
PATIENCE = 5.0


def scratch_folder(scratch: str | None, uid: int) -> str | None:
    """The user's private folder for locks in scratch space, created if necessary; None if it is not safe.

    Other users may write into scratch space. So the folder must be a real directory that belongs to the user and that
    no other user may enter, and scratch space must have the sticky bit, so that others cannot replace it.
    """
    if not scratch:
        return None
    folder = os.path.join(os.path.abspath(scratch), _private_name(uid))
    try:
        mode = os.stat(os.path.dirname(folder)).st_mode
        if mode & stat.S_IWOTH and not mode & stat.S_ISVTX:
            return None
        os.mkdir(folder, 0o700)
    except FileExistsError:
        pass
    except OSError:
        return None
    return folder if _is_private(folder, uid) else None


def _private_name(uid: int) -> str:
    return f".taskfarmer-{uid}"


def _is_private(folder: str, uid: int) -> bool:
    """Whether this is a directory of that user, not a link to one, that no other user may enter."""
    try:
        found = os.lstat(folder)
    except OSError:
        return False
    return stat.S_ISDIR(found.st_mode) and found.st_uid == uid and not found.st_mode & 0o077


class FarmLock:
    """The lock of the farm. A farmer waits for it for a limited time, and then works without it.

    A `private` lock lies in scratch space. Its path is stored in `farm.json`, and another file may have replaced it
    since: it is used only while its folder belongs to the user alone. A `shared` lock is for the group. `between` is
    called while we wait.
    """

    def __init__(self, path: str, private: bool = False, shared: bool = False) -> None:
        self.path = path
        self.private = private
        self.between: Callable[[], None] = lambda: None
        self.unusable = False
        self._timeouts = 0
        # thread_local=False: the farmer has no threads, and its workers do not use this lock
        mode = 0o660 if shared else 0o600
        # an old filelock prints a traceback when it refuses an argument, so check its arguments first
        if "fallback_to_soft" not in (UnixFileLock.__init__.__kwdefaults__ or ()):
            _refuse_outdated()
        self._lock = UnixFileLock(path, timeout=0, mode=mode, thread_local=False, fallback_to_soft=False)
        self._fd = -1
        self._exists = False

    def warnings(self) -> list[str]:
        """A warning if the path is not our lock file; an empty list if it is, or does not exist."""
        folder = os.path.dirname(self.path)
        ours = not self.private or os.path.basename(folder) == _private_name(os.getuid())
        if not ours or not os.path.lexists(folder) or self._is_sound():
            return []
        return [f"{self.path}: not a lock file in a private folder of yours; this farmer works without the lock"]

    def _is_sound(self) -> bool:
        """Whether the path does not exist yet, or is a file that can only be a lock.

        filelock 3.30 truncates the file that it locks, so the file must be empty and have no other name.
        """
        self._exists = False
        if self.private and not _is_private(os.path.dirname(self.path), os.getuid()):
            return False
        try:
            found = os.lstat(self.path)
        except OSError:
            return True
        self._exists = stat.S_ISREG(found.st_mode) and found.st_nlink <= 1 and not found.st_size
        return self._exists

    def close(self) -> None:
        """Close the file; it is opened again when needed. Not while the lock is held."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            with suppress(OSError):
                os.close(fd)

    def _try(self) -> bool:
        self.unusable = False
        try:
            if self._fd < 0:
                if not self._is_sound():
                    self.unusable = True
                    return False
                if not self._exists:
                    self._lock.acquire(blocking=False)
                    return True
                self._fd = os.open(self.path, os.O_RDWR | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOFOLLOW)
                os.register_at_fork(after_in_child=self.close)  # so no worker keeps the lock of a killed farmer
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.fstat(self._fd).st_nlink:
                return True
            self.close()  # it was removed, and another file may have its name
        except (Timeout, BlockingIOError):
            return False
        except PermissionError:
            # some file systems answer so if another process has the lock; if `open` failed, the file is not ours to use
            self.unusable = self._fd < 0
            return False
        except (OSError, NotImplementedError):
            # no such directory on this node, or a file system without locks: waiting is useless
            self.close()
            self.unusable = True
            return False
        return False

    def _release(self) -> None:
        with suppress(OSError):
            if self._lock.is_locked:
                self._lock.release()
            else:
                fcntl.flock(self._fd, fcntl.LOCK_UN)

    @contextmanager
    def held(self, patience: float = PATIENCE) -> Iterator[bool]:
        """Hold the lock inside the block if it is available within `patience` seconds; yields whether it is held.

        Each timeout halves the next wait until the lock is acquired again, so a lock that is stuck costs little.
        """
        self.between()
        start = time.monotonic()
        patience = max(min(patience, LEAST_PATIENCE), patience * 0.5**self._timeouts)
        pause = FIRST_PAUSE
        got = self._try()
        while not got and not self.unusable and time.monotonic() - start < patience:
            left = patience - (time.monotonic() - start)
            self.between()
            time.sleep(max(0.0, min(left, pause * random.uniform(0.7, 1.3))))
            pause = min(pause * 1.5, LONGEST_PAUSE)
            got = self._try()
        self._timeouts = 0 if got else self._timeouts + 1
        try:
            yield got
        finally:
            if got:
                self._release()


def _refuse_outdated() -> None:
    # imported here since it is rarely needed
    from taskfarmer.dependencies import outdated

    complaint = outdated()
    if complaint is not None:
        raise UsageError(complaint)


def hold_alive(fd: int) -> bool:
    """Lock our alive file for as long as any process has this descriptor; whether the file system accepted it."""
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    os.set_inheritable(fd, True)
    return True


def alive_is_free(path: str) -> bool:
    """Whether the lock on another farmer's alive file is free, as far as this node can see."""
    try:
        fd = os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOFOLLOW)
    except FileNotFoundError:
        return True
    except OSError:
        return False
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    finally:
        try:
            os.close(fd)
        except OSError:
            pass  # ESTALE: its owner has left or was expelled; GlusterFS opens files as late as it can
    return True
