"""The single try for a lock that proves whether it is shared."""

from __future__ import annotations

import errno
import fcntl
import os

from taskfarmer.peers.lockproof import Answer


def try_lock(path: str) -> Answer:
    """Try to acquire the lock that a living process holds on its file, in shared mode and without waiting, and release
    it.

    FileNotFoundError if the file is missing.
    """
    fd = os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOFOLLOW)
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError as error:
        return "refused" if error.errno in (errno.EWOULDBLOCK, errno.EACCES) else "unsupported"
    finally:
        os.close(fd)
    return "granted"
