"""The task list and its farm: making a farm out of a list, and finding out how a list has changed.

A list is known by content. What the farm took in is the beginning of the file, by size and SHA-256;
where that differs, the tasks themselves are compared, so that a comment may change and a task may not.
What follows is a list that grew. Handlers other than the default one run here, and only here.
"""

from __future__ import annotations

import hashlib
import os
import random
import time
from collections.abc import Callable, Iterable

from taskfarmer import durable
from taskfarmer.errors import FarmError, Stopped, TaskListError, UsageError
from taskfarmer.intake.comparison import PATIENCE, compare, compare_whole, digest, whole_digest
from taskfarmer.intake.handler import find_handler
from taskfarmer.ledger import farmfile, making, sharing, trust
from taskfarmer.ledger.farmfile import Farm
from taskfarmer.ledger.ledger import Ledger
from taskfarmer.ledger.segments import SegmentWriter, discard
from taskfarmer.ledger.state import Segment, State
from taskfarmer.locks import FarmLock, scratch_folder
from taskfarmer.plain import replace
from taskfarmer.settings import Reporter, Settings
from taskfarmer.tasks.source import SourceReader, open_source
from taskfarmer.views import views
from taskfarmer.workdir import Workdir

LEASE = 600.0
_LOOK_AGAIN = (-1, 0)
EPOCH_LENGTH = 256
IMPORT_PATIENCE = 120.0
LONGEST_IMPORT_PAUSE = 2.0


