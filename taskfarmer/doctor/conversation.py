"""Two doctors on two nodes: one doctor's measurements of the file system between them.

Each doctor polls the other's sign file, and records in its own sign file the newest beat that it has read. If a beat
of this doctor appears in the other's sign, it has made a round trip, and the other's sign was written later. So the
measurements do not depend on the clock of the other node, except for the clock difference itself.
"""

from __future__ import annotations

import os
import statistics
import time

from taskfarmer.doctor.findings import Agreement, Peer, Times
from taskfarmer.doctor.place import Place
from taskfarmer.doctor.signs import PeerState, read
from taskfarmer.peers.lockproof import LockProof, Sign
from taskfarmer.peers.trylock import try_lock
from taskfarmer.storage import durable

RACES = 16
RACES_A_ROUND = 4
LEAST_ANSWERS = 3
LOCK_FILE_PATIENCE = 2.0
"""Seconds after which a lock file of the other node must be visible here."""

Written = dict[int, tuple[float, float]]
"""Beat of this doctor -> the time when it was written, by the monotonic clock and by the wall clock."""


class Conversation:
    """The measurements with one other doctor. `round` is called repeatedly until `finished` returns True."""

    def __init__(self, mine: PeerState, other: str, place: Place, lock_place: Place | None) -> None:
        self.me = mine.doctor
        self._boot = mine.boot
        self.other = other
        self.state: PeerState | None = None
        self.alive_since: float | None = None
        self.heard: tuple[int, float] = (-1, 0.0)
        self.read_news = False
        self.won = ""
        self._place = place
        self._lock_place = lock_place
        self._alive_lock = LockProof()
        self._farm_lock = LockProof()
        self._farm_lock_seen = False
        self._misled = False
        self._linked = 0
        self._answered = -1
        self._answers: list[float] = []
        self._names: float | None = None
        self._clock: tuple[float, float] | None = None

    def round(self, written: Written, my_next: int, news: float | None) -> None:
        """Read the other's sign, and continue each test as far as possible.

        `my_next` is the next beat of this doctor, `news` the time when its news file was created, None before that.
        """
        state = read(self._place.sign(self.other))
        now, wall = time.monotonic(), time.time()
        if state is not None and state.beat > self.heard[0]:
            if self.state is not None and self.alive_since is None:
                self.alive_since = now
            self.heard = state.beat, wall
            self.state = state
        if self.state is None or self.alive_since is None:
            return
        self._measure(self.state, written, now, wall, news)
        alive_sign = state.alive_sign(self.me) if state else None
        self._prove(self._alive_lock, alive_sign, self._place.sign(self.other), my_next)
        if self._lock_place is not None and self.state.holds_farm_lock:
            path = self._lock_place.lock(self.other)
            self._farm_lock_seen = self._farm_lock_seen or os.path.exists(path)
            self._prove(self._farm_lock, state.farm_sign(self.me) if state else None, path, my_next)
        self.read_news = self.read_news or os.path.exists(self._place.news(self.other))
        if self.knows_me:
            self._race()

    @property
    def knows_me(self) -> bool:
        return self.state is not None and self.me in self.state.heard

    @property
    def gone(self) -> bool:
        """Whether the other doctor has left after they met."""
        return self.state is not None and not os.path.exists(self._place.sign(self.other))

    def finished(self, now: float) -> bool:
        """Whether all tests with the other doctor are complete."""
        if self.state is None or self.alive_since is None:
            return False
        held = [self._alive_lock] if self.state.holds else []
        late = not self._farm_lock_seen and now - self.alive_since > LOCK_FILE_PATIENCE
        if self._lock_place is not None and self.state.holds_farm_lock and not late:
            held.append(self._farm_lock)
        return (
            all(lock.verdict != "unknown" for lock in held)
            and self.links != "unknown"
            and self._names is not None
            and len(self._answers) >= LEAST_ANSWERS
        )

    # --- the tests ------------------------------------------------------------------------------------

    def _prove(self, proof: LockProof, sign: Sign | None, path: str, my_next: int) -> None:
        proof.observe(sign, time.monotonic())
        if proof.ready:
            try:
                answer = try_lock(path)
            except OSError:
                return
            proof.record_answer(answer, time.monotonic(), my_next)

    def _measure(self, state: PeerState, written: Written, now: float, wall: float, news: float | None) -> None:
        if news is not None and self._names is None and self.me in state.news:
            self._names = now - news
        beat, heard_at = state.heard.get(self.me, (-1, 0.0))
        if beat <= self._answered or beat not in written:
            return
        self._answered = beat
        sent, sent_at = written[beat]
        self._answers.append(now - sent)
        error = max(0.0, (wall - sent_at) - (state.clock - heard_at)) / 2
        if self._clock is None or error < self._clock[1]:
            self._clock = ((heard_at - sent_at) + (state.clock - wall)) / 2, error

    def _race(self) -> None:
        """Race for some more names, as farmers do for revisions; read the winners and record them in the sign."""
        for _ in range(RACES_A_ROUND):
            number = len(self.won)
            if number >= RACES:
                return
            name = self._place.race(min(self.me, self.other), max(self.me, self.other), number)
            if self._linked == number:
                prepared = os.path.join(self._place.work, f"racer-{self.other}-{number}")
                durable.prepare(prepared, self.me.encode("ascii"))
                accepted = durable.publish(prepared, name) is None
                self._linked += 1
            else:
                accepted = False
            winner = _text(name)
            if winner not in (self.me, self.other):
                return  # not visible yet: retry in the next round
            self._misled = self._misled or (accepted and winner != self.me)
            self.won += "a" if winner == min(self.me, self.other) else "b"

    @property
    def links(self) -> Agreement:
        """Whether both doctors saw the same winner of each name."""
        theirs = self.state.won.get(self.me, "") if self.state is not None else ""
        common = min(len(theirs), len(self.won))
        if self._misled or theirs[:common] != self.won[:common]:
            return "forked"
        return "agreed" if common == RACES else "unknown"

    def peer(self) -> Peer | None:
        """The results; None if the other doctor was never seen alive."""
        if self.state is None or self.alive_since is None:
            return None
        answers = self._answers
        clock, error = self._clock if self._clock is not None else (None, None)
        return Peer(
            doctor=self.other,
            host=self.state.host,
            same_machine=bool(self._boot) and self.state.boot == self._boot,
            alive_lock=self._alive_lock.verdict,
            farm_lock=self._farm_lock.verdict if self._lock_place is not None else None,
            farm_lock_seen=self._farm_lock_seen,
            links=self.links,
            contents=Times(len(answers), statistics.median(answers), max(answers)) if answers else None,
            names=self._names,
            clock=clock,
            clock_error=error,
        )


def _text(path: str) -> str:
    try:
        return durable.read(path).decode("ascii", "replace")
    except FileNotFoundError:
        return ""
