"""The task list and its farm: making a farm out of a list, and finding out how a list has changed.

A list is known by content. What the farm took in is the beginning of the file, by size and SHA-256;
where that differs, the tasks themselves are compared, so that a comment may change and a task may not.
What follows is a list that grew. Handlers other than the default one run here, and only here.
"""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any, BinaryIO

from taskfarmer import durable
from taskfarmer.errors import FarmError, TaskFarmerError, TaskListError, UsageError
from taskfarmer.ledger import farmfile, making
from taskfarmer.ledger.farmfile import Farm
from taskfarmer.ledger.ledger import Ledger
from taskfarmer.ledger.segments import SegmentReader, SegmentWriter, discard
from taskfarmer.ledger.state import Segment, State
from taskfarmer.locks import FarmLock, scratch_folder
from taskfarmer.model import parse_intervals, parse_task
from taskfarmer.settings import Reporter, Settings
from taskfarmer.tasks.source import SourceReader, line_of_task, open_source
from taskfarmer.views import views
from taskfarmer.workdir import Workdir

LEASE = 600.0
EPOCH_LENGTH = 256
IMPORT_PATIENCE = 120.0


@dataclass(frozen=True)
class Handler:
    """A task list handler that is not the default one: its name, class, options, and whether it reads lines."""

    name: str
    kind: type
    options: dict[str, str]
    by_line: bool

    def commands(self, path: str, workdir: str, first: int) -> Iterator[list[bytes]]:
        """The commands from task `first` on, in batches; TaskListError for whatever the handler raises."""
        try:
            tasks: Any = self.kind(path, workdir, **self.options)
            count = len(tasks)
            for start in range(first, count, 4096):
                yield [self._command(tasks[number]) for number in range(start, min(start + 4096, count))]
        except TaskFarmerError:
            raise
        except Exception as error:
            raise TaskListError(
                f"{path}: task list handler '{self.name}' ({self.kind.__module__}.{self.kind.__qualname__}) failed: "
                f"{type(error).__name__}: {error}; mend the handler or its options and start again"
            ) from error

    def _command(self, command: object) -> bytes:
        if isinstance(command, bytes):
            return command
        if not isinstance(command, str):
            raise TypeError(f"a task must be a str, not {type(command).__name__}")
        return os.fsencode(command)


def find_handler(settings: Settings, reporter: Reporter) -> Handler | None:
    """The handler that the user asked for; None for the default one, for which no configuration is read."""
    if settings.handler == "default":
        return None
    from taskfarmer.config import Configuration
    from taskfarmer.tasks.listfile import ListTaskList

    found = Configuration.search(settings.config, beside=os.path.dirname(os.path.abspath(settings.tasklist)))
    for warning in found.warnings:
        reporter.warning(warning)
    kind, options = found.tasklist_class(settings.handler)
    return Handler(settings.handler, kind, options, issubclass(kind, ListTaskList))


