"""A simulated farm, the events that can happen to it, and its end: a clean farmer completes the list."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from random import Random

from support.simulated.actors import LEASE, Actor, Deleter, Farmer, Founder, Verb, retry, retry_some
from support.simulated.clients import Cache, installed
from support.simulated.oracle import Oracle, Violation, demand, sealed
from support.simulated.server import File
from support.simulated.world import Faults, Process, World, faults_of

NODES = ("n0", "n1", "n2")


class Farmyard(World):
    """Events come from outside: from a state machine of Hypothesis, or from a seed."""

    path = "/shared/farm"

    def __init__(self, faults: Faults) -> None:
        super().__init__(faults)
        self.server.mkdir("/shared")
        self.server.root.sync()
        self.tasks = 12
        self.ending = False
        self.troubled = bool(faults.refused or faults.lost or faults.late)
        self.gone: set[str] = set()
        self.farewells: set[str] = set()
        self.recreated_at = 0.0
        self.oracle = Oracle(self.server, self.path)

    def found(self) -> None:
        """Two processes create the farm at once."""
        founders: list[Actor] = [Founder(self, f"founder{node}", NODES[node]) for node in (0, 1)]
        self.processes += founders
        self._finish(founders)

    def recreate(self) -> None:
        """The farm does not exist any more: another one with a new ID replaces it."""
        self.server.parent(self.path)[0].sync()
        self.oracle = Oracle(self.server, self.path)
        self.processes.append(Founder(self, "founder", "n1"))

    # --- changes on the server that the oracle observes ---------------------------------------------

    def link(self, source: str, target: str) -> File:
        file = super().link(source, target)
        if target == self.path + "/farm.json":
            self.oracle.named(file)
            self.recreated_at = self.now
        elif target.rpartition("/")[2].isdigit() and self.oracle.farm not in self.gone:
            self.oracle.committed(target, file)
        return file

    def unlink(self, path: str) -> None:
        super().unlink(path)
        self.oracle.unlinked(path)

    def lies(self, target: str) -> bool:
        faults = self.faults
        if faults.stale or faults.refused or faults.lost or faults.late:
            return False
        there = self.server.find(target)
        if not target.rpartition("/")[2].isdigit() or not isinstance(there, File) or not super().lies(target):
            return False
        me = self.current
        if not isinstance(me, Actor) or sealed(bytes(there.data))["by"][0].startswith(me.name):
            return False
        me.lied_to = True
        return True

    def seems_dead(self, name: str) -> bool:
        if self.ending or name in self.farewells:
            return name in self.farewells
        for one in self.farmers():
            if one.name == name and not one.killed:
                return self.now - one.beaten > LEASE or self.rng.random() < 0.02
        return self.rng.random() < 0.3

    # --- events ---------------------------------------------------------------------------------------

    def farmers(self) -> list[Farmer]:
        return [one for one in self.processes if isinstance(one, Farmer) and not one.done]

    @property
    def whole(self) -> bool:
        """Whether there is a farm that no process deletes."""
        return bool(self.oracle.moments) and self.oracle.farm not in self.gone

    def _begin(self, actor: Actor) -> None:
        self.processes = [one for one in self.processes if not one.done]
        if self.whole:
            self.processes.append(actor)

    def _name(self) -> str:
        return f"host-{self.number()}-{self.rng.getrandbits(32):08x}"

    def farmer_starts(self, node: int) -> None:
        if len(self.farmers()) < 6:
            self._begin(Farmer(self, self._name(), NODES[node]))

    def list_grows(self, tasks: int) -> None:
        self.tasks += tasks

    def retry(self, node: int, some: bool) -> None:
        action = retry_some if some else retry
        self._begin(Verb(self, f"retry-{self.rng.getrandbits(32):08x}", NODES[node], action))

    def farmer_sleeps(self, which: int, seconds: float) -> None:
        farmers = self.farmers()
        if farmers:
            self.pause(farmers[which % len(farmers)], seconds)

    def farmer_is_killed(self, which: int) -> None:
        farmers = self.farmers()
        if farmers:
            self.kill([farmers[which % len(farmers)]])

    def node_crashes(self, node: int) -> None:
        name = NODES[node]
        if any(one.immortal and not one.done and one.node == name for one in self.processes):
            return
        self.kill([one for one in self.processes if one.node == name])
        self.server.node_lost(name, self.rng)
        self.caches[name] = Cache()

    def dies(self, process: Process) -> None:
        """Sometimes the node of the process crashes, too."""
        super().dies(process)
        if self.rng.random() < 0.4:
            self.node_crashes(NODES.index(process.node))

    def power_fails(self) -> None:
        """All processes are killed, and a part of the data that was not durable is lost."""
        if self.whole and not any(one.immortal and not one.done for one in self.processes):
            self.kill(self.processes)
            self.later.clear()
            self.caches.clear()
            self.server.power_lost(self.rng)
            if self.server.find(self.path + "/farm.json") is None:
                demand(not self.oracle.confirmed, "farm.json is gone, and the farm was in use")
                self.recreate()
            else:
                self.oracle.power_was_lost()

    def damage(self) -> str:
        """Flip a bit of the newest revision on the disk; its path."""
        path = self.oracle.now.path
        file = self.server.find(path)
        assert isinstance(file, File)
        file.data[self.rng.randrange(len(file.data))] ^= 1
        return path

    def disk_fills(self, full: bool) -> None:
        self.full = full
        self.troubled = self.troubled or full

    def farm_is_deleted(self) -> None:
        if self.whole and not self.gone:
            self._begin(Deleter(self, "deleter", "n1"))
            self.gone.add(self.oracle.farm)
            self.recreated_at = math.inf
            self.troubled = True

    # --- the end --------------------------------------------------------------------------------------

    def end(self, ghosts: bool) -> None:
        """A clean farmer completes the list; farmers that wake up later change nothing; failed tasks are retried."""
        clean = self._last_farmer(ghosts)
        keep = [one for one in self.farmers() if one is not clean and not one.killed]
        self._finish([clean])
        self._finish(keep)
        self._run_again()
        self.oracle.all_recorded_once()
        self.retry(0, some=False)
        self._finish([one for one in self.processes if isinstance(one, Verb)])
        self._run_again()
        self.oracle.all_recorded_once()

    def _run_again(self) -> None:
        """Start farmers while tasks remain, as a user would: one that read stale contents may have left too early."""
        for _ in range(3):
            self.now += self.faults.stale
            if any(place not in ("finished", "failed") for place, _, _ in self.oracle.now.places.values()):
                again = Farmer(self, self._name(), "n1", clean=True)
                self.processes.append(again)
                self._finish([again])

    def end_damaged(self) -> None:
        """The newest revision is corrupt: the clean farmer reports its name, and stops."""
        clean = self._last_farmer(ghosts=False, damaged=True)
        try:
            self._finish([clean])
        except Violation as error:
            demand(self.damaged + ": corrupt" in str(error), error)
            return
        demand(False, "a farmer went on from before a damaged revision")

    def _last_farmer(self, ghosts: bool, damaged: bool = False) -> Farmer:
        self.faultless, self.full, self.ending = True, False, True
        self.later.clear()
        keep = [one for one in self.farmers() if ghosts and not one.killed]
        self.kill([one for one in self.processes if one not in keep])
        for one in keep:
            self.pause(one, 300.0 * self.rng.random())
        while makers := [one for one in self.processes if isinstance(one, Deleter | Founder) and not one.done]:
            self._finish(makers)
        if damaged:
            self.caches.clear()
            self.damaged = self.damage()
        clean = Farmer(self, self._name(), "n2", clean=True)
        self.processes.append(clean)
        return clean

    def _finish(self, processes: Sequence[Actor]) -> None:
        for _ in range(100):
            if all(one.done for one in processes):
                return
            self.run(200)
        demand(False, "it does not come to an end:", [one.name for one in processes if not one.done])


@contextmanager
def farmyard(faults: Faults) -> Iterator[Farmyard]:
    """A farm that was just created in a separate world; the product runs in that world meanwhile."""
    yard = Farmyard(faults)
    with installed(yard):
        try:
            yard.found()
            yield yard
        finally:
            yard.close()


def history(seed: int, faults: Faults | None = None) -> Farmyard:
    """One run whose events come from the seed. Raises the violation, if any."""
    with farmyard(faults or faults_of(seed)) as yard:
        rng = Random(~seed)
        for _ in range(rng.randint(1, 3)):
            yard.farmer_starts(rng.randrange(3))
        for _ in range(rng.randint(5, 25)):
            event(yard, rng)
            yard.run(rng.choice((10, 50, 200, 400)))
        if rng.random() < 0.05:
            yard.end_damaged()
        else:
            yard.end(ghosts=rng.random() < 0.5)
    return yard


def event(yard: Farmyard, rng: Random) -> None:
    drawn = rng.randrange(100)
    if drawn < 30:
        yard.farmer_starts(rng.randrange(3))
    elif drawn < 45:
        yard.farmer_sleeps(rng.randrange(9), rng.choice((1.0, 15.0, 40.0, 80.0)))
    elif drawn < 55:
        yard.farmer_is_killed(rng.randrange(9))
    elif drawn < 65:
        yard.retry(rng.randrange(3), rng.random() < 0.5)
    elif drawn < 75:
        yard.list_grows(rng.randint(1, 9))
    elif drawn < 81:
        yard.node_crashes(rng.randrange(3))
    elif drawn < 87:
        yard.power_fails()
    elif drawn < 94:
        yard.disk_fills(not yard.full)
    elif drawn < 97:
        yard.farm_is_deleted()
