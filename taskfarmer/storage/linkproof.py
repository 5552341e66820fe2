"""The proof that `link` is exclusive on a file system. All commits depend on it."""

from __future__ import annotations

import errno
import os

from taskfarmer.errors import NotAFarm
from taskfarmer.storage import durable

_NO_LINKS = (errno.EPERM, errno.ENOTSUP, errno.ENOSYS, errno.EMLINK)


def prove_links(folder: str) -> None:
    """Prove that `link` creates a second name and refuses a name that exists; otherwise raise NotAFarm.

    The safety of a shared farm depends on this alone. A reply may be lost, so the result decides: a link count of 2
    (open(2) recommends this test for lock files on NFS), or, on a file system without link counts, a second name with
    the content of the first.
    """
    first, second, third = (os.path.join(folder, f".probe.{durable.random_name()}") for _ in range(3))
    try:
        durable.write_new(first, b"first\n")
        answer = durable.try_link(first, second)
        if answer is not None and answer.errno in _NO_LINKS:
            raise NotAFarm(
                f"{folder}: this file system has no hard links ({answer.strerror}), so a farm cannot be "
                "shared on it; put the work directory on another file system with -w DIR"
            )
        # SFTP has no link count: sshfs shows 1 for each file, so the content of the second name decides
        if os.stat(first).st_nlink != 2 and not _reads_as(second, b"first\n"):
            if answer is not None:
                raise answer
            raise NotAFarm(
                f"{folder}: `link` does not create a second name here; put the work directory elsewhere with -w DIR"
            )
        durable.write_new(third, b"third\n")
        if durable.try_link(third, second) is None or not _reads_as(second, b"first\n"):
            raise NotAFarm(f"{folder}: `link` replaces files here; put the work directory elsewhere with -w DIR")
    finally:
        for path in (first, second, third):
            durable.unlink_quietly(path)


def _reads_as(path: str, data: bytes) -> bool:
    """Whether a file exists and has this content."""
    try:
        return durable.read(path) == data
    except FileNotFoundError:
        return False