class Intake:
    """A task list on its way into a farm."""

    def __init__(self, settings: Settings, reporter: Reporter) -> None:
        self.settings = settings
        self.reporter = reporter
        self.path = settings.tasklist
        self.workdir = Workdir.at(settings.workdir_path, settings.logs_dir)
        self.handler = find_handler(settings, reporter)
        self._seen: tuple[int, int] | None = None

    # --- a farm to work on ---------------------------------------------------------------------

    def open(self) -> Farm:
        """The farm of this list: the one in the work directory, or a new one. Exactly one farmer makes it."""
        self._check_readable()
        farm = self._existing()
        if farm is None:
            self._scan()
            farm = self._make_exclusively()
        logs = self.settings.logs_dir and os.path.abspath(self.settings.logs_dir)
        if logs and farm.logs != logs:
            self.reporter.warning(f"--logs-dir: this farm keeps its logs in {farm.logs or self.workdir.logs}")
        self.workdir = replace(self.workdir, logs_dir=farm.logs)
        return farm

    def _check_readable(self) -> None:
        if self.handler is None or self.handler.by_line:
            open_source(self.path).close()
        elif not os.path.exists(self.path):
            raise TaskListError(f"{self.path}: there is no such task list: check the path")

    def _existing(self) -> Farm | None:
        if os.path.lexists(self.workdir.path) and not os.path.isdir(self.workdir.path):
            raise UsageError(f"{self.workdir.path}: not a directory, so no farm can be in it; name another with -w DIR")
        farm = farmfile.load(self.workdir)
        if farm is not None and farm.handler != self.settings.handler:
            raise TaskListError(
                f"{self.workdir.path}: this farm was made with -t {farm.handler}, not -t {self.settings.handler}; use "
                "the same handler, or another work directory with -w DIR"
            )
        return farm

    def _scan(self) -> None:
        """Read the whole list once before anything is made, so that a bad list leaves nothing behind."""
        if self.handler is None or self.handler.by_line:
            with open_source(self.path) as stream:
                for _ in SourceReader(stream, self.path):
                    pass

    def _make_exclusively(self) -> Farm:
        """Make the farm under a lock, or wait until another farmer has."""
        farmfile.refuse_foreign(self.workdir)
        locks = self._lock_folder()
        fresh = self._make_folders()
        mark = hashlib.sha256(os.fsencode(os.path.realpath(self.workdir.path))).hexdigest()[:16]
        lock = FarmLock(os.path.join(locks, f"import-{mark}.lock") if locks else self.workdir.lock)
        end = time.monotonic() + IMPORT_PATIENCE
        while True:
            with lock.held(patience=0.5) as got:
                farm = self._existing()
                if farm is not None:
                    return farm
                if got or lock.unusable or time.monotonic() > end:
                    try:
                        return self._make(locks)
                    except UsageError:
                        self._unmake(fresh)
                        raise

    def _lock_folder(self) -> str | None:
        """Where the farm's lock is to be; None for the work directory itself."""
        asked = self.settings.lock_dir
        if asked is not None:
            folder = scratch_folder(asked, os.getuid()) if os.path.isdir(asked) else None
            if folder is None:
                raise UsageError(
                    f"--lock-dir {asked}: not a directory in which a private folder can be made; name another"
                )
            return folder
        scratch = os.environ.get("SCRATCH")
        folder = scratch_folder(scratch, os.getuid())
        if scratch and folder is None:
            self.reporter.warning(
                f"SCRATCH={scratch}: no private folder for locks can be made there; the lock is in the work directory"
            )
        return folder

    def _make_folders(self) -> list[str]:
        """Make the farm's directories; those that were not there before, the deepest first."""
        candidates = [self.workdir.path, *self.workdir.folders]
        missing = [path for path in candidates if not os.path.isdir(path)]
        try:
            making.make_folders(self.workdir)
        except FarmError as error:
            self._unmake(missing[::-1])
            raise UsageError(str(error)) from error
        return missing[::-1]

    def _unmake(self, folders: Iterable[str]) -> None:
        """Take away directories that we made, as far as nobody else uses them."""
        durable.forget(self.workdir.lock)
        for path in folders:
            try:
                os.rmdir(path)
            except OSError:
                pass

    def _make(self, locks: str | None) -> Farm:
        settings = self.settings
        name = durable.random_name(16)
        farm = Farm(
            farm=name,
            list_path=os.path.abspath(self.path),
            handler=settings.handler,
            handler_options=self.handler.options if self.handler else {},
            lock=os.path.join(locks, f"{name}.lock") if locks else None,
            lease=settings.lease or LEASE,
            epoch_length=settings.epoch_length or EPOCH_LENGTH,
            made=time.time(),
            logs=self.workdir.logs_dir,
        )
        segment = self._segment(None, whole_lines_only=False)
        assert segment is not None
        made = making.make(self.workdir, farm, segment)
        if made:
            ledger = Ledger(self.workdir, farm, "import")
            state = ledger.look()
            # without the farm's lock, which may be the one that we hold: where a farmer that is faster shows its
            # results meanwhile, the views do not add up and are made anew at its end
            views.begin(self.workdir, state)
            ledger.commits.hint(state.epoch, state.revision)
            return farm
        found = self._existing()
        assert found is not None
        return found

    # --- segments ------------------------------------------------------------------------------

    def _segment(self, state: State | None, whole_lines_only: bool, skip: int | None = None) -> Segment | None:
        """Write what the list has beyond `state` as a segment; None where that is nothing.

        `skip` is the number of tasks to pass over where the bytes before them have changed.
        """
        last = state.segments[-1] if state is not None else None
        first = state.tasks if state is not None else 0
        writer = SegmentWriter(self.workdir, first)
        try:
            if self.handler is not None and not self.handler.by_line:
                self._add(writer, first)
                source_bytes, sha, open_end = _whole_digest(self.path)
            else:
                reader = self._add_lines(writer, last, skip, whole_lines_only)
                source_bytes, sha, open_end = reader.consumed, reader.sha.hexdigest(), reader.open_end
            if state is not None and not writer.tasks:
                writer.discard()
                return None
            name = writer.close()
        except OSError as error:
            writer.discard()
            raise UsageError(
                f"{error.filename or self.workdir.tasks}: {error.strerror}; the task list was not taken in, nothing "
                "was changed: make room, or name another work directory with -w DIR"
            ) from error
        except BaseException:
            writer.discard()
            raise
        return Segment(name, first, writer.tasks, 0, source_bytes, sha, open_end)

    def _add_lines(
        self, writer: SegmentWriter, last: Segment | None, skip: int | None, whole_lines_only: bool
    ) -> SourceReader:
        with open_source(self.path) as stream:
            offset = 0 if last is None or skip is not None else last.source_bytes
            sha = _digest(stream, offset)
            reader = SourceReader(stream, self.path, offset=offset, sha=sha, whole_lines_only=whole_lines_only)
            if self.handler is not None:
                lines = [task for batch in reader for task in batch]
                if lines[skip or 0 :]:
                    self._add(writer, writer.first_id)
                source = b"".join(line + b"\n" for line in lines[skip or 0 :])
                durable.prepare(self.workdir.segment_source(writer.name), source)
            else:
                left = skip or 0
                for batch in reader:
                    writer.add(batch[left:] if left else batch)
                    left = max(0, left - len(batch))
        return reader

    def _add(self, writer: SegmentWriter, first: int) -> None:
        assert self.handler is not None
        for batch in self.handler.commands(self.path, self.workdir.path, first):
            writer.add(batch)

    # --- a list that changed -------------------------------------------------------------------

    def check(self, ledger: Ledger, running: bool = False) -> int:
        """Compare the list with the farm and take in what is new at its end; the number of new tasks.

        TaskListError names the first line that differs. A farmer that is `running` leaves a last line
        without newline until it is whole.
        """
        if running and not self._touched():
            return 0
        state = ledger.look()
        if self.handler is not None and not self.handler.by_line:
            self._compare_whole(state, ledger.farm)
            return 0
        skip = self._compare(state, ledger.farm)
        segment = self._segment(state, running or bool(state.farmers), skip)
        if segment is None:
            return 0
        if not ledger.grow(segment):
            discard(self.workdir, segment.file)
            return 0
        return segment.tasks

    def _touched(self) -> bool:
        """Whether size or time of the list changed since we looked last."""
        try:
            found = os.stat(self.path)
        except OSError:
            return False
        now = (found.st_size, found.st_mtime_ns)
        before, self._seen = self._seen, now
        return before is not None and before != now

    def watch(self) -> None:
        """Remember how the list looks now, for later looks by size and time."""
        self._touched()

    def _compare(self, state: State, farm: Farm) -> int | None:
        """None where the list begins with exactly what was taken in; else how many tasks to pass over."""
        last = state.segments[-1]
        with open_source(self.path) as stream:
            size = os.fstat(stream.fileno()).st_size
            if size >= last.source_bytes and _digest(stream, last.source_bytes).hexdigest() == last.source_sha256:
                following = stream.read(2)
                if not last.open_end or following[:1] in (b"", b"\n") or following == b"\r\n":
                    return None
            return self._compare_tasks(stream, state, farm)

    def _compare_tasks(self, stream: BinaryIO, state: State, farm: Farm) -> int:
        """Task by task: how many agree, which must be all that were taken in."""
        stream.seek(0)
        listed = (task for batch in SourceReader(stream, self.path) for task in batch)
        count = 0
        for taken in _taken(self.workdir, state, farm):
            now = next(listed, None)
            if now != taken:
                self._refuse(farm, count, taken, now)
            count += 1
        return count

    def _refuse(self, farm: Farm, task: int, taken: bytes, now: bytes | None) -> None:
        was = _short(taken)
        if now is None:
            what = f"the list ends before task {task}, which was {was}"
        else:
            what = f"line {line_of_task(self.path, task)} (task {task}) is {_short(now)}, and was {was}"
        if os.path.realpath(self.path) != os.path.realpath(farm.list_path):
            raise TaskListError(
                f"{self.workdir.path}: belongs to another task list, {farm.list_path}: {what}; give {self.path} a work "
                "directory of its own with -w DIR"
            )
        raise TaskListError(
            f"{self.path}: changed since it was taken in: {what}; tasks may only be added at the end: undo the change, "
            "or run the new list in another work directory with -w DIR"
        )

    def _compare_whole(self, state: State, farm: Farm) -> None:
        if _whole_digest(self.path)[1] != state.segments[-1].source_sha256:
            raise TaskListError(
                f"{self.path}: changed since handler '{farm.handler}' made a farm of it; use another work directory "
                "with -w DIR"
            )


