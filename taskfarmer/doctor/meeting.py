"""Doctors on several nodes: how they find each other, and how long they stay.

Each has a sign in the common folder and reads those of others. Of many it talks to a few only: to those of
other nodes that come next in the order of their random names, and to those for whom it comes next. A doctor
leaves when it has found out what it can and its partners have too, so that none is left alone in a proof.
"""

from __future__ import annotations

import os
import time
from dataclasses import replace

from taskfarmer.doctor.conversation import Conversation, Written
from taskfarmer.doctor.findings import MOST_PARTNERS, Peer
from taskfarmer.doctor.place import Place
from taskfarmer.doctor.signs import LockedFile, PeerState, read
from taskfarmer.storage import durable

INTERVAL = 0.05
_REMEMBERED = 2000


class Meeting:
    """One doctor among others. `run` returns what it found out with each."""

    def __init__(self, place: Place, lock_place: Place | None, says: PeerState, sign: LockedFile) -> None:
        self._place = place
        self._lock_place = lock_place
        self._says = says
        self._sign = sign
        self._talks: dict[str, Conversation] = {}
        self._same_node: set[str] = set()
        self._written: Written = {}
        self._news: float | None = None

    def run(self, nodes: int, wait: float) -> list[Peer]:
        """Wait up to `wait` seconds for doctors of `nodes` - 1 other nodes, and as long again for the proofs."""
        wanted = min(nodes - 1, MOST_PARTNERS)
        begin = time.monotonic()
        complete: float | None = None
        while True:
            self._round()
            now = time.monotonic()
            alive = [talk for talk in self._talks.values() if talk.alive_since is not None]
            met = len({talk.says.node for talk in alive if talk.says is not None})
            if complete is None and (met >= wanted or now - begin >= wait):
                complete = now
            done = complete is not None and all(talk.finished(now) for talk in alive)
            self._speak(done)
            if done and all(talk.gone or (talk.says is not None and talk.says.done) for talk in alive):
                break
            if complete is not None and now - complete >= max(wait, 1.0):
                break
            time.sleep(INTERVAL * max(1.0, len(alive) / 2))
        self._tidy_up(alive)
        return [peer for talk in self._talks.values() if (peer := talk.peer()) is not None]

    def _round(self) -> None:
        for doctor in self._partners():
            if doctor not in self._talks:
                self._talks[doctor] = Conversation(self._says, doctor, self._place, self._lock_place)
        for talk in self._talks.values():
            talk.round(self._written, self._says.beat + 1, self._news)
        known = [talk for talk in self._talks.values() if talk.alive_since is not None]
        if self._news is None and known and all(talk.knows_me for talk in known):
            os.close(self._place.create(self._place.news(self._says.doctor)))
            self._news = time.monotonic()

    def _partners(self) -> list[str]:
        """Whom to talk to: neighbours on the ring of doctors of other nodes, as far as their signs can be read."""
        others = []
        for doctor in self._place.doctors():
            if doctor != self._says.doctor and doctor not in self._same_node:
                says = None if doctor in self._talks else read(self._place.sign(doctor))
                if says is not None and says.node == self._says.node:
                    self._same_node.add(doctor)
                else:
                    others.append(doctor)
        after = [doctor for doctor in others if doctor > self._says.doctor]
        ring = after + [doctor for doctor in others if doctor < self._says.doctor]
        return ring if len(ring) <= 2 * MOST_PARTNERS else ring[:MOST_PARTNERS] + ring[-MOST_PARTNERS:]

    def _speak(self, done: bool) -> None:
        talks = self._talks.values()
        self._says = replace(
            self._says,
            beat=self._says.beat + 1,
            clock=time.time(),
            heard={talk.other: talk.heard for talk in talks if talk.alive_since is not None},
            news=tuple(talk.other for talk in talks if talk.read_news),
            won={talk.other: talk.won for talk in talks if talk.won},
            done=done,
        )
        sent = time.monotonic(), self._says.clock
        self._sign.write(self._says)
        self._written[self._says.beat] = sent
        self._written.pop(self._says.beat - _REMEMBERED, None)

    def _tidy_up(self, alive: list[Conversation]) -> None:
        for talk in alive:
            # while the other may still race a name must not become free again
            if talk.gone or (talk.says is not None and talk.says.done):
                self._place.forget_races(talk.other)
        durable.unlink_quietly(self._place.news(self._says.doctor))
