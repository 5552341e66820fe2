"""Whether a task list still begins with what its farm has taken in, and which line differs first."""

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
    """The list ends before what was taken in does, as a file does whose size is seen as it was a moment ago."""


def digest(stream: BinaryIO, size: int) -> tuple[_Hash, int]:
    """SHA-256 over the first `size` bytes, and how many lines end in them; the stream stands behind them."""
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
    """Size and SHA-256 of a list that a handler reads in its own way; (0, "") where it is no file."""
    if not os.path.isfile(path):
        return 0, ""
    with open(path, "rb") as stream:
        size = os.fstat(stream.fileno()).st_size
        return size, digest(stream, size)[0].hexdigest()


@contextmanager
def _readable(path: str) -> Iterator[None]:
    """Raise ListUnavailable for an error of the file system that a list is on."""
    try:
        yield
    except OSError as error:
        raise ListUnavailable(
            f"{error.filename or path}: {error.strerror}; the list cannot be compared with its farm: "
            + remedy(error, AGAIN)
        ) from error
    except IndexError as error:
        raise ListUnavailable(f"{path}: changes while it is read: start again when it is whole") from error


def compare(path: str, workdir: Workdir, state: State, farm: Farm, patience: float = PATIENCE) -> int | None:
    """None where the list begins with exactly what was taken in; else how many tasks to pass over.

    TaskListError names the first line whose task is another one. A list that ends too early is looked at again
    for `patience` seconds: another node may just have added to it, and this one still see its old size.
    """

    def attempt() -> int | None:
        with _readable(path):
            return _compare(path, workdir, state, farm)

    return wait_until_visible(attempt, patience, 0.2, _TooShort)


def _compare(path: str, workdir: Workdir, state: State, farm: Farm) -> int | None:
    last = state.segments[-1]
    with open_source(path) as stream:
        size = os.fstat(stream.fileno()).st_size
        if size >= last.source_bytes and goes_on(stream, last, digest(stream, last.source_bytes)[0]):
            return None
        return _compare_tasks(stream, path, workdir, state, farm)


def goes_on(stream: BinaryIO, last: Segment, sha: _Hash) -> bool:
    """Whether a list begins with what was taken in up to `last`, and a new line follows.

    `sha` is the digest of so many bytes of it, and the stream stands behind them.
    """
    if sha.hexdigest() != last.source_sha256:
        return False
    following = stream.read(2)
    return not last.open_end or following[:1] in (b"", b"\n") or following == b"\r\n"


def _compare_tasks(stream: BinaryIO, path: str, workdir: Workdir, state: State, farm: Farm) -> int:
    """Task by task: how many agree, which must be all that were taken in."""
    stream.seek(0)
    listed = _listed(SourceReader(stream, path, whole_lines_only=True))
    count = 0
    for taken in _taken(workdir, state, farm):
        now = next(listed, None)
        if now != taken:
            short = now is None or (taken.startswith(now) and next(listed, None) is None)
            raise _refusal(path, workdir, farm, count, taken, now, _TooShort if short else TaskListError)
        count += 1
    return count


def _listed(reader: SourceReader) -> Iterator[bytes]:
    """The tasks of the list. A last line without newline may be half of one that `_task` refuses: it comes last."""
    for batch in reader:
        yield from batch
    for batch in reader.last_line():
        yield from batch


def _refusal(
    path: str, workdir: Workdir, farm: Farm, task: int, taken: bytes, now: bytes | None, kind: type[TaskListError]
) -> TaskListError:
    was = _short(taken)
    if now is None:
        what = f"the list ends before task {task}, which was {was}"
    else:
        what = f"line {line_of_task(path, task)} (task {task}) is {_short(now)}, and was {was}"
    if os.path.realpath(path) != os.path.realpath(farm.list_path):
        return kind(
            f"{workdir.path}: belongs to another task list, {farm.list_path}: {what}; give {path} a work directory of "
            "its own with -w DIR"
        )
    return kind(
        f"{path}: changed since it was taken in: {what}; tasks may only be added at the end: undo the change, or run "
        "the new list in another work directory with -w DIR"
    )


def compare_whole(path: str, state: State, farm: Farm) -> None:
    """The same for a list that a handler reads in its own way: any change is refused."""
    with _readable(path):
        now = whole_digest(path)[1]
    if now != state.segments[-1].source_sha256:
        raise TaskListError(
            f"{path}: changed since handler '{farm.handler}' made a farm of it; use another work directory with -w DIR"
        )


def _short(task: bytes) -> str:
    text = task.decode("utf-8", "replace")
    return repr(text if len(text) <= 60 else text[:57] + "...")


def _taken(workdir: Workdir, state: State, farm: Farm) -> Iterator[bytes]:
    """The lines of the list as they were taken in."""
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
    """The lines of which a handler made a segment; Damaged where they are not what was written."""
    crc = 0
    with reading.opened(path) as fd:
        reading.regular(fd, path)
        for data in reading.blocks(fd) if wanted else ():
            crc = zlib.crc32(data, crc)
        if wanted and wanted != f"{crc:08x}":
            raise Damaged(f"{path}: not what was written into it (wrong checksum); {_RESTORE}")
        os.lseek(fd, 0, os.SEEK_SET)
        for line in reading.lines(fd, limits.TASK):
            if not line.endswith(b"\n"):
                raise Damaged(f"{path}: has no end, or a line that is too long; {_RESTORE}")
            yield line[:-1]
