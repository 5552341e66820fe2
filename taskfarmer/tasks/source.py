"""The task list file: which of its bytes are tasks.

Lines end at LF or with the file, and nowhere else; a CR before that belongs to it. Lines that begin with `#` and lines
of blanks only are no tasks. Blanks (space, tab) around a task are dropped, at its end only where no backslash would
become its last character. Everything else is kept byte by byte: no encoding is assumed, and a UTF-8 byte order mark at
the beginning of the file is skipped. `#TASKFARMER --time 90m` says how long each of the tasks below it takes, until
another such line; other lines that begin so are refused, since a later version may give them a meaning. A NUL means
that the file is not text.

A last line without newline may be half of a line that a program is still writing. `whole_lines_only` leaves it in
`rest`, for the caller to decide (taskfarmer/intake/lastline.py).

A million lines take about a second: the work is done by the block, and a line is looked at by itself only in blocks
that hold something unusual.
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
    """Reads the tasks of a list from `offset` on, in batches, once.

    After each batch, and at the end: `consumed` is the offset in the file up to which it was read, `sha` the SHA-256 of
    the bytes from `offset` to there (continued from `sha`, where one is given: that object is updated), `lines` the
    number of lines in them, `seconds` how long the next tasks take as the list says (0: it does not), and `open_end`
    says that they end in a task whose line has no newline. A last line without newline that is not a task (an
    unfinished comment) is not consumed. With `whole_lines_only` no last line without newline is: `rest` contains it
    then, and `last_line` gives its task. `first_line` is the number of the line at `offset`, for messages. `end`: the
    list is read up to this byte only, as if the file ended there.
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
        """Give the tasks, some 4 MiB of the file at a time. TaskListError for what a list must not hold."""
        for block in self._blocks():
            if self._whole_lines_only and not block.endswith(b"\n"):
                self.rest = block
            else:
                yield from self._consume(block)

    def last_line(self) -> Iterator[list[bytes]]:
        """Give the task in `rest`: the last line is complete, although it has no newline."""
        rest, self.rest = self.rest, b""
        self._refuse_nul(rest)
        yield from self._consume(rest)

    @property
    def rest_is_task(self) -> bool:
        """Whether there is a task in `rest`, as far as it is written."""
        return bool(_task(self._text(self.rest)))

    def refuse_binary_rest(self) -> None:
        """Raise TaskListError if there is a NUL in `rest`."""
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
        """The next block without the byte order mark with which Windows editors begin a file."""
        return block.removeprefix(codecs.BOM_UTF8) if not self.consumed else block

    def _blocks(self) -> Iterator[bytes]:
        """Give the bytes of the file in pieces of whole lines, and last what follows the last newline."""
        begun: list[bytes] = []  # pieces of a line whose end is not read yet: it may be longer than any chunk
        for chunk in self._chunks():
            end = chunk.rfind(b"\n") + 1
            if not end:
                begun.append(chunk)
                if not self._whole_lines_only:
                    self._refuse_nul(chunk)
                continue
            block = b"".join([*begun, chunk[:end]])
            self._refuse_nul(block)
            yield block
            begun = [chunk[end:]] if end < len(chunk) else []
        if begun:
            last = b"".join(begun)
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
                f"{self._path}: cannot be read from byte {self.consumed} on: {error.strerror}: {remedy(error, AGAIN)}"
            ) from error

    def _tasks(self, block: bytes) -> list[bytes]:
        lines = block.split(b"\n")
        if _RESERVED in block or self.seconds:
            return list(self._with_options(lines))
        if b"\r" in block or b"\\ " in block or b"\\\t" in block:
            return [task for line in lines if (task := _task(line))]
        # What _task does where there is neither a CR nor a blank behind a backslash, at a third of its time.
        return [task for line in lines if (task := line.strip(_BLANKS)) and line[0] != _HASH]

    def _refuse_nul(self, block: bytes) -> None:
        position = block.find(b"\0")
        if position >= 0:
            if not self.consumed and block.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
                raise TaskListError(f"{self._path}: is encoded in UTF-16: save it as UTF-8")
            line = self._first_line + self.lines + block.count(b"\n", 0, position)
            raise TaskListError(
                f"{self._path}: line {line}: holds a NUL byte, so this is no text: "
                "give a text file with a command on each line"
            )

    def _with_options(self, lines: list[bytes]) -> Iterator[bytes]:
        for number, line in enumerate(lines, self._first_line + self.lines):
            if _RESERVED_LINE.fullmatch(line):
                self.seconds = self._option(line, number)
            elif task := _task(line):
                yield TimedCommand.of(task, self.seconds) if self.seconds else task

    def _option(self, line: bytes, number: int) -> float:
        """The seconds that a line of options says; TaskListError for whatever else stands in it."""
        words = line.decode("utf-8", "replace").split()[1:]
        if len(words) == 1 and words[0].startswith("--time="):
            words = ["--time", words[0].removeprefix("--time=")]
        if len(words) != 2 or words[0] != "--time":
            raise TaskListError(
                f"{self._path}: line {number}: #TASKFARMER is reserved, but for `#TASKFARMER --time TIME`: "
                "write the comment differently, or use the version that the list was made for"
            )
        if words[1].lower() == "none":
            return 0.0
        try:
            return seconds(words[1])
        except ValueError as error:
            raise TaskListError(f"{self._path}: line {number}: --time: {error}") from error


