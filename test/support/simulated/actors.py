"""The processes of a simulated farm: farmers, and processes that create a farm, let it grow, retry, and delete it.

They use the product's `Ledger` as real farmers and verbs do; their other actions imitate those of the real ones.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from support.simulated.oracle import Violation, demand
from support.simulated.server import File, Folder
from support.simulated.world import Process
from taskfarmer.errors import Contended, Damaged, Expelled, FarmGone, Forked, NotAFarm, StaleView, Stopped, StorageError
from taskfarmer.farm import create
from taskfarmer.formats.intervals import Interval
from taskfarmer.formats.results import FAILED, FINISHED, LOST, RETURNED, result_line
from taskfarmer.ledger import farmfile
from taskfarmer.ledger.farmfile import Farm
from taskfarmer.ledger.ledger import FarmerReport, Ledger
from taskfarmer.ledger.state import Segment
from taskfarmer.peers.heartbeat import Presence
from taskfarmer.peers.identity import Identity
from taskfarmer.storage.layout import Workdir

if TYPE_CHECKING:
    from support.simulated.farmyard import Farmyard

MAX_DEATHS = 2
LEASE = 10.0


class Stop(Exception):
    """This process ends by itself."""


class Actor(Process):
    world: Farmyard
    immortal = False

    def __init__(self, world: Farmyard, name: str, node: str) -> None:
        super().__init__(world, name, node)
        self.workdir = Workdir(world.path)
        self.farm_id = world.oracle.farm
        self.lied_to = False

    @property
    def deleted(self) -> bool:
        """Whether our farm does not exist any more."""
        return self.farm_id in self.world.gone

    @contextmanager
    def expected_errors(self) -> Iterator[None]:
        """Run a call of the ledger; only the errors that are justified in this situation are allowed."""
        began = self.world.now
        try:
            yield
        except StorageError:
            if not self.world.troubled:
                raise Violation(f"{self.name}: a StorageError without a cause") from None
            if not self.world.faults.refused and not self.deleted:
                self.world.oracle.nothing_prepared(self.name)
            raise
        except FarmGone as error:
            # if another farm was deleted a moment ago, a node may still remember that this one does not exist
            recently = self.world.gone and began < self.world.recreated_at + self.world.faults.stale
            demand(self.deleted or recently, f"{self.name}: {error}")
            raise Stop from error
        except Expelled as error:
            demand(self.deleted or self.name in self.world.oracle.expelled, f"{self.name} was not expelled: {error}")
            raise Stop from error
        except Forked as error:
            demand(self.lied_to, f"{self.name}: {error}")
            raise Stop from error
        except (StaleView, Damaged) as error:
            # a process that slept while it waited may have waited for too long
            slept = self.woke >= began and "no longer holds" not in str(error)
            demand(slept or self.deleted, f"{self.name}: {error}")
            raise Stop from error
        if not self.world.faults.refused and not self.deleted:
            self.world.oracle.nothing_prepared(self.name)
        demand(not self.lied_to or self.woke >= began, f"{self.name} was lied to by `link` and goes on")
        self.lied_to = False


class Founder(Actor):
    """Creates the farm, unless another founder is faster."""

    immortal = True

    def live(self) -> None:
        while not self.world.oracle.moments:
            try:
                create.make_folders(self.workdir)
                if farmfile.load(self.workdir) is None:
                    name = f"{self.world.rng.getrandbits(64):016x}"
                    farm = Farm(name, "list", "default", {}, None, LEASE, self.world.faults.epoch_length, 0.0)
                    create.make(self.workdir, farm, Segment(name[:12], 0, self.world.tasks))
            except StorageError:
                self.world.sleep(1.0)


class Verb(Actor):
    """A verb of the command line: one change, tried once."""

    def __init__(self, world: Farmyard, name: str, node: str, action: Callable[[Ledger], object]) -> None:
        super().__init__(world, name, node)
        self.action = action

    def live(self) -> None:
        try:
            with self.expected_errors():
                farm = farmfile.load(self.workdir)
                if farm is None or farm.farm != self.farm_id:
                    return
                self.action(Ledger(self.workdir, farm, self.name))
        except (Stop, StorageError, NotAFarm):
            pass


def retry(ledger: Ledger) -> None:
    """Retry all failed tasks, and then those that have failed since."""
    for _ in range(3):
        ledger.retry()
        ledger.commits.lock.world.sleep(1.0)


def retry_some(ledger: Ledger) -> None:
    state = ledger.refresh()
    try:
        ledger.retry([state.tasks // 2])
    except ValueError:
        pass


class Deleter(Actor):
    """Removes the farm as `rm -r` does, and lets a new one be created in its place."""

    immortal = True

    def live(self) -> None:
        server = self.world.server
        while isinstance(found := server.find(self.world.path), Folder):
            self._empty(self.world.path, found)
            try:
                server.rmdir(self.world.path)
            except OSError:
                pass
        self.world.sleep(self.world.rng.random() * 5.0)
        self.world.recreate()

    def _empty(self, path: str, folder: Folder) -> None:
        for name, what in list(folder.entries.items()):
            self.world.step("remove", path)
            inner = f"{path}/{name}"
            try:
                if isinstance(what, File):
                    self.world.server.unlink(inner)
                else:
                    self._empty(inner, what)
                    self.world.server.rmdir(inner)
            except OSError:
                pass


class Farmer(Actor):
    """A farmer: claims tasks, runs them, reports their results, and watches the others.

    With `clean` it is the last farmer: it makes no random choices, and completes the list.
    """

    def __init__(self, world: Farmyard, name: str, node: str, clean: bool = False) -> None:
        super().__init__(world, name, node)
        self.clean = clean
        self.beaten = 0.0
        self.newest = 0
        self.tasks: list[Interval] = []
        self.running: list[list[int]] = []

    def live(self) -> None:
        try:
            with self.expected_errors():
                farm = farmfile.load(self.workdir)
                while self.clean and (farm is None or farm.farm != self.farm_id):
                    self.world.sleep(1.0)
                    farm = farmfile.load(self.workdir)
            if farm is None or farm.farm != self.farm_id:
                return
            self.ledger = Ledger(self.workdir, farm, self.name, 2)
            self.ledger.do_between(self._between)
            self.presence = Presence(
                self.workdir, Identity(self.name, self.node, "", 1, "", 0, 2, 0.0, ""), ballast=False
            )
            while not self._turn():
                self.world.sleep(self.world.rng.random() * self.world.rng.choice((0.5, 3.0)))
        except Stopped:
            self._abort()
        except (Stop, StorageError, NotAFarm):
            pass

    def _turn(self) -> bool:
        """One turn of the loop; whether it was the last."""
        whim = 0.5 if self.clean else self.world.rng.random()
        self._end_some()
        self._beat()
        if whim < 0.04:
            return self._leave()
        if whim < 0.08 and not self.deleted:
            self._expel()
        if whim < 0.10 or self.clean:
            self._grow()
        self._exchange(self.world.rng.randrange(4))
        state = self.ledger.commits.last_seen
        if self.tasks or not self.ledger.all_settled or state is None:
            return False
        if not state.has_unprocessed:
            self._grow()
            self._expel()
            state = self.ledger.commits.last_seen or state
            if not self.clean:
                self.world.sleep(3.0)
            if (
                self.world.ending
                and not state.has_unprocessed
                and not (self.clean and len(state.farmers) > self.ledger.registered)
            ):
                return self._leave()
        return False

    def _between(self) -> None:
        """If file operations are slow during a stop, the current operation is aborted, once."""
        if self.world.happens(self.world.faults.stops) and not self.clean:
            self.ledger.do_between(lambda: None)
            raise Stopped("")

    def _abort(self) -> None:
        """Leave with a farewell note, unless the aborted commit already contained our leaving."""
        self.ledger.add_report(FarmerReport(returned=self.tasks))
        self.tasks = []
        if self.ledger.has_left():
            self.presence.leave()
        else:
            self._farewell()

    # --- tasks ----------------------------------------------------------------------------------------

    def _end_some(self) -> None:
        """Some of the running tasks end, each with a random outcome."""
        rng = self.world.rng
        for one in list(self.tasks):
            if self.clean or rng.random() < 0.6:
                self.tasks.remove(one)
                drawn = rng.random()
                if one.deaths > MAX_DEATHS:
                    self._note(one, LOST)
                elif drawn < 0.05 and not self.clean and self._ran(one):
                    self.ledger.add_report(FarmerReport(died=[one]))
                elif drawn < 0.12 and not self.clean:
                    self._note(one, RETURNED)
                elif drawn < 0.15 and not self.clean:
                    self.ledger.add_report(FarmerReport(overran=[one]))
                else:
                    self._note(one, FAILED if drawn < 0.25 else FINISHED)

    def _ran(self, one: Interval) -> bool:
        return [0, self._task(one), one.attempt] in self.running

    def _task(self, one: Interval) -> int:
        return self.ledger.state.first_id(one)

    def _note(self, one: Interval, outcome: bytes) -> None:
        line = result_line(self._task(one), one.attempt, 0, 1.0, 2.0, outcome)
        if outcome == RETURNED:
            self.ledger.add_report(FarmerReport([line], returned=[one], seconds=1.0))
        else:
            good = outcome == FINISHED
            self.ledger.add_report(FarmerReport([line], [one], finished=good, failed=not good, seconds=1.0, ended=1))

    def _beat(self) -> None:
        self.running = [[0, self._task(one), one.attempt] for one in self.tasks if self.world.rng.random() < 0.7]
        self.world.oracle.announced.update((self.name, task, attempt) for _, task, attempt in self.running)
        try:
            self.presence.beat(self.running)
        except OSError:
            return
        self.beaten = self.world.now

    # --- the ledger -----------------------------------------------------------------------------------

    def _exchange(self, want: int, **more: Any) -> None:
        """One exchange; if the disk refuses it, it is repeated later."""
        began = self.world.now
        try:
            with self.expected_errors():
                gained, told = self.ledger.exchange(want, **more)
        except StorageError:
            self.world.sleep(0.5)
            return
        revision = self.ledger.state.revision
        demand(revision >= self.newest, f"{self.name} goes back from revision {self.newest} to {revision}")
        self.newest = revision
        late = self.deleted and began > self.world.recreated_at + self.world.faults.stale
        demand(not late, f"{self.name} goes on in a farm that was deleted")
        if not self.deleted:
            done = [(self._task(one.slice(n, 1)), one.attempt) for one in told.done for n in range(one.count)]
            self.world.oracle.confirm(self.name, self.ledger.state, gained, done)
        self.tasks += [one.slice(n, 1) for one in gained for n in range(one.count)]

    def _leave(self) -> bool:
        """Release tasks that were not started, report the rest, and leave; write a farewell note if time runs out."""
        for _ in range(20):
            # repeat it each time, because the successful exchange may have been an earlier one
            self.ledger.add_report(FarmerReport(returned=self.tasks))
            self.tasks = []
            try:
                self._exchange(0, leave=True, patience=0.0 if self.world.rng.random() < 0.3 else 60.0)
            except Contended:
                self._farewell()
                return True
            if self.ledger.all_settled and not self.ledger.registered:
                self.presence.leave()
                return True
        return True

    def _farewell(self) -> None:
        try:
            self.presence.write_farewell(*self.ledger.flush_journal())
        except (OSError, StorageError):
            return
        self.world.farewells.add(self.name)

    def _expel(self) -> None:
        """Expel farmers that are silent or left a farewell note, and sometimes one that is only slow."""
        try:
            with self.expected_errors():
                others = [one for one in self.ledger.refresh().farmers if one != self.name]
                dead = [one for one in others if self.clean or self.world.seems_dead(one)]
                gone = self.ledger.expel(dead) if dead else []
        except StorageError:
            return
        if gone and not self.deleted:
            self.world.oracle.confirm_expelled(gone, self.ledger.state)

    def _grow(self) -> None:
        """Import the lines that were appended to the list."""
        try:
            with self.expected_errors():
                there = self.ledger.state.tasks
                if self.world.tasks > there:
                    more = self.world.tasks - there
                    self.ledger.grow(Segment(f"{self.world.rng.getrandbits(48):012x}", there, more))
        except StorageError:
            pass
