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
from taskfarmer.tasks.source import SourceReader, demand_source, open_source
from taskfarmer.views import views

LEASE = 600.0
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
        self.workdir = Workdir.at(settings.workdir_path, settings.logs_dir)._replace(shared=settings.shared_group)
        self.handler = find_handler(settings, reporter)
        self.made: State | None = None
        """The first state of the farm, where it was us who made it of the list as it is."""
        self.importer = Importer(self.path, self.handler, between)
        self.last_line = self.importer.last_line
        self._seen: tuple[int, int] | None = None
        """Size and time of the list when it was last taken in, or refused; None if it was gone."""
        self._look_again = False
        self._lock_stood = False

    # --- a farm to work on ---------------------------------------------------------------------

    def open(self) -> Farm:
        """The farm of this list: the one in the work directory, or a new one. Exactly one farmer makes it."""
        self.check_readable()
        trust.refuse_strangers(self.workdir, self.path)
        for doubt in trust.list_warnings(self.path):
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
            self.workdir = self.workdir._replace(logs_dir=farm.logs)
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
        self.workdir = self.workdir._replace(shared=farm.shared_group)
        if farm.shared_group:
            groups.refuse_outsiders(self.workdir)

    def check_readable(self) -> None:
        if self.handler is None or self.handler.by_line:
            open_source(self.path).close()
        else:
            demand_source(self.path)

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
                reader = SourceReader(stream, self.path, whole_lines_only=True)
                for _ in reader:
                    self.between()
                reader.refuse_binary_rest()

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
        try:
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
                    raise Stopped(
                        f"{self.path}: stopped by a signal while another farmer takes the list in; start again"
                    )
                time.sleep(pause * random.uniform(0.7, 1.3))
                pause = min(LONGEST_IMPORT_PAUSE, pause * 1.5)
        finally:
            lock.close()

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
            create.make_folders(self.workdir, made, self.between)
        except FarmError as error:
            self._unmake(made[::-1])
            raise UsageError(str(error)) from error
        return made[::-1]

    def _unmake(self, folders: Iterable[str]) -> None:
        """Take away directories that we made, as far as nobody else uses them."""
        if not self._lock_stood:
            durable.unlink_quietly(self.workdir.lock)
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
        seen = self._look()  # lines added while the list is taken in are seen later, when little is left of it
        segment = self.importer.segment(self.workdir, None)
        assert segment is not None
        self._seen = seen
        self.between()
        state = self.made = create.make(self.workdir, farm, segment, self.between)
        if state is not None:
            # without the farm's lock, which may be the one that we hold: where a farmer that is faster shows its
            # results meanwhile, the views do not add up and are made anew at its end
            self.between()
            try:
                views.begin(self.workdir, state, self.between)
            except OSError as error:
                self.reporter.warning(f"{error.filename}: {error.strerror}; the views are made later")
            Ledger(self.workdir, farm, "import").commits.write_hint(state.epoch, state.revision)
            self._say_who_may_join(locks)
            return farm
        found = self.existing()
        assert found is not None
        return found

    def _say_who_may_join(self, locks: str | None) -> None:
        if not self.workdir.shared:
            return
        group = groups.group_of(self.workdir)
        self.reporter.info(f"members of group {group} may join: all that they can write here is run by each of them")
        if locks is not None:
            self.reporter.warning(
                f"--lock-dir: the lock is in {locks}, which is yours alone; others of group {group} work without it, "
                "which takes time and loses nothing"
            )

    # --- a list that changed -------------------------------------------------------------------

    def check(self, ledger: Ledger, running: bool = False) -> int:
        """Compare the list with the farm and take in what is new at its end; the number of new tasks.

        TaskListError names the first line that differs. ListUnavailable, StorageError and others: nothing is known,
        and the next call tries again.
        """
        found = self._look()
        if running and not self._needs_check(found):
            return 0
        self._look_again = True
        try:
            grown = self._take_in(ledger, found, running)
        except ListUnavailable:
            raise
        except TaskListError:
            self._settle(found)  # the list stays refused until it changes
            self.last_line.pending = False
            raise
        if grown is None:
            return 0
        self._settle(found)
        return grown

    def _needs_check(self, found: tuple[int, int] | None) -> bool:
        if found is None:  # the list was removed while it is run: what was taken in remains
            self._settle(None)
            self.last_line.pending = False
            return False
        due = self.last_line.pending and time.monotonic() >= self.last_line.due
        return due or self._look_again or found != self._seen

    def _settle(self, found: tuple[int, int] | None) -> None:
        self._seen, self._look_again = found, False

    def _take_in(self, ledger: Ledger, found: tuple[int, int] | None, running: bool) -> int | None:
        """The number of new tasks; None if another farmer was faster with some of them."""
        state = ledger.refresh()
        last = state.segments[-1]
        if self.handler is not None and not self.handler.by_line:
            if not self.importer.took_nothing_yet(state):
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

    def _look(self) -> tuple[int, int] | None:
        """Size and time of the list, None if it is gone."""
        try:
            found = os.stat(self.path)
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            raise ListUnavailable(
                f"{self.path}: {error.strerror}; the list cannot be looked at: start again when the file system works"
            ) from error
        return found.st_size, found.st_mtime_ns

    @property
    def has_untaken(self) -> bool:
        """Whether the list may have tasks that were not taken in, and that a later `check` may find."""
        return self.last_line.pending or self._look_again
