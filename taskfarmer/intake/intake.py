"""Creates a farm from a task list, and imports lines that were added to the list later.

The farm records the size and SHA-256 of the imported part of the list. If they differ, the tasks themselves are
compared, so that comments may change and tasks may not. Lines after that part are new. Task list handlers run here and
nowhere else.
"""

from __future__ import annotations

import hashlib
import os
import random
import time
from collections.abc import Callable, Iterable

from taskfarmer.errors import FarmError, ListUnavailable, Stopped, TaskListError, UsageError
from taskfarmer.farm import create, groups, trust
from taskfarmer.intake.comparison import PATIENCE, compare, compare_whole
from taskfarmer.intake.handler import find_handler
from taskfarmer.intake.importer import Importer
from taskfarmer.ledger import farmfile
from taskfarmer.ledger.farmfile import Farm
from taskfarmer.ledger.ledger import Ledger
from taskfarmer.ledger.segments import discard
from taskfarmer.ledger.state import State
from taskfarmer.options import Reporter, Settings
from taskfarmer.storage import durable
from taskfarmer.storage.layout import Workdir
from taskfarmer.storage.locks import FarmLock, scratch_folder
from taskfarmer.tasks.source import SourceReader, open_source, require_source
from taskfarmer.views import views

LEASE = 600.0
EPOCH_LENGTH = 256
IMPORT_PATIENCE = 120.0
LONGEST_IMPORT_PAUSE = 2.0


