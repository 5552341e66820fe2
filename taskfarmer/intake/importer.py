"""Writes the new lines of a task list into a segment of the farm.

A last line without newline is left out until it is complete (lastline.py). A handler that opens the list itself is not
called before that; until then the farm has one segment without tasks.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator
from typing import BinaryIO

from taskfarmer.errors import ListUnavailable, remedy
from taskfarmer.intake.comparison import continues, digest, whole_digest
from taskfarmer.intake.handler import Handler, ReadsWholeList
from taskfarmer.intake.lastline import LastLine, has_newline
from taskfarmer.ledger.segments import SegmentWriter
from taskfarmer.ledger.state import Segment, State
from taskfarmer.storage.layout import Workdir
from taskfarmer.tasks.source import SourceReader, open_source

_ELSEWHERE = "name another work directory with -w DIR"
_NOTHING = 0, hashlib.sha256().hexdigest()
"""Size and SHA-256 of an empty prefix of a list."""


class Importer:
    """Imports one list. `last_line` is the state of a last line without newline.

    `between` is called between file operations, and may raise Stopped.
    """

    def __init__(self, path: str, handler: Handler | None, between: Callable[[], None] = lambda: None) -> None:
        self.path = path
        self.handler = handler
        self.between = between
        self.last_line = LastLine(path)

    def segment(self, workdir: Workdir, state: State | None, skip: int = 0, changed: bool = False) -> Segment | None:
        """Write the complete lines that are not in `state` yet into a new segment; None without such lines.

        `changed`: the bytes before them have changed; the new tasks follow the first `skip` tasks of the list.
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
                f"{error.filename or workdir.tasks}: {error.strerror}; the task list was not imported, nothing "
                f"was changed: {remedy(error, _ELSEWHERE, _ELSEWHERE)}"
            ) from error
        except BaseException:
            writer.discard()
            raise
        return segment

    def _changed(self) -> ListUnavailable:
        return ListUnavailable(f"{self.path}: changed while it was read: start again when it is complete")

    def is_still_empty(self, state: State) -> bool:
        """Whether a handler that opens the list itself was not called yet."""
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
            raise self._changed()
        return Segment(writer.name, 0, writer.tasks, 0, *before, timed=writer.timed)

    def _lines(self, writer: SegmentWriter, last: Segment | None, skip: int) -> Segment:
        with open_source(self.path) as stream:
            sha, before = digest(stream, last.source_bytes if last is not None else 0)
            if last is not None and not continues(stream, last, sha):
                raise self._changed()
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
            elif not self._call_handler(writer, reader, [task for batch in complete for task in batch]):
                return Segment(writer.name, 0, 0, 0, *_NOTHING, source_crc=writer.source_crc.decode("ascii"))
        size, digested, crc = reader.consumed, reader.sha.hexdigest(), writer.source_crc.decode("ascii")
        first, tasks, timed = writer.first_id, writer.tasks, writer.timed
        return Segment(writer.name, first, tasks, 0, size, digested, reader.open_end, timed, reader.seconds, crc)

    def _complete_lines(
        self, reader: SourceReader, stream: BinaryIO, writer: SegmentWriter, skip: int
    ) -> Iterator[list[bytes]]:
        """Yield the tasks of the complete lines, except for the first `skip` tasks."""
        count = 0
        for batch in reader:
            yield batch[max(0, skip - count) :]
            count += len(batch)
        self.last_line.pending = False
        # If fewer than `skip` tasks precede it, the last line was imported before.
        if reader.rest_is_task and count >= skip:
            size = reader.consumed + len(reader.rest)
            if self._is_complete(os.fstat(stream.fileno()), size, writer):
                yield from reader.last_line()

    def _is_complete(self, status: os.stat_result, size: int, writer: SegmentWriter) -> bool:
        return self.last_line.is_complete(status, size, writer.workdir.segment(writer.name))

    def _call_handler(self, writer: SegmentWriter, reader: SourceReader, lines: list[bytes]) -> bool:
        """Add the commands that the handler makes of `lines`. Return False, and add none, if it reads other lines."""
        assert self.handler is not None
        workdir = writer.workdir
        size = reader.consumed + len(reader.rest)
        known = None if self.last_line.pending else size
        accepted = True
        try:
            if lines:
                for batch in self.handler.commands(self.path, workdir.path, writer.first_id, reader.consumed, known):
                    self.between()
                    writer.add(batch)
        except ReadsWholeList:
            self.last_line.wait()
            lines, accepted = [], False
        writer.add_source(lines)
        return accepted
