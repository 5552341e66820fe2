"""Durable files: write-once files, journals, atomic replacement, and the commit by `link`.

No other module calls `os.fsync` or `os.link`. If the process is killed, each function leaves this behind:

* `publish`: the prepared file, or the target, or both; the target is always complete
* `replace`: a file named `.<name>.<random>` next to the target, which is never read
* `Journal`: complete lines, and perhaps a torn one at the end, which has no valid checksum

A failed `fsync` is never retried on the same file: the kernel may have dropped the data and report success the next
time (PostgreSQL's "fsyncgate", 2018). A `Journal` that failed stays failed.
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
"""Modes before the umask. Even with umask 0, other users cannot write our files."""
GROUP_READS = stat.S_IRGRP
GROUP_WRITES = stat.S_IRGRP | stat.S_IWGRP
"""Permissions for the group of a shared farm, whatever the umask is."""

_NO_DIRECTORY_SYNC = (errno.EINVAL, errno.ENOTSUP, errno.EBADF)
_BLOCK = 1 << 20
"""Bytes per write."""
_END = 1 << 16
"""Bytes of the largest page size."""


def largest_file() -> float:
    """The maximum size of a file of this process in bytes (`ulimit -f`); infinity if unlimited."""
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)[0]
    return math.inf if limit == resource.RLIM_INFINITY else limit


def reason(error: OSError) -> str:
    """The text of a system error, with a remedy if the file is too large."""
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
    """Make the names in a directory durable; a no-op if the file system cannot sync directories."""
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
    """Make the data durable that another process wrote into a file."""
    flags = os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
    try:
        fd = os.open(path, os.O_RDWR | flags)
    except PermissionError:
        fd = os.open(path, os.O_RDONLY | flags)  # another user's; on Linux read permission is enough for fsync
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def close_quietly(fd: int) -> None:
    """Close a file, ignoring errors: the data that counts was synced before.

    Network file systems report failed writes here, if at all.
    """
    try:
        os.close(fd)
    except OSError:
        pass


def write_all(fd: int, data: bytes | memoryview) -> None:
    """Call `write(2)` until all bytes are written: if the disk is nearly full, the first call writes only some."""
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]


def write_parts(fd: int, parts: Iterable[bytes]) -> int:
    """Write parts one after the other, about a megabyte at a time to limit copies in memory; the number of bytes
    written.
    """
    total = size = 0
    pending: list[bytes] = []
    for part in (*filter(None, parts), b""):
        pending.append(part)
        size += len(part)
        if size >= _BLOCK or not part:
            write_all(fd, b"".join(pending))
            total, size = total + size, 0
            pending.clear()
    return total


def drop_page_cache(fd: int, written: int) -> None:
    """Drop large writes from the page cache, since they are not read again soon.

    Otherwise the pages count as memory of the job, and the kernel allocates new ones for later writes, which costs
    several times as much as the writes. The last page stays, since the next write appends to it.
    """
    if written < _BLOCK:
        return
    try:
        size = os.fstat(fd).st_size
        os.posix_fadvise(fd, 0, size - size % _END, os.POSIX_FADV_DONTNEED)
    except OSError:
        pass


def open_exclusive(path: str, flags: int) -> int:
    """Create and open a file; FileExistsError if it exists. An opener for `open(path, "xb")`."""
    return os.open(path, flags | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, FILE_MODE)


def grant_group(fd: int, bits: int) -> None:
    """Give the group the permissions that our umask removed from a new file; another user's file stays as it is."""
    mode = os.fstat(fd).st_mode
    if mode & bits != bits:
        try:
            os.fchmod(fd, stat.S_IMODE(mode) | bits)
        except PermissionError:
            pass


def prepare(path: str, data: bytes, shared: bool = False) -> None:
    """Create a durable file. In a `shared` farm the group can read it. If it fails, the file is removed."""
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
    """Unlink a file, ignoring errors."""
    try:
        os.unlink(path)
    except OSError:
        pass


def publish(prepared: str, target: str) -> OSError | None:
    """Try to link a prepared file to its name, and unlink the prepared name.

    Returns the error of `link`, or None. Since the prepared name is gone, the outcome is final, even if an NFS request
    is sent again. The caller reads the target to learn which farmer won: the answer of `link` is not reliable.
    """
    answer = try_link(prepared, target)
    try:
        os.unlink(prepared)
    except FileNotFoundError:
        pass
    return answer


def replace(path: str, data: bytes, shared: bool = False) -> None:
    """Replace a file atomically; readers see the old or the new content."""
    temporary = temp_name(path)
    prepare(temporary, data, shared)
    rename_over(temporary, path)


def temp_name(path: str) -> str:
    """A new hidden name in the same directory."""
    folder, name = os.path.split(path)
    return os.path.join(folder, f".{name}.{random_name()}")


def rename_over(temporary: str, path: str) -> None:
    """Rename a prepared file to `path`, and make the name durable."""
    try:
        os.rename(temporary, path)
    except OSError:
        unlink_quietly(temporary)
        raise
    sync_directory(os.path.dirname(path))


def sync(fd: int) -> None:
    os.fsync(fd)


def make_directory(path: str, shared: bool = False) -> bool:
    """Create a directory and make its name durable; False if it exists."""
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
    """Open a directory to its group. With the setgid bit new files in it belong to the group."""
    os.chmod(path, stat.S_IMODE(os.stat(path).st_mode) | stat.S_ISGID | stat.S_IRWXG)


def write_new(path: str, data: bytes, shared: bool = False) -> None:
    """Create a file that need not be durable. In a `shared` farm the group can read it."""
    fd = open_exclusive(path, os.O_WRONLY)
    try:
        with with_filename(path):
            if shared:
                grant_group(fd, GROUP_READS)
            write_all(fd, data)
    finally:
        os.close(fd)


def add_name(name: str, target: str, dir_fd: int, target_dir_fd: int) -> None:
    """Give a file a second name, in directories that are open; FileExistsError if the name exists."""
    os.link(name, target, src_dir_fd=dir_fd, dst_dir_fd=target_dir_fd, follow_symlinks=False)


def try_link(path: str, target: str) -> OSError | None:
    """The error of `link`, or None."""
    try:
        os.link(path, target)
    except OSError as error:
        return error
    return None


class Journal:
    """A file to which one process appends lines. `size` is the number of bytes known to be durable."""

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
        """Write and sync; the new size. After an error the journal accepts no more lines."""
        if self.failed:
            raise StorageError(f"{self.path}: an earlier write failed; results go to a new journal")
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