class Intake:
    """Imports one task list. `between` is called between file operations, and may raise Stopped."""

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
        self.workdir = Workdir.at(settings.workdir_path, settings.logs_dir)._replace(shared=settings.shared_group)
        self.handler = find_handler(settings, reporter)
        self.created: State | None = None
        """The first state of the farm, if this farmer created it."""
        self.importer = Importer(self.path, self.handler, between)
        self.last_line = self.importer.last_line
        self._seen: tuple[int, int] | None = None
        """Size and modification time of the list when it was last imported or refused; None if it was missing."""
        self._recheck = False
        self._lock_existed = False

    # --- open or create -----------------------------------------------------------------------

    def open(self) -> Farm:
        """Open the farm in the work directory, or create it. Exactly one farmer creates it."""
        self.check_readable()
        trust.refuse_strangers(self.workdir, self.path)
        for warning in trust.list_warnings(self.path):
            self.reporter.warning(warning)
        self.between()
        farm = self.existing_farm()
        if farm is None:
            self._scan()
            farm = self._create_exclusively()
        self.between()
        logs = self.settings.logs_dir and os.path.abspath(self.settings.logs_dir)
        if logs and farm.logs != logs:
            self.reporter.warning(f"--logs-dir: this farm keeps its logs in {farm.logs or self.workdir.logs}")
        if farm.logs != logs:
            self.workdir = self.workdir._replace(logs_dir=farm.logs)
            trust.refuse_strangers(self.workdir, self.path)
        self._apply_sharing(farm)
        return farm

    def _apply_sharing(self, farm: Farm) -> None:
        """Use the group sharing that the farm was created with; warn if --shared-group differs."""
        if self.workdir.shared and not farm.shared_group:
            self.reporter.warning(
                "--shared-group: this farm was created without it, and other users may be unable to join; name another "
                "work directory with -w DIR for a shared farm"
            )
        self.workdir = self.workdir._replace(shared=farm.shared_group)
        if farm.shared_group:
            groups.refuse_outsiders(self.workdir)

    def check_readable(self) -> None:
        if self.handler is None or self.handler.by_line:
            open_source(self.path).close()
        else:
            require_source(self.path)

    def existing_farm(self) -> Farm | None:
        if os.path.lexists(self.workdir.path) and not os.path.isdir(self.workdir.path):
            raise UsageError(f"{self.workdir.path}: not a directory, so not a farm; name another with -w DIR")
        farm = farmfile.load(self.workdir)
        if farm is not None and farm.handler != self.settings.handler:
            raise TaskListError(
                f"{self.workdir.path}: this farm was created with -t {farm.handler}, not -t {self.settings.handler}; "
                "use the same handler, or another work directory with -w DIR"
            )
        return farm

    def _scan(self) -> None:
        """Read the whole list before creating anything, so that an invalid list leaves no files."""
        if self.handler is None or self.handler.by_line:
            with open_source(self.path) as stream:
                reader = SourceReader(stream, self.path, whole_lines_only=True)
                for _ in reader:
                    self.between()
                reader.refuse_binary_rest()

    def _create_exclusively(self) -> Farm:
        """Create the farm under a lock, or wait until another farmer has created it."""
        farmfile.refuse_foreign(self.workdir)
        locks = self._lock_directory()
        created = self._create_directories()
        mark = hashlib.sha256(os.fsencode(os.path.realpath(self.workdir.path))).hexdigest()[:16]
        path = os.path.join(locks, f"import-{mark}.lock") if locks else self.workdir.lock
        lock = FarmLock(path, private=locks is not None, shared=self.workdir.shared)
        end = time.monotonic() + IMPORT_PATIENCE
        pause = 0.1
        try:
            while True:
                self.between()
                with lock.held(patience=0.0) as got:
                    self.between()
                    farm = self.existing_farm()
                    if farm is not None:
                        return farm
                    if got or lock.unusable or time.monotonic() > end:
                        self.between()
                        try:
                            return self._create(locks)
                        except UsageError:
                            self._remove_directories(created)
                            raise
                if self.stopped():
                    raise Stopped(
                        f"{self.path}: stopped by a signal while another farmer imports the list; start again"
                    )
                time.sleep(pause * random.uniform(0.7, 1.3))
                pause = min(LONGEST_IMPORT_PAUSE, pause * 1.5)
        finally:
            lock.close()

    def _lock_directory(self) -> str | None:
        """The directory for the farm's lock; None for the work directory."""
        asked = self.settings.lock_dir
        if asked is not None:
            folder = scratch_folder(asked, os.getuid()) if os.path.isdir(asked) else None
            if folder is None:
                raise UsageError(f"--lock-dir {asked}: cannot create a private directory there; name another directory")
            return folder
        if self.workdir.shared:
            return None  # the rest of the group could not use a private directory
        scratch = os.environ.get("SCRATCH")
        folder = scratch_folder(scratch, os.getuid())
        if scratch and folder is None:
            self.reporter.warning(
                f"SCRATCH={scratch}: cannot create a private directory for locks there; using the work directory"
            )
        return folder

    def _create_directories(self) -> list[str]:
        """Create the farm's directories; return those that did not exist before, the deepest first."""
        self._lock_existed = os.path.lexists(self.workdir.lock)
        made: list[str] = []
        try:
            create.make_folders(self.workdir, made, self.between)
        except FarmError as error:
            self._remove_directories(made[::-1])
            raise UsageError(str(error)) from error
        return made[::-1]

    def _remove_directories(self, folders: Iterable[str]) -> None:
        """Remove the directories that we created, unless others use them."""
        if not self._lock_existed:
            durable.unlink_quietly(self.workdir.lock)
        for path in folders:
            try:
                os.rmdir(path)
            except OSError:
                pass

    def _create(self, locks: str | None) -> Farm:
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
        seen = self._stat()  # lines added during the import are found later, by `check`
        segment = self.importer.segment(self.workdir, None)
        assert segment is not None
        self._seen = seen
        self.between()
        state = self.created = create.make(self.workdir, farm, segment, self.between)
        if state is not None:
            # without the farm's lock, which we may already hold: if a faster farmer adds its results meanwhile, the
            # views do not add up, and that farmer rebuilds them when it exits
            self.between()
            try:
                views.create_views(self.workdir, state, self.between)
            except OSError as error:
                self.reporter.warning(f"{error.filename}: {error.strerror}; the views will be created later")
            Ledger(self.workdir, farm, "import").commits.write_hint(state.epoch, state.revision)
            self._report_sharing(locks)
            return farm
        found = self.existing_farm()
        assert found is not None
        return found

    def _report_sharing(self, locks: str | None) -> None:
        if not self.workdir.shared:
            return
        group = groups.group_of(self.workdir)
        self.reporter.info(f"members of group {group} may join; each runs commands that any other can write here")
        if locks is not None:
            self.reporter.warning(
                f"--lock-dir: the lock is in {locks}, which only you can access; other members of group {group} work "
                "without it, which is slower but safe"
            )

    # --- a list that changed -------------------------------------------------------------------

    def check(self, ledger: Ledger, running: bool = False) -> int:
        """Compare the list with the farm and import the new lines at its end; return the number of new tasks.

        Raise TaskListError with the first line that differs. After ListUnavailable, StorageError and other errors the
        next call retries.
        """
        found = self._stat()
        if running and not self._needs_check(found):
            return 0
        self._recheck = True
        try:
            grown = self._import_new(ledger, found, running)
        except ListUnavailable:
            raise
        except TaskListError:
            self._mark_checked(found)  # the list stays refused until it changes
            self.last_line.pending = False
            raise
        if grown is None:
            return 0
        self._mark_checked(found)
        return grown

    def _needs_check(self, found: tuple[int, int] | None) -> bool:
        if found is None:  # the list was removed during the run: the imported tasks remain
            self._mark_checked(None)
            self.last_line.pending = False
            return False
        due = self.last_line.pending and time.monotonic() >= self.last_line.due
        return due or self._recheck or found != self._seen

    def _mark_checked(self, found: tuple[int, int] | None) -> None:
        self._seen, self._recheck = found, False

    def _import_new(self, ledger: Ledger, found: tuple[int, int] | None, running: bool) -> int | None:
        """Return the number of new tasks; None if another farmer imported some of them first."""
        state = ledger.refresh()
        last = state.segments[-1]
        if self.handler is not None and not self.handler.by_line:
            if not self.importer.is_still_empty(state):
                compare_whole(self.path, state, ledger.farm)
                self.last_line.pending = False
                return 0
            skip = None
        else:
            skip = compare(self.path, self.workdir, state, ledger.farm, 0.0 if running else PATIENCE)
        if skip is None and found is not None and found[0] == last.source_bytes:
            self.last_line.pending = False
            return 0
        segment = self.importer.segment(self.workdir, state, skip or 0, changed=skip is not None)
        if segment is None:
            return 0
        if not ledger.grow(segment):
            discard(self.workdir, segment.file)
            return None
        return segment.tasks

    def _stat(self) -> tuple[int, int] | None:
        """Size and modification time (ns) of the list; None if it is missing."""
        try:
            found = os.stat(self.path)
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            raise ListUnavailable(
                f"{self.path}: {error.strerror}; the list is not accessible: start again when the file system works"
            ) from error
        return found.st_size, found.st_mtime_ns

    @property
    def incomplete(self) -> bool:
        """Whether the list may have tasks that are not imported yet, and that a later `check` may import."""
        return self.last_line.pending or self._recheck