class Intake:
    """A task list on its way into a farm. `between` is called between file operations, and may raise Stopped."""

    def __init__(
        self,
        settings: Settings,
        reporter: Reporter,
        stopped: Callable[[], bool] = lambda: False,
        between: Callable[[], None] = lambda: None,
    ) -> None:
        self.settings = settings
        self.reporter = reporter
        self.stopped = stopped
        self.between = between
        self.path = settings.tasklist
        self.workdir = replace(Workdir.at(settings.workdir_path, settings.logs_dir), shared=settings.shared_group)
        self.handler = find_handler(settings, reporter)
        self.made: State | None = None
        """The first state of the farm, where it was us who made it of the list as it is."""
        self._seen: tuple[int, int] | None = None
        self._lock_stood = False

    # --- a farm to work on ---------------------------------------------------------------------

    def open(self) -> Farm:
        """The farm of this list: the one in the work directory, or a new one. Exactly one farmer makes it."""
        self.check_readable()
        trust.refuse_strangers(self.workdir, self.path)
        for doubt in trust.doubts_of_list(self.path):
            self.reporter.warning(doubt)
        self.between()
        farm = self.existing()
        if farm is None:
            self._scan()
            farm = self._make_exclusively()
        self.between()
        logs = self.settings.logs_dir and os.path.abspath(self.settings.logs_dir)
        if logs and farm.logs != logs:
            self.reporter.warning(f"--logs-dir: this farm keeps its logs in {farm.logs or self.workdir.logs}")
        if farm.logs != logs:
            self.workdir = replace(self.workdir, logs_dir=farm.logs)
            trust.refuse_strangers(self.workdir, self.path)
        self._share(farm)
        return farm

    def _share(self, farm: Farm) -> None:
        """Act by what the farm says of its group, whatever was asked for."""
        if self.workdir.shared and not farm.shared_group:
            self.reporter.warning(
                "--shared-group: this farm was made without it, and other users may be unable to join; name another "
                "work directory with -w DIR for one that is shared"
            )
        self.workdir = replace(self.workdir, shared=farm.shared_group)
        if farm.shared_group:
            sharing.refuse_outsiders(self.workdir)

    def check_readable(self) -> None:
        if self.handler is None or self.handler.by_line:
            open_source(self.path).close()
        elif not os.path.exists(self.path):
            raise TaskListError(f"{self.path}: there is no such task list: check the path")

    def existing(self) -> Farm | None:
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
                    self.between()

    def _make_exclusively(self) -> Farm:
        """Make the farm under a lock, or wait until another farmer has."""
        farmfile.refuse_foreign(self.workdir)
        locks = self._lock_folder()
        fresh = self._make_folders()
        mark = hashlib.sha256(os.fsencode(os.path.realpath(self.workdir.path))).hexdigest()[:16]
        path = os.path.join(locks, f"import-{mark}.lock") if locks else self.workdir.lock
        lock = FarmLock(path, private=locks is not None, shared=self.workdir.shared)
        end = time.monotonic() + IMPORT_PATIENCE
        pause = 0.1
        while True:
            self.between()
            with lock.held(patience=0.0) as got:
                self.between()
                farm = self.existing()
                if farm is not None:
                    return farm
                if got or lock.unusable or time.monotonic() > end:
                    self.between()
                    try:
                        return self._make(locks)
                    except UsageError:
                        self._unmake(fresh)
                        raise
            if self.stopped():
                raise Stopped(f"{self.path}: stopped by a signal while another farmer takes the list in; start again")
            time.sleep(pause * random.uniform(0.7, 1.3))
            pause = min(LONGEST_IMPORT_PAUSE, pause * 1.5)

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
        if self.workdir.shared:
            return None  # a private folder would keep the others out
        scratch = os.environ.get("SCRATCH")
        folder = scratch_folder(scratch, os.getuid())
        if scratch and folder is None:
            self.reporter.warning(
                f"SCRATCH={scratch}: no private folder for locks can be made there; the lock is in the work directory"
            )
        return folder

    def _make_folders(self) -> list[str]:
        """Make the farm's directories; those that were not there before, the deepest first."""
        self._lock_stood = os.path.lexists(self.workdir.lock)
        made: list[str] = []
        try:
            making.make_folders(self.workdir, made, self.between)
        except FarmError as error:
            self._unmake(made[::-1])
            raise UsageError(str(error)) from error
        return made[::-1]

    def _unmake(self, folders: Iterable[str]) -> None:
        """Take away directories that we made, as far as nobody else uses them."""
        if not self._lock_stood:
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
            shared_group=self.workdir.shared,
        )
        self.watch()  # what comes to the list while it is taken in is seen later, when little is left of it
        segment = self._segment(None, whole_lines_only=False)
        assert segment is not None
        self.between()
        state = self.made = making.make(self.workdir, farm, segment, self.between)
        if state is not None:
            # without the farm's lock, which may be the one that we hold: where a farmer that is faster shows its
            # results meanwhile, the views do not add up and are made anew at its end
            self.between()
            try:
                views.begin(self.workdir, state, self.between)
            except OSError as error:
                self.reporter.warning(f"{error.filename}: {error.strerror}; the views are made later")
            Ledger(self.workdir, farm, "import").commits.hint(state.epoch, state.revision)
            self._say_who_may_join(locks)
            return farm
        found = self.existing()
        assert found is not None
        return found

    def _say_who_may_join(self, locks: str | None) -> None:
        if not self.workdir.shared:
            return
        group = sharing.group_of(self.workdir)
        self.reporter.info(f"members of group {group} may join: all that they can write here is run by each of them")
        if locks is not None:
            self.reporter.warning(
                f"--lock-dir: the lock is in {locks}, which is yours alone; others of group {group} work without it, "
                "which takes time and loses nothing"
            )

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
                (source_bytes, sha), open_end, seconds = whole_digest(self.path), False, 0.0
            else:
                reader = self._add_lines(writer, last, skip, whole_lines_only)
                source_bytes, sha, open_end = reader.consumed, reader.sha.hexdigest(), reader.open_end
                seconds = reader.seconds
            if state is not None and not writer.tasks:
                writer.discard()
                return None
            name = writer.close()
        except OSError as error:
            writer.discard()
            raise UsageError(
                f"{error.filename or self.workdir.tasks}: {durable.reason(error)}; the task list was not taken in, "
                "nothing was changed: make room, or name another work directory with -w DIR"
            ) from error
        except BaseException:
            writer.discard()
            raise
        return Segment(name, first, writer.tasks, 0, source_bytes, sha, open_end, writer.timed, seconds)

    def _add_lines(
        self, writer: SegmentWriter, last: Segment | None, skip: int | None, whole_lines_only: bool
    ) -> SourceReader:
        with open_source(self.path) as stream:
            offset = 0 if last is None or skip is not None else last.source_bytes
            sha, before = digest(stream, offset)
            reader = SourceReader(
                stream,
                self.path,
                offset=offset,
                sha=sha,
                first_line=before + 1,
                whole_lines_only=whole_lines_only,
                seconds=last.time if last is not None and skip is None else 0.0,
            )
            if self.handler is not None:
                lines = [task for batch in reader for task in batch]
                if lines[skip or 0 :]:
                    self._add(writer, writer.first_id)
                source = b"".join(line + b"\n" for line in lines[skip or 0 :])
                durable.prepare(self.workdir.segment_source(writer.name), source, self.workdir.shared)
            else:
                left = skip or 0
                for batch in reader:
                    self.between()
                    writer.add(batch[left:] if left else batch)
                    left = max(0, left - len(batch))
        return reader

    def _add(self, writer: SegmentWriter, first: int) -> None:
        assert self.handler is not None
        for batch in self.handler.commands(self.path, self.workdir.path, first):
            self.between()
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
            compare_whole(self.path, state, ledger.farm)
            return 0
        skip = compare(self.path, self.workdir, state, ledger.farm, 0.0 if running else PATIENCE)
        if skip is None and self._size() == state.segments[-1].source_bytes:
            return 0
        segment = self._segment(state, running or bool(state.farmers), skip)
        if segment is None:
            return 0
        if not ledger.grow(segment):
            discard(self.workdir, segment.file)
            self._seen = _LOOK_AGAIN
            return 0
        return segment.tasks

    def _size(self) -> int | None:
        try:
            return os.stat(self.path).st_size
        except OSError:
            return None

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