def _short(task: bytes) -> str:
    text = task.decode("utf-8", "replace")
    return repr(text if len(text) <= 60 else text[:57] + "...")


def _digest(stream: BinaryIO, size: int) -> Any:
    """SHA-256 over the first `size` bytes; the stream stands behind them."""
    sha = hashlib.sha256()
    stream.seek(0)
    while size:
        data = stream.read(min(size, 1 << 20))
        if not data:
            break
        sha.update(data)
        size -= len(data)
    return sha


def _whole_digest(path: str) -> tuple[int, str, bool]:
    if not os.path.isfile(path):
        return 0, "", False
    with open(path, "rb") as stream:
        size = os.fstat(stream.fileno()).st_size
        return size, _digest(stream, size).hexdigest(), False


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
        yield from durable.read(workdir.segment_source(segment.file)).split(b"\n")[:-1]


def preview(settings: Settings, reporter: Reporter) -> Iterator[tuple[int, bytes]]:
    """ID and command of each task that a farmer would find unprocessed. Touches nothing."""
    intake = Intake(settings, reporter)
    intake._check_readable()
    farm = intake._existing()
    if farm is not None:
        yield from _unprocessed(intake, farm)
        return
    farmfile.refuse_foreign(intake.workdir)
    batches: Iterable[list[bytes]]
    if intake.handler is not None:
        batches = intake.handler.commands(intake.path, intake.workdir.path, 0)
        yield from enumerate(command for batch in batches for command in batch)
        return
    with open_source(intake.path) as stream:
        yield from enumerate(task for batch in SourceReader(stream, intake.path) for task in batch)


def _unprocessed(intake: Intake, farm: Farm) -> Iterator[tuple[int, bytes]]:
    state = Ledger(intake.workdir, farm, "preview").look()
    reader = SegmentReader(intake.workdir)
    try:
        for one in parse_intervals(state.returned):
            yield from map(parse_task, reader.lines(state.segments[one.segment], one.start, one.count))
        for segment in state.segments:
            yield from reader.tasks(segment, segment.next, segment.tasks - segment.next)
        skip = intake._compare(state, farm) if intake.handler is None else None
        if intake.handler is None:
            yield from _grown(intake, state, skip)
    finally:
        reader.close()


def _grown(intake: Intake, state: State, skip: int | None) -> Iterator[tuple[int, bytes]]:
    """What the list has more than the farm has taken in."""
    with open_source(intake.path) as stream:
        offset = 0 if skip is not None else state.segments[-1].source_bytes
        tasks = (task for batch in SourceReader(stream, intake.path, offset=offset) for task in batch)
        for number, task in enumerate(tasks):
            if number >= (skip or 0):
                yield state.tasks + number - (skip or 0), task
