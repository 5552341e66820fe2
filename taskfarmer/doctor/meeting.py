"""Doctors on several nodes: how they find each other, and when they leave.

Each doctor has a sign in the common folder and reads the signs of the others. If there are many, it talks to a few:
sorted by their random names, the doctors form a ring, and each talks to its next neighbours on both sides. A doctor
leaves when its tests and those of its partners are complete, so that no partner has to stop in the middle of a test.
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
    """One doctor among others. `run` returns the results with each of them."""

    def __init__(self, place: Place, lock_place: Place | None, state: PeerState, sign: LockedFile) -> None:
        self._place = place
        self._lock_place = lock_place
        self._state = state
        self._sign = sign
        self._talks: dict[str, Conversation] = {}
        self._same_node: set[str] = set()
        self._written: Written = {}
        self._news: float | None = None

    def run(self, nodes: int, wait: float) -> list[Peer]:
        """Wait up to `wait` seconds for doctors of `nodes` - 1 other nodes, and as long again for the tests."""
        wanted = min(nodes - 1, MOST_PARTNERS)
        start = time.monotonic()
        complete: float | None = None
        while True:
            self._round()
            now = time.monotonic()
            alive = [talk for talk in self._talks.values() if talk.alive_since is not None]
            met = len({talk.state.node for talk in alive if talk.state is not None})
            if complete is None and (met >= wanted or now - start >= wait):
                complete = now
            done = complete is not None and all(talk.finished(now) for talk in alive)
            self._write_sign(done)
            if done and all(talk.gone or (talk.state is not None and talk.state.done) for talk in alive):
                break
            if complete is not None and now - complete >= max(wait, 1.0):
                break
            time.sleep(INTERVAL * max(1.0, len(alive) / 2))
        self._clean_up(alive)
        return [peer for talk in self._talks.values() if (peer := talk.peer()) is not None]

    def _round(self) -> None:
        for doctor in self._partners():
            if doctor not in self._talks:
                self._talks[doctor] = Conversation(self._state, doctor, self._place, self._lock_place)
        for talk in self._talks.values():
            talk.round(self._written, self._state.beat + 1, self._news)
        known = [talk for talk in self._talks.values() if talk.alive_since is not None]
        if self._news is None and known and all(talk.knows_me for talk in known):
            os.close(self._place.create(self._place.news(self._state.doctor)))
            self._news = time.monotonic()

    def _partners(self) -> list[str]:
        """The doctors to talk to: neighbours on the ring of doctors of other nodes whose signs can be read."""
        others = []
        for doctor in self._place.doctors():
            if doctor != self._state.doctor and doctor not in self._same_node:
                state = None if doctor in self._talks else read(self._place.sign(doctor))
                if state is not None and state.node == self._state.node:
                    self._same_node.add(doctor)
                else:
                    others.append(doctor)
        after = [doctor for doctor in others if doctor > self._state.doctor]
        ring = after + [doctor for doctor in others if doctor < self._state.doctor]
        return ring if len(ring) <= 2 * MOST_PARTNERS else ring[:MOST_PARTNERS] + ring[-MOST_PARTNERS:]

    def _write_sign(self, done: bool) -> None:
        talks = self._talks.values()
        self._state = replace(
            self._state,
            beat=self._state.beat + 1,
            clock=time.time(),
            heard={talk.other: talk.heard for talk in talks if talk.alive_since is not None},
            news=tuple(talk.other for talk in talks if talk.read_news),
            won={talk.other: talk.won for talk in talks if talk.won},
            done=done,
        )
        sent = time.monotonic(), self._state.clock
        self._sign.write(self._state)
        self._written[self._state.beat] = sent
        self._written.pop(self._state.beat - _REMEMBERED, None)

    def _clean_up(self, alive: list[Conversation]) -> None:
        for talk in alive:
            # a name must not become free while the other doctor may still race for it
            if talk.gone or (talk.state is not None and talk.state.done):
                self._place.remove_races(talk.other)
        durable.unlink_quietly(self._place.news(self._state.doctor))
