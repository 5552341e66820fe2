"""The files of the views, and `views.json`, which records how far they are up to date.

`views.json` contains the bytes of results that the views show, and the size of each view. If a view has another size,
it was edited, or a crash came between two writes: then it is rebuilt. No decision depends on a view, so nothing here is
synced.
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
SETTLE_SECONDS = 0.3
"""Seconds after which a wrong size is checked again: a farmer may be between two writes."""
TIMELINE = "timeline.json"
GROWING = ("finished", "failed", TIMELINE)
"""Views that are appended to; `toprocess` is replaced."""
_NOT_OURS = (errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.ELOOP, errno.ENXIO, errno.EACCES, errno.EPERM)
"""Errors of `open` if a view is missing, is not a regular file, or belongs to another user."""


class ViewsRecord(NamedTuple):
    """The content of `views.json`: bytes of results shown, the revision of `toprocess`, and the size of each view."""

    results: int
    revision: int
    sizes: Mapping[str, int]


def view_path(workdir: Workdir, name: str) -> str:
    return {
        "toprocess": workdir.toprocess,
        "finished": workdir.finished,
        "failed": workdir.failed,
        "timeline.json": workdir.timeline,
    }[name]


def load(workdir: Workdir) -> ViewsRecord | None:
    """The record in `views.json`; None if it is missing or corrupt."""
    try:
        document: dict[str, Any] | None = unsealed(durable.read(workdir.views))
    except OSError:
        return None
    if document is None:
        return None
    try:
        sizes = members.table(document, "sizes")
        known = {name: members.whole(sizes, name) for name in sizes}
        return ViewsRecord(members.whole(document, "results"), members.whole(document, "revision"), known)
    except ValueError:
        return None


def encode(shown: ViewsRecord) -> bytes:
    """The record as a sealed document."""
    return sealed({"format": 1, "results": shown.results, "revision": shown.revision, "sizes": dict(shown.sizes)})


def save(workdir: Workdir, shown: ViewsRecord) -> None:
    replace_view(workdir.views, [encode(shown)], workdir.shared)


def sizes(workdir: Workdir, names: Iterable[str]) -> dict[str, int]:
    """The current sizes of views; -1 if one is missing or is not a regular file."""
    found = {}
    for name in names:
        try:
            there = os.lstat(view_path(workdir, name))
            found[name] = there.st_size if stat.S_ISREG(there.st_mode) else -1
        except OSError:
            found[name] = -1
    return found


def replace_view(path: str, parts: Iterable[bytes], shared: bool = False) -> int:
    """Write a view and rename it into place, also if a directory is there. Return its size."""
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
    except BaseException:  # the parts may be read from a corrupt file
        durable.unlink_quietly(temporary)
        raise
    return size


def create(path: str, parts: Iterable[bytes], shared: bool = False) -> int:
    """Write a new view. Return its size. Raises FileExistsError, without any change, if it exists."""
    size = 0
    with durable.with_filename(path), open(path, "xb", buffering=1 << 20, opener=durable.open_exclusive) as file:
        try:
            if shared:
                durable.grant_group(file.fileno(), durable.GROUP_WRITES)
            for part in parts:
                size += file.write(part)
            file.flush()
        except OSError:
            os.ftruncate(file.fileno(), 0)  # frees space on a full disk; the name may belong to another file by now
            raise
    return size


@contextmanager
def open_growing(workdir: Workdir, shown: ViewsRecord, names: Iterable[str]) -> Iterator[dict[str, int] | None]:
    """Open views for writing. None if the size of one differs from the record.

    The size of the open file is compared: if another process replaces the view later, it does not get our lines.
    """
    opened: dict[str, int] = {}
    try:
        yield opened if all(_open_to_grow(workdir, shown, name, opened) for name in names) else None
    finally:
        for fd in opened.values():
            os.close(fd)


def _open_to_grow(workdir: Workdir, shown: ViewsRecord, name: str, opened: dict[str, int]) -> bool:
    path = view_path(workdir, name)
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
    """Write at the end of an open view. Return the number of bytes added."""
    with durable.with_filename(path):
        written = durable.write_parts(fd, parts)
        durable.drop_page_cache(fd, written)
        return written


def extend_timeline(path: str, fd: int, slices: Sequence[bytes], size: int) -> int:
    """Overwrite the closing bracket; the file stays a complete document. Return the number of bytes added."""
    with durable.with_filename(path):
        os.lseek(fd, size - len(TIMELINE_END), os.SEEK_SET)
        written = durable.write_parts(fd, (*slices, TIMELINE_END))
        durable.drop_page_cache(fd, written)
        return written - len(TIMELINE_END)


def edited_by_hand(workdir: Workdir) -> list[str]:
    """A warning if the size of `toprocess` differs from the record; else an empty list."""
    before = _toprocess_sizes(workdir)
    if before is None or before[0] == before[1]:
        return []
    time.sleep(SETTLE_SECONDS)  # a farmer may have written only one of the two files
    if _toprocess_sizes(workdir) != before:
        return []
    return [
        f"{workdir.toprocess} was edited by hand, or its last update was interrupted; it is a view, so edits have no "
        "effect. To run tasks again use `taskfarmer retry`, to rebuild the file `taskfarmer check --repair`"
    ]


def _toprocess_sizes(workdir: Workdir) -> tuple[int, int] | None:
    shown = load(workdir)
    if shown is None or "toprocess" not in shown.sizes:
        return None
    return shown.sizes["toprocess"], sizes(workdir, ["toprocess"])["toprocess"]
