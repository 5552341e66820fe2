"""Locks: the exclusive one that keeps farmers from colliding, and the one that says "I live".

Nothing is decided by a lock alone: `link` decides (see `ledger/commits.py`). So a lock that another
process holds for ever only costs time, a lock that is not shared between nodes costs lost commits,
and neither loses a task. This is the only room that imports filelock.

filelock 4 makes nine file operations to take a lock, none of which can be broken off. So it only makes the lock file;
one that is there is opened once and stays open, and taking the lock is one operation.
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
    """The user's private folder for locks in scratch space, made if need be; None where it is not safe.

    Others may write into scratch space, so the folder counts only if it is a real directory of ours that nobody
    else may enter, and scratch space only if the sticky bit keeps them from exchanging it.
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
    """Whether this is a directory of that user, no link to one, that nobody else may enter."""
    try:
        found = os.lstat(folder)
    except OSError:
        return False
    return stat.S_ISDIR(found.st_mode) and found.st_uid == uid and not found.st_mode & 0o077


class FarmLock:
    """The farm's lock. Waited for a bounded time, and then done without.

    A `private` one lies in scratch space. Its path is in `farm.json` for good, and what is there may have been
    exchanged since: it is used only as long as its folder is ours alone. A `shared` one is for the group.
    `between` is called while we wait.
    """

    def __init__(self, path: str, private: bool = False, shared: bool = False) -> None:
        self.path = path
        self.private = private
        self.between: Callable[[], None] = lambda: None
        self.unusable = False
        self._timeouts = 0
        # thread_local=False: the farmer has no threads, and its workers never touch this lock
        mode = 0o660 if shared else 0o600
        # an old filelock prints a traceback of its own when it refuses an argument, so it is looked at before
        if "fallback_to_soft" not in (UnixFileLock.__init__.__kwdefaults__ or ()):
            _refuse_outdated()
        self._lock = UnixFileLock(path, timeout=0, mode=mode, thread_local=False, fallback_to_soft=False)
        self._fd = -1
        self._stands = False

    def warnings(self) -> list[str]:
        """A warning where something that is no lock of ours is in its place; none where nothing is there."""
        folder = os.path.dirname(self.path)
        ours = not self.private or os.path.basename(folder) == _private_name(os.getuid())
        if not ours or not os.path.lexists(folder) or self._is_sound():
            return []
        return [f"{self.path}: not in a folder of yours alone, or no lock file: this farmer works without the lock"]

    def _is_sound(self) -> bool:
        """Whether the lock's name stands for nothing yet, or for a file that can only be a lock.

        filelock 3.30 empties the file that it locks, so it must be empty, and have no other name.
        """
        self._stands = False
        if self.private and not _is_private(os.path.dirname(self.path), os.getuid()):
            return False
        try:
            found = os.lstat(self.path)
        except OSError:
            return True
        self._stands = stat.S_ISREG(found.st_mode) and found.st_nlink <= 1 and not found.st_size
        return self._stands

    def close(self) -> None:
        """Close the file; it is opened again when it is needed. Not while the lock is held."""
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
                if not self._stands:
                    self._lock.acquire(blocking=False)
                    return True
                self._fd = os.open(self.path, os.O_RDWR | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOFOLLOW)
                os.register_at_fork(after_in_child=self.close)  # a worker would keep a killed farmer's lock
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.fstat(self._fd).st_nlink:
                return True
            self.close()  # it was removed, and another one may stand in its place
        except (Timeout, BlockingIOError):
            return False
        except PermissionError:
            # some file systems answer so if another process has the lock; if the file is not open, it is not for us
            self.unusable = self._fd < 0
            return False
        except (OSError, NotImplementedError):
            # no such directory on this node, a file system without locks: nobody is worth waiting for
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
        """Hold the lock, or not, inside the block; yields whether it is held. `patience` is in seconds.

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
    # not at the top: hardly ever needed
    from taskfarmer.dependencies import outdated

    complaint = outdated()
    if complaint is not None:
        raise UsageError(complaint)


def hold_alive(fd: int) -> bool:
    """Lock our alive file for as long as anybody has this descriptor; whether the file system took it."""
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    os.set_inheritable(fd, True)
    return True


def alive_is_free(path: str) -> bool:
    """Whether nobody that we can see holds the lock on another farmer's alive file."""
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
            pass  # ESTALE: its owner left meanwhile, or was expelled, and GlusterFS opens files as late as it can
    return True
