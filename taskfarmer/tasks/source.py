"""Reads the tasks of a task list file.

Lines end with LF or CR LF, or at the end of the file. Lines that start with `#` and blank lines are ignored. Blanks
(space, tab) around a task are removed, except after a backslash at its end. All other bytes are kept: no encoding is
assumed, and a UTF-8 byte order mark at the start of the file is skipped. `#TASKFARMER --time 90m` states how long each
task below it takes, until the next such line; other lines that start like this are errors, since a later version may
give them a meaning. A NUL byte is an error, because the file is not text.

A last line without newline may be half a line that a program is still writing. With `whole_lines_only` it is kept in
`rest`, and the caller decides (taskfarmer/intake/lastline.py).

A million lines take about a second, because whole blocks are processed at once. Only blocks with unusual characters
are processed line by line.
"""

from __future__ import annotations

import codecs
import errno
import hashlib
import math
import os
import re
import stat
from collections.abc import Iterator
from typing import TYPE_CHECKING, BinaryIO

from taskfarmer.errors import AGAIN, ListUnavailable, TaskListError, remedy
from taskfarmer.formats.durations import seconds
from taskfarmer.formats.tasks import TimedCommand

if TYPE_CHECKING:
    from hashlib import _Hash

CHUNK = 4 * 1024 * 1024
_BLANKS = b" \t"
_HASH = ord("#")
_RESERVED = b"#TASKFARMER"
_RESERVED_LINE = re.compile(rb"#TASKFARMER([ \t].*)?\r?", re.DOTALL)


class SourceReader:
    """Reads the tasks of a list from byte `offset` to byte `end`, in batches, once.

    A last line without newline is not consumed if it is not a task (an unfinished comment). With `whole_lines_only` it
    is never consumed: `rest` contains it, and `last_line` yields its task.

    These attributes are valid after each batch and at the end:

    consumed: offset in the file up to which it was read.
    sha: SHA-256 of the bytes from `offset` to `consumed`. If a `sha` was passed in, that object is updated.
    lines: number of lines in these bytes. `first_line` is the number of the first one, for error messages.
    seconds: how long each of the next tasks takes, according to the list; 0 if it does not state that.
    open_end: whether the bytes end with a task that has no newline.
    """

    def __init__(
        self,
        stream: BinaryIO,
        path: str,
        *,
        offset: int = 0,
        sha: _Hash | None = None,
        first_line: int = 1,
        whole_lines_only: bool = False,
        seconds: float = 0.0,
        end: int | None = None,
    ) -> None:
        self.consumed = offset
        self.rest = b""
        self.sha = hashlib.sha256() if sha is None else sha
        self.lines = 0
        self.open_end = False
        self.seconds = seconds
        self._stream = stream
        self._path = path
        self._first_line = first_line
        self._whole_lines_only = whole_lines_only
        self._end = end

    def __iter__(self) -> Iterator[list[bytes]]:
        """Yield the tasks of about 4 MiB of the file at a time. Raise TaskListError for invalid contents."""
        for block in self._blocks():
            if self._whole_lines_only and not block.endswith(b"\n"):
                self.rest = block
            else:
                yield from self._consume(block)

    def last_line(self) -> Iterator[list[bytes]]:
        """Yield the task in `rest`, after the caller decided that the last line is complete."""
        rest, self.rest = self.rest, b""
        self._refuse_nul(rest)
        yield from self._consume(rest)

    @property
    def rest_is_task(self) -> bool:
        """Whether `rest` contains a task, or the first half of one."""
        return bool(_task(self._text(self.rest)))

    def refuse_binary_rest(self) -> None:
        """Raise TaskListError if `rest` contains a NUL byte."""
        self._refuse_nul(self.rest)

    def _consume(self, block: bytes) -> Iterator[list[bytes]]:
        tasks = self._tasks(self._text(block))
        whole = block.endswith(b"\n")
        if not whole and not tasks:
            return
        self.consumed += len(block)
        self.sha.update(block)
        self.lines += block.count(b"\n") + (not whole)
        self.open_end = not whole
        if tasks:
            yield tasks

    def _text(self, block: bytes) -> bytes:
        """The block without the byte order mark that Windows editors put at the start of a file."""
        return block.removeprefix(codecs.BOM_UTF8) if not self.consumed else block

    def _blocks(self) -> Iterator[bytes]:
        """Yield the bytes of the file as blocks of whole lines, and finally the bytes after the last newline."""
        pieces: list[bytes] = []  # of a line whose end is not read yet: it may be longer than a chunk
        for chunk in self._chunks():
            end = chunk.rfind(b"\n") + 1
            if not end:
                pieces.append(chunk)
                if not self._whole_lines_only:
                    self._refuse_nul(chunk)
                continue
            block = b"".join([*pieces, chunk[:end]])
            self._refuse_nul(block)
            yield block
            pieces = [chunk[end:]] if end < len(chunk) else []
        if pieces:
            last = b"".join(pieces)
            if not self._whole_lines_only:
                self._refuse_nul(last)
            yield last

    def _chunks(self) -> Iterator[bytes]:
        try:
            self._stream.seek(self.consumed)
            left = math.inf if self._end is None else self._end - self.consumed
            while left > 0 and (chunk := self._stream.read(int(min(CHUNK, left)))):
                left -= len(chunk)
                yield chunk
        except OSError as error:
            raise ListUnavailable(
                f"{self._path}: cannot be read after byte {self.consumed}: {error.strerror}: {remedy(error, AGAIN)}"
            ) from error

    def _tasks(self, block: bytes) -> list[bytes]:
        lines = block.split(b"\n")
        if _RESERVED in block or self.seconds:
            return list(self._with_options(lines))
        if b"\r" in block or b"\\ " in block or b"\\\t" in block:
            return [task for line in lines if (task := _task(line))]
        # Equivalent to _task for blocks without CR and without blanks after a backslash, in a third of the time.
        return [task for line in lines if (task := line.strip(_BLANKS)) and line[0] != _HASH]

    def _refuse_nul(self, block: bytes) -> None:
        position = block.find(b"\0")
        if position >= 0:
            if not self.consumed and block.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
                raise TaskListError(f"{self._path}: the encoding is UTF-16: save the file as UTF-8")
            line = self._first_line + self.lines + block.count(b"\n", 0, position)
            raise TaskListError(
                f"{self._path}: line {line}: contains a NUL byte, so the file is not text: "
                "name a text file with one command per line"
            )

    def _with_options(self, lines: list[bytes]) -> Iterator[bytes]:
        for number, line in enumerate(lines, self._first_line + self.lines):
            if _RESERVED_LINE.fullmatch(line):
                self.seconds = self._option(line, number)
            elif task := _task(line):
                yield TimedCommand.of(task, self.seconds) if self.seconds else task

    def _option(self, line: bytes, number: int) -> float:
        """The seconds that a `#TASKFARMER --time` line states; 0 for `none`. Raise TaskListError for any other line."""
        words = line.decode("utf-8", "replace").split()[1:]
        if len(words) == 1 and words[0].startswith("--time="):
            words = ["--time", words[0].removeprefix("--time=")]
        if len(words) != 2 or words[0] != "--time":
            raise TaskListError(
                f"{self._path}: line {number}: #TASKFARMER is reserved for `#TASKFARMER --time TIME`: "
                "change the comment, or use the version of taskfarmer that the list was written for"
            )
        if words[1].lower() == "none":
            return 0.0
        try:
            return seconds(words[1])
        except ValueError as error:
            raise TaskListError(f"{self._path}: line {number}: --time: {error}") from error


