"""The views as files, and `views.json`, which says up to where they are true.

`views.json` holds how many bytes of results are shown and how long each view is. A view that is longer
or shorter was changed by somebody, or by a crash between two writes, and is made anew. Nothing is ever
decided from a view, so nothing here is synced.
"""

from __future__ import annotations

import errno
import os
import stat
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

from taskfarmer.formats import members
from taskfarmer.formats.sealed import sealed, unsealed
from taskfarmer.storage import durable
from taskfarmer.storage.layout import Workdir

TIMELINE_START = b'[\n{"name":"process_labels","ph":"M","pid":0,"args":{"labels":"taskfarmer"}}'
TIMELINE_END = b"\n]\n"
SETTLING = 0.3
TIMELINE = "timeline.json"
GROWING = ("finished", "failed", TIMELINE)
_NOT_OURS = (errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.ELOOP, errno.ENXIO, errno.EACCES, errno.EPERM)
"""Errors of `open` which mean that a view is missing, is no regular file, or belongs to another user."""


class Shown(NamedTuple):
    """What the views show: bytes of results, the revision that `toprocess` is from, the sizes of all."""

    results: int
    revision: int
    sizes: Mapping[str, int]


def path_of(workdir: Workdir, name: str) -> str:
    return {
        "toprocess": workdir.toprocess,
        "finished": workdir.finished,
        "failed": workdir.failed,
        "timeline.json": workdir.timeline,
    }[name]


def load(workdir: Workdir) -> Shown | None:
    """What `views.json` says; None where it is missing or damaged."""
    try:
        document: dict[str, Any] | None = unsealed(durable.read(workdir.views))
    except OSError:
        return None
    if document is None:
        return None
    try:
        sizes = members.table(document, "sizes")
        known = {name: members.whole(sizes, name) for name in sizes}
        return Shown(members.whole(document, "results"), members.whole(document, "revision"), known)
    except ValueError:
        return None


def encoded(shown: Shown) -> bytes:
    """The content of `views.json`."""
    return sealed({"format": 1, "results": shown.results, "revision": shown.revision, "sizes": dict(shown.sizes)})


def save(workdir: Workdir, shown: Shown) -> None:
    write_anew(workdir.views, [encoded(shown)], workdir.shared)


def sizes(workdir: Workdir, names: Iterable[str]) -> dict[str, int]:
    """The sizes of the views as they are; -1 for one that is no file."""
    found = {}
    for name in names:
        try:
            there = os.lstat(path_of(workdir, name))
            found[name] = there.st_size if stat.S_ISREG(there.st_mode) else -1
        except OSError:
            found[name] = -1
    return found


def write_anew(path: str, parts: Iterable[bytes], shared: bool = False) -> int:
    """Make a view and rename it into place; its size. Whatever stands there is replaced, a directory too."""
    temporary = durable.temp_name(path)
    size = 0
    try:
        with (
            durable.with_filename(path),
            open(temporary, "xb", buffering=1 << 20, opener=durable.open_exclusive) as file,
        ):
            if shared:
                durable.grant_group(file.fileno(), durable.GROUP_WRITES)
            for part in parts:
                size += file.write(part)
        try:
            os.rename(temporary, path)
        except IsADirectoryError:
            os.rename(path, durable.temp_name(path))
            os.rename(temporary, path)
    except BaseException:  # the parts may be of a damaged file
        durable.unlink_quietly(temporary)
        raise
    return size


def create(path: str, parts: Iterable[bytes], shared: bool = False) -> int:
    """Make the first view of that name; its size. FileExistsError, and nothing changed, if there is one."""
    size = 0
    with durable.with_filename(path), open(path, "xb", buffering=1 << 20, opener=durable.open_exclusive) as file:
        try:
            if shared:
                durable.grant_group(file.fileno(), durable.GROUP_WRITES)
            for part in parts:
                size += file.write(part)
            file.flush()
        except OSError:
            os.ftruncate(file.fileno(), 0)  # a full disk needs the room; the name may be of another file by now
            raise
    return size


@contextmanager
def growing(workdir: Workdir, shown: Shown, names: Iterable[str]) -> Iterator[dict[str, int] | None]:
    """Descriptors of views to write into. None if one of them is not as long as `shown` has it.

    The length is that of the open file: whatever replaces the view after that, our lines are not in it.
    """
    opened: dict[str, int] = {}
    try:
        yield opened if all(_open_to_grow(workdir, shown, name, opened) for name in names) else None
    finally:
        for fd in opened.values():
            os.close(fd)


def _open_to_grow(workdir: Workdir, shown: Shown, name: str, opened: dict[str, int]) -> bool:
    path = path_of(workdir, name)
    flags = os.O_WRONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK | (os.O_APPEND if name != TIMELINE else 0)
    try:
        fd = opened[name] = os.open(path, flags)
    except OSError as error:
        if error.errno in _NOT_OURS:
            return False
        raise
    there = os.fstat(fd)
    return stat.S_ISREG(there.st_mode) and there.st_size == shown.sizes.get(name)


def append(path: str, fd: int, parts: Sequence[bytes]) -> int:
    """Write at the end of an open view; how many bytes it has more."""
    with durable.with_filename(path):
        written = durable.write_parts(fd, parts)
        durable.drop_page_cache(fd, written)
        return written


def extend_timeline(path: str, fd: int, slices: Sequence[bytes], size: int) -> int:
    """Write over the closing bracket; the file is a complete document before and after. How many bytes it has more."""
    with durable.with_filename(path):
        os.lseek(fd, size - len(TIMELINE_END), os.SEEK_SET)
        written = durable.write_parts(fd, (*slices, TIMELINE_END))
        durable.drop_page_cache(fd, written)
        return written - len(TIMELINE_END)


def edited_by_hand(workdir: Workdir) -> list[str]:
    """A warning for a `toprocess` that is not as long as it was written; none where it is."""
    before = _toprocess_sizes(workdir)
    if before is None or before[0] == before[1]:
        return []
    time.sleep(SETTLING)  # a farmer may be between the two files
    if _toprocess_sizes(workdir) != before:
        return []
    return [
        f"{workdir.toprocess} was edited by hand, or its last update was cut short: it is a view, edits of it change "
        "nothing; to run tasks again use `taskfarmer retry`, to make the file anew `taskfarmer check --repair`"
    ]


def _toprocess_sizes(workdir: Workdir) -> tuple[int, int] | None:
    shown = load(workdir)
    if shown is None or "toprocess" not in shown.sizes:
        return None
    return shown.sizes["toprocess"], sizes(workdir, ["toprocess"])["toprocess"]
