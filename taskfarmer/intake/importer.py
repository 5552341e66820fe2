"""Writes the lines that a list has beyond its farm into a segment.

A last line without newline is left out until it is complete (lastline.py). A handler that reads the list in its own
way gets nothing before that: the first segment of its farm has no tasks.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator
from typing import BinaryIO

from taskfarmer.errors import ListUnavailable, remedy
from taskfarmer.intake.comparison import digest, goes_on, whole_digest
from taskfarmer.intake.handler import Handler, ReadsInItsOwnWay
from taskfarmer.intake.lastline import LastLine, has_newline
from taskfarmer.ledger.segments import SegmentWriter
from taskfarmer.ledger.state import Segment, State
from taskfarmer.storage.layout import Workdir
from taskfarmer.tasks.source import SourceReader, open_source

_ELSEWHERE = "name another work directory with -w DIR"
_NOTHING = 0, hashlib.sha256().hexdigest()
"""Size and SHA-256 of the part of a list of which nothing was read."""


class Importer:
    """Reads one list. `last_line` is what this farmer knows of a last line without newline.

    `between` is called between file operations, and may raise Stopped.
    """

    def __init__(self, path: str, handler: Handler | None, between: Callable[[], None] = lambda: None) -> None:
        self.path = path
        self.handler = handler
        self.between = between
        self.last_line = LastLine(path)

    def segment(self, workdir: Workdir, state: State | None, skip: int = 0, changed: bool = False) -> Segment | None:
        """Write the complete lines that the list has beyond `state`; None if there are none.

        `changed`: the bytes before them have changed, and they begin behind the first `skip` tasks of the list.
        """
        writer = SegmentWriter(workdir, state.tasks if state is not None else 0)
        try:
            if self.handler is not None and not self.handler.by_line:
                segment = self._whole_file(writer)
            else:
                segment = self._lines(writer, None if state is None or changed else state.segments[-1], skip)
            if state is not None and not writer.tasks:
                writer.discard()
                return None
            writer.close()
        except OSError as error:
            writer.discard()
            raise ListUnavailable(
                f"{error.filename or workdir.tasks}: {error.strerror}; the task list was not taken in, nothing "
                f"was changed: {remedy(error, _ELSEWHERE, _ELSEWHERE)}"
            ) from error
        except BaseException:
            writer.discard()
            raise
        return segment

    def _changes(self) -> ListUnavailable:
        return ListUnavailable(f"{self.path}: changes while it is read: start again when it is whole")

    def took_nothing_yet(self, state: State) -> bool:
        """Whether a handler that reads the list in its own way has not got it yet."""
        last = state.segments[-1]
        return not state.tasks and (last.source_bytes, last.source_sha256) == _NOTHING

    def _whole_file(self, writer: SegmentWriter) -> Segment:
        status = os.stat(self.path)
        if not has_newline(self.path, status) and not self._is_complete(status, status.st_size, writer):
            return Segment(writer.name, 0, 0, 0, *_NOTHING)
        self.last_line.pending = False
        assert self.handler is not None
        before = whole_digest(self.path)
        for batch in self.handler.commands(self.path, writer.workdir.path, 0):
            self.between()
            writer.add(batch)
        if whole_digest(self.path) != before:
            raise self._changes()
        return Segment(writer.name, 0, writer.tasks, 0, *before, timed=writer.timed)

    def _lines(self, writer: SegmentWriter, last: Segment | None, skip: int) -> Segment:
        with open_source(self.path) as stream:
            sha, before = digest(stream, last.source_bytes if last is not None else 0)
            if last is not None and not goes_on(stream, last, sha):
                raise self._changes()
            reader = SourceReader(
                stream,
                self.path,
                offset=last.source_bytes if last is not None else 0,
                sha=sha,
                first_line=before + 1,
                whole_lines_only=True,
                seconds=last.time if last is not None else 0.0,
            )
            complete = self._complete_lines(reader, stream, writer, skip)
            if self.handler is None:
                for batch in complete:
                    self.between()
                    writer.add(batch)
            elif not self._handled(writer, reader, [task for batch in complete for task in batch]):
                return Segment(writer.name, 0, 0, 0, *_NOTHING, source_crc=writer.source_crc.decode("ascii"))
        size, digested, crc = reader.consumed, reader.sha.hexdigest(), writer.source_crc.decode("ascii")
        first, tasks, timed = writer.first_id, writer.tasks, writer.timed
        return Segment(writer.name, first, tasks, 0, size, digested, reader.open_end, timed, reader.seconds, crc)

    def _complete_lines(
        self, reader: SourceReader, stream: BinaryIO, writer: SegmentWriter, skip: int
    ) -> Iterator[list[bytes]]:
        """Give the tasks of the lines that are complete, but for the first `skip`."""
        count = 0
        for batch in reader:
            yield batch[max(0, skip - count) :]
            count += len(batch)
        self.last_line.pending = False
        # With fewer than `skip` tasks above it, the last line is one that was taken in before.
        if reader.rest_is_task and count >= skip:
            size = reader.consumed + len(reader.rest)
            if self._is_complete(os.fstat(stream.fileno()), size, writer):
                yield from reader.last_line()

    def _is_complete(self, status: os.stat_result, size: int, writer: SegmentWriter) -> bool:
        return self.last_line.is_complete(status, size, writer.workdir.segment(writer.name))

    def _handled(self, writer: SegmentWriter, reader: SourceReader, lines: list[bytes]) -> bool:
        """Add the commands that the handler makes of these lines; False, and none, if it would read more than them."""
        assert self.handler is not None
        workdir = writer.workdir
        size = reader.consumed + len(reader.rest)
        known = None if self.last_line.pending else size
        taken = True
        try:
            if lines:
                for batch in self.handler.commands(self.path, workdir.path, writer.first_id, reader.consumed, known):
                    self.between()
                    writer.add(batch)
        except ReadsInItsOwnWay:
            self.last_line.wait()
            lines, taken = [], False
        writer.add_source(lines)
        return taken