def open_source(path: str) -> BinaryIO:
    """Open a task list for reading. Raise TaskListError if it is not a readable regular file."""
    try:
        # Check the type first: opening a device can have side effects, and opening a FIFO would wait for its writer.
        _refuse_other_kinds(path, os.stat(path))
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except (OSError, ValueError) as error:
        missing = not isinstance(error, OSError) or error.errno in (errno.ENOENT, errno.ENOTDIR)
        raise (TaskListError if missing else ListUnavailable)(_cannot_open(path, error)) from error
    stream = os.fdopen(descriptor, "rb")
    try:
        _refuse_other_kinds(path, os.fstat(descriptor))
    except TaskListError:
        stream.close()
        raise
    return stream


def require_source(path: str) -> None:
    """Raise TaskListError if the path does not exist."""
    try:
        os.stat(path)
    except (OSError, ValueError) as error:
        raise TaskListError(_cannot_open(path, error)) from error


def line_of_task(path: str, k: int) -> int:
    """Return the line number (from 1) of task `k` (from 0). Raise IndexError if the list has fewer tasks.

    Reads the list again, because only error messages need line numbers and storing them would cost memory.
    """
    with open_source(path) as stream:
        reader = SourceReader(stream, path)
        for block in reader._blocks():
            text = reader._text(block)
            count = len(reader._tasks(text))
            if k < count:
                return _line_in(text, k) + reader.lines
            k -= count
            reader.lines += block.count(b"\n")
            reader.consumed += len(block)
    raise IndexError(f"{path} has fewer tasks")


def _line_in(block: bytes, k: int) -> int:
    numbers = [number for number, line in enumerate(block.split(b"\n"), 1) if _task(line)]
    return numbers[k]


def _task(line: bytes) -> bytes:
    """Return the task on a line without LF; empty if it has none."""
    if line.startswith(b"#"):
        return b""
    text = line.removesuffix(b"\r").lstrip(_BLANKS)
    task = text.rstrip(_BLANKS)
    # A backslash quotes the blank after it; without that blank it would quote whatever follows the command.
    return text if task.endswith(b"\\") else task


def _refuse_other_kinds(path: str, status: os.stat_result) -> None:
    if stat.S_ISDIR(status.st_mode):
        raise TaskListError(f"{path}: is a directory, not a task list: name a text file with one command per line")
    if not stat.S_ISREG(status.st_mode):
        raise TaskListError(
            f"{path}: is a pipe or a device, but a task list is read more than once: write the commands into a file"
        )


def _cannot_open(path: str, error: OSError | ValueError) -> str:
    number = error.errno if isinstance(error, OSError) else None
    if number in (errno.ENOENT, errno.ENOTDIR):
        return f"{path}: no such task list: check the path"
    if number == errno.EACCES:
        return f"{path}: no permission to read this task list: ask its owner, or `chmod u+r` it"
    advice = "check the path and the file system"
    if isinstance(error, OSError):
        return f"{path}: cannot open this task list: {error.strerror}: {remedy(error, advice)}"
    return f"{path}: cannot open this task list: {error}: {advice}"
