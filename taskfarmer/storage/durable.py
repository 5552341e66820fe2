"""Bytes that stay: write-once files, journals, atomic replacement, and the commit by `link`.

No other room calls `os.fsync` or `os.link`. What each function leaves behind when the process is
killed in the middle of it:

* `publish`: the prepared file, or the target, or both; never a part of the target
* `replace`: a file named `.<name>.<random>` beside the target, which nobody reads
* `Journal`: whole lines, and perhaps a torn one at the end, which has no valid checksum

A failed `fsync` is never tried again on the same file: the kernel may have thrown the bytes away and
report success the next time (PostgreSQL's "fsyncgate", 2018). A `Journal` that failed stays failed.
"""

from __future__ import annotations

import errno
import math
import os
import resource
import secrets
import stat
from collections.abc import Iterable

from taskfarmer.errors import StorageError
from taskfarmer.storage.eventually import FOR_A_NAME, wait_until_visible
from taskfarmer.storage.reading import read as read
from taskfarmer.storage.reading import read_range as read_range
from taskfarmer.storage.reading import retry_stale as retry_stale
from taskfarmer.storage.reading import with_filename as with_filename

FILE_MODE = 0o664
FOLDER_MODE = 0o775
"""What the umask takes from: whatever it is, not everybody may write what is ours."""
GROUP_READS = stat.S_IRGRP
GROUP_WRITES = stat.S_IRGRP | stat.S_IWGRP
"""What a group that shares a farm gets whatever the umask is."""

_NO_DIRECTORY_SYNC = (errno.EINVAL, errno.ENOTSUP, errno.EBADF)
_BLOCK = 1 << 20
"""Bytes that are written at once."""
_END = 1 << 16
"""Bytes in the largest page that there is."""


def largest_file() -> float:
    """How many bytes a file of this process may have (`ulimit -f`); infinite for no limit."""
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)[0]
    return math.inf if limit == resource.RLIM_INFINITY else limit


def reason(error: OSError) -> str:
    """What the system says of an error, and what to do about a file that may not grow."""
    return f"{error.strerror} (raise `ulimit -f`)" if error.errno == errno.EFBIG else f"{error.strerror}"


