"""Checks whether a task list still starts with the imported tasks, and finds the first line that differs."""

from __future__ import annotations

import hashlib
import os
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, BinaryIO

from taskfarmer.errors import AGAIN, Damaged, ListUnavailable, TaskListError, remedy
from taskfarmer.formats import limits
from taskfarmer.ledger.farmfile import Farm
from taskfarmer.ledger.segments import SegmentReader
from taskfarmer.ledger.state import Segment, State
from taskfarmer.storage import reading
from taskfarmer.storage.eventually import FOR_PEOPLE, wait_until_visible
from taskfarmer.storage.layout import Workdir
from taskfarmer.tasks.source import SourceReader, line_of_task, open_source

if TYPE_CHECKING:
    from hashlib import _Hash

PATIENCE = FOR_PEOPLE
_RESTORE = "restore it from a snapshot of the file system, or use another work directory (-w)"


class _TooShort(TaskListError):
    """The list ends before the imported tasks do, perhaps because this node still sees its old size."""


def digest(stream: BinaryIO, size: int) -> tuple[_Hash, int]:
    """Return the SHA-256 of the first `size` bytes and the number of newlines in them; leave the stream after them."""
    sha = hashlib.sha256()
    lines = 0
    stream.seek(0)
    while size:
        data = stream.read(min(size, 1 << 20))
        if not data:
            break
        sha.update(data)
        lines += data.count(b"\n")
        size -= len(data)
    return sha, lines


def whole_digest(path: str) -> tuple[int, str]:
    """Size and SHA-256 of a list whose handler opens it itself; (0, "") if it is not a regular file."""
    if not os.path.isfile(path):
        return 0, ""
    with open(path, "rb") as stream:
        size = os.fstat(stream.fileno()).st_size
        return size, digest(stream, size)[0].hexdigest()


@contextmanager
def _readable(path: str) -> Iterator[None]:
    """Raise ListUnavailable for an error of the file system of a list."""
    try:
        yield
    except OSError as error:
        raise ListUnavailable(
            f"{error.filename or path}: {error.strerror}; the list cannot be compared with its farm: "
            + remedy(error, AGAIN)
        ) from error
    except IndexError as error:
        raise ListUnavailable(f"{path}: changed while it was read: start again when it is complete") from error


def compare(path: str, workdir: Workdir, state: State, farm: Farm, patience: float = PATIENCE) -> int | None:
    """Return None if the list starts with exactly the imported bytes, else the number of imported tasks to skip.

    Raise TaskListError with the first line whose task was changed. A list that ends too early is read again for
    `patience` seconds: another node may have added lines, and this node may still see the old size.
    """

    def attempt() -> int | None:
        with _readable(path):
            return _compare(path, workdir, state, farm)

    return wait_until_visible(attempt, patience, 0.2, _TooShort)


def _compare(path: str, workdir: Workdir, state: State, farm: Farm) -> int | None:
    last = state.segments[-1]
    with open_source(path) as stream:
        size = os.fstat(stream.fileno()).st_size
        if size >= last.source_bytes and continues(stream, last, digest(stream, last.source_bytes)[0]):
            return None
        return _compare_tasks(stream, path, workdir, state, farm)


def continues(stream: BinaryIO, last: Segment, sha: _Hash) -> bool:
    """Whether a list starts with the bytes imported up to `last`, and a new line follows.

    `sha` is the digest of that many bytes of the list, and the stream is positioned after them.
    """
    if sha.hexdigest() != last.source_sha256:
        return False
    following = stream.read(2)
    return not last.open_end or following[:1] in (b"", b"\n") or following == b"\r\n"


def _compare_tasks(stream: BinaryIO, path: str, workdir: Workdir, state: State, farm: Farm) -> int:
    """Compare task by task; return the number of imported tasks, which must all agree."""
    stream.seek(0)
    listed = _listed(SourceReader(stream, path, whole_lines_only=True))
    count = 0
    for imported in _imported(workdir, state, farm):
        now = next(listed, None)
        if now != imported:
            short = now is None or (imported.startswith(now) and next(listed, None) is None)
            raise _refusal(path, workdir, farm, count, imported, now, _TooShort if short else TaskListError)
        count += 1
    return count


def _listed(reader: SourceReader) -> Iterator[bytes]:
    """Yield the tasks of the list. A last line without newline comes last, since it may be half a task."""
    for batch in reader:
        yield from batch
    for batch in reader.last_line():
        yield from batch


def _refusal(
    path: str, workdir: Workdir, farm: Farm, task: int, imported: bytes, now: bytes | None, kind: type[TaskListError]
) -> TaskListError:
    was = _short(imported)
    if now is None:
        what = f"the list ends before task {task}, which was {was}"
    else:
        what = f"line {line_of_task(path, task)} (task {task}) is {_short(now)}, and was {was}"
    if os.path.realpath(path) != os.path.realpath(farm.list_path):
        return kind(
            f"{workdir.path}: belongs to another task list, {farm.list_path}: {what}; name another work directory "
            f"for {path} with -w DIR"
        )
    return kind(
        f"{path}: changed since it was imported: {what}; tasks may only be added at the end: undo the change, or run "
        "the new list in another work directory with -w DIR"
    )


def compare_whole(path: str, state: State, farm: Farm) -> None:
    """Compare a list whose handler opens it itself: raise TaskListError for any change."""
    with _readable(path):
        now = whole_digest(path)[1]
    if now != state.segments[-1].source_sha256:
        raise TaskListError(
            f"{path}: changed since handler '{farm.handler}' imported it; use another work directory with -w DIR"
        )


def _short(task: bytes) -> str:
    text = task.decode("utf-8", "replace")
    return repr(text if len(text) <= 60 else text[:57] + "...")


def _imported(workdir: Workdir, state: State, farm: Farm) -> Iterator[bytes]:
    """Yield the imported lines of the list."""
    if farm.handler == "default":
        reader = SegmentReader(workdir)
        try:
            for segment in state.segments:
                for _, command in reader.tasks(segment, 0, segment.tasks):
                    yield command
        finally:
            reader.close()
        return
    for segment in state.segments:
        yield from _source(workdir.segment_source(segment.file), segment.source_crc)


def _source(path: str, wanted: str) -> Iterator[bytes]:
    """Yield the lines from which a handler made a segment; raise Damaged if they are corrupt."""
    crc = 0
    with reading.opened(path) as fd:
        reading.regular(fd, path)
        for data in reading.blocks(fd) if wanted else ():
            crc = zlib.crc32(data, crc)
        if wanted and wanted != f"{crc:08x}":
            raise Damaged(f"{path}: corrupt (checksum mismatch); {_RESTORE}")
        os.lseek(fd, 0, os.SEEK_SET)
        for line in reading.lines(fd, limits.TASK):
            if not line.endswith(b"\n"):
                raise Damaged(f"{path}: truncated, or a line is too long; {_RESTORE}")
            yield line[:-1]
