"""A doctor's sign: the one file by which others know it, and what it says.

The file is locked as a farmer's alive file is, and written in the same way: in place, as a line with a
checksum. The number `beat` rises with every writing.
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
    """What a doctor says. `heard` has, for each doctor that it reads, the newest beat and when it read that.

    `holds` is about the lock on the sign, `holds_farm_lock` about that in the lock directory. `news` are
    the doctors whose news it has read, `won` who won the race with each doctor: a letter a name.
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
        """Two doctors are on two nodes if host name, boot id or pid namespace differ."""
        return self.host, self.boot, self.namespace

    def alive_sign(self, reader: str) -> Sign:
        return Sign(self.beat, self.holds, self.heard.get(reader, (-1, 0.0))[0])

    def farm_sign(self, reader: str) -> Sign:
        return Sign(self.beat, self.holds_farm_lock, self.heard.get(reader, (-1, 0.0))[0])


def initial_state(me: Identity) -> PeerState:
    return PeerState(me.farmer, me.host, me.boot, me.pid_namespace, me.pid, me.pid_start)


def read(path: str) -> PeerState | None:
    """What another doctor says, None where there is nothing, or nothing whole."""
    try:
        document = unsealed(durable.read(path))
        if document is None:
            return None
        says = PeerState(**document)  # type: ignore[arg-type]
        heard = {doctor: (int(beat), float(clock)) for doctor, (beat, clock) in says.heard.items()}
        return replace(says, heard=heard, news=tuple(says.news))
    except (OSError, TypeError, ValueError, AttributeError, OverflowError):
        return None


class LockedFile:
    """A file of ours that is locked as long as it is open."""

    def __init__(self, place: Place, path: str) -> None:
        self._fd = place.create(path)
        self._size = 0
        self.holds = locks.hold_alive(self._fd)
        os.set_inheritable(self._fd, False)

    def write(self, says: PeerState) -> None:
        data = sealed(asdict(says))
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