def random_name(length: int = 8) -> str:
    return secrets.token_hex(length // 2)


def wait_visible(path: str) -> os.stat_result | None:
    """The status of a path, waiting until it is visible; None if nothing appears there."""
    try:
        return wait_until_visible(lambda: os.stat(path), FOR_A_NAME, 0.02, OSError)
    except OSError:
        return None


def sync_directory(path: str) -> None:
    """Make the names in a directory durable; a no-op where the file system has no such thing."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        with with_filename(path):
            os.fsync(fd)
    except OSError as error:
        if error.errno not in _NO_DIRECTORY_SYNC:
            raise
    finally:
        os.close(fd)


def sync_file(path: str) -> None:
    """Bring what another process wrote into a file to the disk."""
    flags = os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
    try:
        fd = os.open(path, os.O_RDWR | flags)
    except PermissionError:
        fd = os.open(path, os.O_RDONLY | flags)  # another user's; Linux syncs it for whoever may read it
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def close_quietly(fd: int) -> None:
    """Close a file of which nothing more is wanted: what counts of it was synced before.

    Network file systems tell here, if at all, what they could not write.
    """
    try:
        os.close(fd)
    except OSError:
        pass


def write_all(fd: int, data: bytes | memoryview) -> None:
    """`write(2)` until everything is written: a full disk takes a part first."""
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]


def write_parts(fd: int, parts: Iterable[bytes]) -> int:
    """Write parts behind each other, a megabyte or so at a time, so that there are no copies of all; how many bytes."""
    total = kept = 0
    some: list[bytes] = []
    for part in (*filter(None, parts), b""):
        some.append(part)
        kept += len(part)
        if kept >= _BLOCK or not part:
            write_all(fd, b"".join(some))
            total, kept = total + kept, 0
            some.clear()
    return total


def drop_page_cache(fd: int, written: int) -> None:
    """Tell the kernel that nobody reads soon what was written, where that is much.

    Else it keeps all of it in memory, which is counted as the job's, and takes fresh pages for what follows: those cost
    several times as much as the writing. The end of the file stays, since more is to be written behind it.
    """
    if written < _BLOCK:
        return
    try:
        size = os.fstat(fd).st_size
        os.posix_fadvise(fd, 0, size - size % _END, os.POSIX_FADV_DONTNEED)
    except OSError:
        pass


def open_exclusive(path: str, flags: int) -> int:
    """Open a file that must be new: an opener for `open(path, "xb")`."""
    return os.open(path, flags | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, FILE_MODE)


def grant_group(fd: int, bits: int) -> None:
    """Give the group back what our umask took from a file that we made; another user's stays as it is."""
    mode = os.fstat(fd).st_mode
    if mode & bits != bits:
        try:
            os.fchmod(fd, stat.S_IMODE(mode) | bits)
        except PermissionError:
            pass


def prepare(path: str, data: bytes, shared: bool = False) -> None:
    """A new file, on the disk when this returns; in a `shared` farm the group can read it. Nothing is left where it
    fails.
    """
    fd = open_exclusive(path, os.O_WRONLY)
    try:
        with with_filename(path):
            try:
                if shared:
                    grant_group(fd, GROUP_READS)
                write_all(fd, data)
                os.fsync(fd)
            finally:
                os.close(fd)
    except OSError:
        unlink_quietly(path)
        raise


def unlink_quietly(path: str) -> None:
    """Remove a file if it can be removed; whether it could does not matter."""
    try:
        os.unlink(path)
    except OSError:
        pass


def publish(prepared: str, target: str) -> OSError | None:
    """Try to give a prepared file its name, and take the prepared name away.

    Returns what `link` answered, None for success. With the prepared name gone the outcome cannot
    change any more, not even by an NFS request that is sent again; the caller finds out who won by
    reading, never from the answer.
    """
    answer = try_link(prepared, target)
    try:
        os.unlink(prepared)
    except FileNotFoundError:
        pass
    return answer


def replace(path: str, data: bytes, shared: bool = False) -> None:
    """Exchange a file for a new one in one step; readers see the old or the new."""
    temporary = temp_name(path)
    prepare(temporary, data, shared)
    rename_over(temporary, path)


def temp_name(path: str) -> str:
    """A fresh hidden name in the same directory."""
    folder, name = os.path.split(path)
    return os.path.join(folder, f".{name}.{random_name()}")


def rename_over(temporary: str, path: str) -> None:
    """Rename a prepared file over `path`."""
    try:
        os.rename(temporary, path)
    except OSError:
        unlink_quietly(temporary)
        raise
    sync_directory(os.path.dirname(path))


def sync(fd: int) -> None:
    os.fsync(fd)


def make_directory(path: str, shared: bool = False) -> bool:
    """Make a directory and make its name durable; False where it stands already."""
    made = True
    try:
        os.mkdir(path, FOLDER_MODE)
        if shared:
            share_directory(path)
    except FileExistsError:
        if not os.path.isdir(path):
            raise
        made = False
    sync_directory(os.path.dirname(path))
    return made


def share_directory(path: str) -> None:
    """Let the group work in a directory of ours; what is made there becomes the group's, by the setgid bit."""
    os.chmod(path, stat.S_IMODE(os.stat(path).st_mode) | stat.S_ISGID | stat.S_IRWXG)


def write_new(path: str, data: bytes, shared: bool = False) -> None:
    """A new file that need not last; in a `shared` farm the group can read it."""
    fd = open_exclusive(path, os.O_WRONLY)
    try:
        with with_filename(path):
            if shared:
                grant_group(fd, GROUP_READS)
            write_all(fd, data)
    finally:
        os.close(fd)


def add_name(name: str, target: str, dir_fd: int, target_dir_fd: int) -> None:
    """Give a file a second name, in directories that are open; FileExistsError if that name is taken."""
    os.link(name, target, src_dir_fd=dir_fd, dst_dir_fd=target_dir_fd, follow_symlinks=False)


def try_link(path: str, target: str) -> OSError | None:
    """What `link` answers; None for success."""
    try:
        os.link(path, target)
    except OSError as error:
        return error
    return None


class Journal:
    """A file that one process appends lines to. `size` counts the bytes known to be on the disk."""

    def __init__(self, path: str, shared: bool = False) -> None:
        self.path = path
        self.size = 0
        self.failed = False
        self._fd = open_exclusive(path, os.O_WRONLY | os.O_APPEND)
        try:
            if shared:
                grant_group(self._fd, GROUP_READS)
            sync_directory(os.path.dirname(path))
        except OSError:
            self.close()
            unlink_quietly(path)
            raise

    def append(self, parts: Iterable[bytes]) -> int:
        """Write and sync; the new size. After an error the journal takes nothing more."""
        if self.failed:
            raise StorageError(f"{self.path}: an earlier write failed; results go to a fresh file")
        try:
            written = write_parts(self._fd, parts)
            os.fsync(self._fd)
        except OSError:
            self.failed = True
            raise
        drop_page_cache(self._fd, written)
        self.size += written
        return self.size

    def close(self) -> None:
        fd, self._fd = self._fd, -1
        if fd >= 0:
            close_quietly(fd)
