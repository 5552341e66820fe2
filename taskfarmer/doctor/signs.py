"""A doctor's sign: the file that identifies it to the other doctors and records its observations.

The file is locked and written like a farmer's alive file: in place, as a line with a checksum. `beat` increases with
each write.
"""

from __future__ import annotations

import os
from dataclasses import asdict, dataclass, field, replace

from taskfarmer.doctor.place import Place
from taskfarmer.formats.sealed import sealed, unsealed
from taskfarmer.peers.identity import Identity
from taskfarmer.peers.lockproof import Sign
from taskfarmer.storage import durable, locks


@dataclass(frozen=True)
class PeerState:
    """The contents of a sign. `heard`: other doctor -> the newest beat that was read, and when.

    `holds` is set if the doctor holds the lock on its sign, `holds_farm_lock` if it holds that in the lock directory.
    `news` lists the doctors whose news file is visible. `won`: other doctor -> the winners of their race, a letter
    for each name.
    """

    doctor: str
    host: str
    boot: str
    namespace: int
    pid: int
    pid_start: str
    beat: int = 0
    clock: float = 0.0
    holds: bool = False
    holds_farm_lock: bool = False
    heard: dict[str, tuple[int, float]] = field(default_factory=dict)
    news: tuple[str, ...] = ()
    won: dict[str, str] = field(default_factory=dict)
    done: bool = False

    @property
    def node(self) -> tuple[str, str, int]:
        """Two doctors are on different nodes if host name, boot ID or PID namespace differ."""
        return self.host, self.boot, self.namespace

    def alive_sign(self, reader: str) -> Sign:
        return Sign(self.beat, self.holds, self.heard.get(reader, (-1, 0.0))[0])

    def farm_sign(self, reader: str) -> Sign:
        return Sign(self.beat, self.holds_farm_lock, self.heard.get(reader, (-1, 0.0))[0])


def initial_state(me: Identity) -> PeerState:
    return PeerState(me.farmer, me.host, me.boot, me.pid_namespace, me.pid, me.pid_start)


def read(path: str) -> PeerState | None:
    """The state of another doctor; None if its sign is missing or corrupt."""
    try:
        document = unsealed(durable.read(path))
        if document is None:
            return None
        state = PeerState(**document)  # type: ignore[arg-type]
        heard = {doctor: (int(beat), float(clock)) for doctor, (beat, clock) in state.heard.items()}
        return replace(state, heard=heard, news=tuple(state.news))
    except (OSError, TypeError, ValueError, AttributeError, OverflowError):
        return None


class LockedFile:
    """A file of this doctor, locked while it is open."""

    def __init__(self, place: Place, path: str) -> None:
        self._fd = place.create(path)
        self._size = 0
        self.holds = locks.hold_alive(self._fd)
        os.set_inheritable(self._fd, False)

    def write(self, state: PeerState) -> None:
        data = sealed(asdict(state))
        os.pwrite(self._fd, data, 0)
        if len(data) < self._size:
            os.ftruncate(self._fd, len(data))
        self._size = len(data)
        durable.sync(self._fd)

    @property
    def stamp(self) -> float:
        return os.fstat(self._fd).st_mtime

    def close(self) -> None:
        os.close(self._fd)
