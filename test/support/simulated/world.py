"""The world of simulated farmers: one clock, one random generator, and exactly one running process at a time.

Each process is a thread, but it runs only while it holds the baton. At each call of the file system the world decides,
by its seed alone, which process runs next, which ones sleep and for how long, which are killed, and which call fails.
So a seed and the external events determine the whole history.
"""

from __future__ import annotations

import errno
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from random import Random
from typing import Any

from support.simulated.clients import Cache, Opened, Reading
from support.simulated.server import File, Server, failure

LOST_REPLIES = {
    "link": (errno.EEXIST, errno.EIO, errno.ENOENT, errno.ESTALE),
    "rename": (errno.ENOENT, errno.EIO),
    "unlink": (errno.ENOENT, errno.EIO),
    "mkdir": (errno.EEXIST, errno.EIO),
    "rmdir": (errno.ENOENT, errno.EIO),
    "symlink": (errno.EEXIST, errno.EIO),
}
REFUSALS = {
    "link": (errno.EIO, errno.EDQUOT),
    "rename": (errno.EIO, errno.EDQUOT),
    "unlink": (errno.EIO,),
    "mkdir": (errno.EIO, errno.EDQUOT),
    "rmdir": (errno.EIO,),
    "symlink": (errno.EIO, errno.EDQUOT),
    "create": (errno.EIO, errno.ENOSPC),
    "write": (errno.EIO, errno.ENOSPC),
    "fsync": (errno.EIO, errno.ENOSPC),
    "list": (errno.ESTALE,),
    "read": (errno.ESTALE,),
}
NEEDS_ROOM = ("link", "rename", "mkdir", "symlink", "create", "write")
CRITICAL = ("link", "unlink", "rename", "rmdir", "mkdir", "symlink", "fsync")


@dataclass(frozen=True)
class Faults:
    """The possible faults. Rates are per call; `stale` is the time in seconds for which a node may show old contents.

    `locks` is "shared" between nodes, "local" to each, or "none". With `metadata_is_safe` a power failure loses no
    names, as on a server that replies only after it has written them to its disk; `late` is the share of links that
    time out and are carried out afterwards; `lying` the share of those that falsely claim to have replaced a name.
    """

    seed: int = 0
    epoch_length: int = 5
    locks: str = "shared"
    metadata_is_safe: bool = False
    stale: float = 0.0
    short: float = 0.0
    lost: float = 0.0
    late: float = 0.0
    lying: float = 0.0
    refused: float = 0.0
    pauses: float = 0.0
    kills: float = 0.0
    stops: float = 0.0
    """The share of calls between two operations at which a farmer that was stopped aborts its current exchange."""


class Killed(BaseException):
    """The process was killed: none of its code runs any more."""


class Process:
    """A process on a node. `live` is its code; `wake` is the time when it continues."""

    immortal = False

    def __init__(self, world: World, name: str, node: str) -> None:
        self.world, self.name, self.node = world, name, node
        self.cache = world.caches.setdefault(node, Cache())
        self.files: dict[int, Opened | Reading] = {}
        self.wake = 0.0
        self.woke = -1.0
        self.killed = self.done = False
        self.baton = threading.Lock()
        self.baton.acquire()
        self.thread: threading.Thread | None = None

    def live(self) -> None:
        raise NotImplementedError

    def opened(self, file: Opened | Reading) -> int:
        fd = self.world.number()
        self.files[fd] = file
        return fd