def open_source(path: str) -> BinaryIO:
    """Open a task list for reading. TaskListError, in words, for what is no readable file."""
    try:
        # Looked at before it is opened: to open a device can do something, and a FIFO would wait for its writer.
        _refuse_other_kinds(path, os.stat(path))
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except (OSError, ValueError) as error:
        gone = not isinstance(error, OSError) or error.errno in (errno.ENOENT, errno.ENOTDIR)
        raise (TaskListError if gone else ListUnavailable)(_cannot_open(path, error)) from error
    stream = os.fdopen(descriptor, "rb")
    try:
        _refuse_other_kinds(path, os.fstat(descriptor))
    except TaskListError:
        stream.close()
        raise
    return stream


def demand_source(path: str) -> None:
    """Raise TaskListError, in words, if nothing is there that a handler could read."""
    try:
        os.stat(path)
    except (OSError, ValueError) as error:
        raise TaskListError(_cannot_open(path, error)) from error


def line_of_task(path: str, k: int) -> int:
    """Return the number, from 1, of the line that holds the k-th task (from 0) of the list. IndexError beyond its end.

    Reads the list again: a line number is wanted for a message at most, and is not worth keeping for every task.
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
    raise IndexError(f"{path} holds fewer tasks")


def _line_in(block: bytes, k: int) -> int:
    numbers = [number for number, line in enumerate(block.split(b"\n"), 1) if _task(line)]
    return numbers[k]


def _task(line: bytes) -> bytes:
    """Return the task on a line, without its LF, or nothing if there is none."""
    if line.startswith(b"#"):
        return b""
    begun = line.removesuffix(b"\r").lstrip(_BLANKS)
    task = begun.rstrip(_BLANKS)
    # A backslash protects the blank behind it, and would do something else to what followed instead.
    return begun if task.endswith(b"\\") else task


def _refuse_other_kinds(path: str, status: os.stat_result) -> None:
    if stat.S_ISDIR(status.st_mode):
        raise TaskListError(f"{path}: is a directory, not a task list: name the text file with the commands")
    if not stat.S_ISREG(status.st_mode):
        raise TaskListError(
            f"{path}: is a pipe or a device, and a task list is read more than once: write the commands into a file"
        )


def _cannot_open(path: str, error: OSError | ValueError) -> str:
    number = error.errno if isinstance(error, OSError) else None
    if number in (errno.ENOENT, errno.ENOTDIR):
        return f"{path}: there is no such task list: check the path"
    if number == errno.EACCES:
        return f"{path}: this task list may not be read by you: ask its owner, or `chmod u+r` it"
    advice = "check the path and the file system"
    if isinstance(error, OSError):
        return f"{path}: this task list cannot be opened: {error.strerror}: {remedy(error, advice)}"
    return f"{path}: this task list cannot be opened: {error}: {advice}"