class World:
    """Owns the clock, the processes and their turns. An oracle can override `link` and `unlink` to observe them."""

    def __init__(self, faults: Faults) -> None:
        self.faults = faults
        self.rng = Random(faults.seed)
        self.now = 1000.0
        self.server = Server()
        self.caches: dict[str, Cache] = {}
        self.processes: list[Process] = []
        self.current: Process = Process(self, "nobody", "nowhere")
        self.locks: dict[tuple[str, str], Process] = {}
        self.later: list[tuple[float, str, str]] = []
        self.faultless = self.full = False
        self.broken: BaseException | None = None
        self.steps = self._left = self._numbers = 0
        self._own = threading.Lock()
        self._own.acquire()

    def number(self) -> int:
        self._numbers += 1
        return self._numbers

    def happens(self, rate: float) -> bool:
        return rate > 0.0 and not self.faultless and self.rng.random() < rate

    # --- scheduling ---------------------------------------------------------------------------------

    def run(self, steps: int) -> None:
        """Let the processes run for this many calls, or until all have ended."""
        self._left = steps
        following = self._following()
        if following is not None:
            self._give(following)
            self._own.acquire()
        if self.broken is not None:
            raise self.broken

    def _following(self) -> Process | None:
        if self._left <= 0 or self.broken is not None:
            return None
        living = [one for one in self.processes if not one.done]
        ready = [one for one in living if one.wake <= self.now]
        if ready:
            return self.rng.choice(ready)
        if not living:
            return None
        first = min(living, key=lambda one: one.wake)
        self.now = first.wake
        return first

    def _give(self, process: Process | None) -> None:
        if process is None:
            self._own.release()
            return
        self.current = process
        if process.thread is None:
            process.thread = threading.Thread(target=self._body, args=(process,), daemon=True)
            process.thread.start()
        else:
            process.baton.release()

    def _body(self, process: Process) -> None:
        try:
            if not process.killed:
                process.live()
        except Killed:
            pass
        except BaseException as error:
            self.broken = self.broken or error
        process.done = True
        self._give(self._following())

    def _pass_on(self) -> None:
        me = self.current
        following = self._following()
        if following is not me:
            self._give(following)
            me.baton.acquire()
        if me.killed:
            raise Killed

    def step(self, kind: str, path: str) -> None:
        """Called before each call of a process to the file system."""
        me = self.current
        if me.killed:
            raise Killed
        rng = self.rng.random
        drawn = rng()
        self.steps += 1
        self._left -= 1
        self.now += 0.002 * drawn if drawn < 0.98 else 0.3 * rng()
        if self.later:
            self._carry_out()
        faults = self.faults
        weight = 6 if kind in CRITICAL else 1
        if not self.faultless and rng() < weight * faults.kills and not me.immortal:
            self.dies(me)
            raise Killed
        if not self.faultless and rng() < weight * faults.pauses:
            self.pause(me, rng() * self.rng.choice((1.0, 8.0, 80.0)))
            self._pass_on()
        elif drawn < 0.2 or self._left <= 0:
            self._pass_on()

    def pause(self, process: Process, seconds: float) -> None:
        process.wake = process.woke = max(process.wake, self.now + seconds)

    def sleep(self, seconds: float) -> None:
        me = self.current
        if me.killed:
            raise Killed
        self._left -= 1
        me.wake = max(me.wake, self.now + seconds)
        self._pass_on()

    def dies(self, process: Process) -> None:
        """A process is killed at a call of the file system."""
        self.kill([process])

    def kill(self, processes: list[Process]) -> None:
        for one in processes:
            if not one.immortal:
                one.killed = True
                one.wake = self.now

    def close(self) -> None:
        """Stop all threads."""
        self.broken = None
        for one in self.processes:
            one.killed = True
            one.wake = self.now
        self._left = 1 << 60
        following = self._following()
        if following is not None:
            self._give(following)
            self._own.acquire()

    # --- faults -------------------------------------------------------------------------------------

    def kept_until(self) -> float:
        """The time until which a node caches what it has just read; 0 if it reads again each time."""
        if not self.faults.stale or self.rng.random() < 0.4:
            return 0.0
        return self.now + self.rng.random() * self.faults.stale

    def refuse(self, kind: str, path: str) -> None:
        if self.full and kind in NEEDS_ROOM:
            raise failure(errno.ENOSPC, path)
        if self.happens(self.faults.refused * (0.2 if kind in ("list", "read") else 1.0)):
            raise failure(self.rng.choice(REFUSALS[kind]), path)

    def lost_reply(self, kind: str) -> int | None:
        rate = self.faults.lost * (4 if kind == "link" else 1)
        return self.rng.choice(LOST_REPLIES[kind]) if self.happens(rate) else None

    def postponed(self, source: str, target: str) -> bool:
        """Whether this link times out, and is carried out later, after the process has stopped waiting for it."""
        if not self.happens(self.faults.late):
            return False
        self.later.append((self.now + self.rng.random() * 3.0, source, target))
        return True

    def _carry_out(self) -> None:
        due = [one for one in self.later if one[0] <= self.now]
        self.later = [one for one in self.later if one[0] > self.now]
        for _, source, target in due:
            try:
                self.link(source, target)
            except OSError:
                pass

    def lies(self, target: str) -> bool:
        """Whether a link to an existing name falsely reports success."""
        return self.happens(self.faults.lying)

    def link(self, source: str, target: str) -> File:
        file = self.server.link(source, target)
        if self.faults.metadata_is_safe:
            self.server.parent(target)[0].sync()
        return file

    def unlink(self, path: str) -> None:
        self.server.unlink(path)

    # --- locks --------------------------------------------------------------------------------------

    def lock(self, path: str, **how: object) -> Lock:
        return Lock(self, self.current, path)


class Lock:
    """The farm's lock: shared by all nodes, by the processes of one node, or not shared at all."""

    def __init__(self, world: World, owner: Process, path: str) -> None:
        self.world, self.owner = world, owner
        scope = {"shared": "all", "local": owner.node, "none": owner.name}[world.faults.locks]
        self.key = (path, scope)

    def _try(self) -> bool:
        holder = self.world.locks.get(self.key)
        if holder is not None and holder is not self.owner and not (holder.killed or holder.done):
            return False
        self.world.locks[self.key] = self.owner
        return True

    @contextmanager
    def held(self, patience: float = 5.0) -> Iterator[bool]:
        end = self.world.now + patience
        got = self._try()
        while not got and self.world.now < end:
            self.world.sleep(0.05 + 0.2 * self.world.rng.random())
            got = self._try()
        try:
            yield got
        finally:
            if got and self.world.locks.get(self.key) is self.owner:
                del self.world.locks[self.key]


def faults_of(seed: int, draw: Callable[[Any], Any] | None = None) -> Faults:
    """The faults for a seed, or for the choices of `draw`."""
    choose = draw or Random(seed).choice
    network = choose((True, False))
    return Faults(
        seed=seed,
        epoch_length=choose((4, 5, 8)),
        locks=choose(("shared", "local", "none")),
        metadata_is_safe=network,
        stale=choose((0.0, 0.5, 5.0)),
        short=choose((0.0, 0.05)) if network else 0.0,
        lost=choose((0.0, 0.01, 0.05)),
        late=choose((0.0, 0.03)),
        lying=choose((0.0, 0.0, 0.05)) if network else 0.0,
        refused=choose((0.0, 0.003, 0.02)),
        pauses=choose((0.0, 0.0005, 0.003)),
        kills=choose((0.0, 0.0002, 0.001)),
    )
