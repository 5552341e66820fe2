"""Whether a lock that a process on another node holds excludes us: concluded from observations over time.

The peer holds an exclusive `flock` while it lives. It writes a rising number and the fact that it holds the lock into a
file. We try to acquire the same lock once, without waiting, and in *shared* mode, so that nodes that try at the same
time do not refuse each other, and a refusal can only come from the peer.

    watching   until we read two different numbers with the lock held: the peer is alive and holds it
    tried      refused, granted, or unsupported; nothing is concluded yet
    decided    when the peer is known to have written, after the try, that it holds the lock

A peer that dies in between writes no more, so a lock that was released by its death proves nothing. There are two ways
to know that the peer wrote after the try. Either it has read one of our numbers that we wrote after the try. Or, if it
does not report our numbers, its number rose between two looks that were both later than the try by more than the
maximum age of any cache.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

Answer = Literal["refused", "granted", "unsupported"]
"""The answer of a try for the lock: `unsupported` if the file system has no locks."""
Verdict = Literal["shared", "local", "unsupported", "unknown"]
"""`shared`: the lock excludes between the two nodes. `local`: both had it at once."""

STALENESS = 120.0
"""Seconds for which a file system may show old contents; the longest cache of nfs(5) has 60 by default."""

_MEANING: dict[Answer, Verdict] = {"refused": "shared", "granted": "local", "unsupported": "unsupported"}


class Sign(NamedTuple):
    """The state of a peer: a rising number, whether it holds the lock, and the newest of our numbers that it read."""

    beat: int
    holds: bool
    heard: int | None = None


class LockProof:
    """The proof for one lock of one peer. It gets observations and the answer of the try in order, and never waits.

    `now` is in seconds on any clock of this process that does not jump.
    """

    def __init__(self, staleness: float = STALENESS) -> None:
        self.verdict: Verdict = "unknown"
        self._staleness = staleness
        self._newest = -1
        self._risen = False
        self._holds = False
        self._answer: Answer | None = None
        self._tried = 0.0
        self._asked: int | None = None
        self._floor: int | None = None

    @property
    def ready(self) -> bool:
        """Whether to try the lock now."""
        return self._answer is None and self._risen and self._holds

    def observe(self, sign: Sign | None, now: float) -> None:
        """Process the content of the peer's file; None if it is missing or incomplete."""
        if sign is None or sign.beat < self._newest or self.verdict != "unknown":
            return
        if not sign.holds:
            self._restart(sign)
            return
        if self._holds and sign.beat > self._newest:
            self._risen = True
        self._holds = True
        self._newest = sign.beat
        if self._answer is not None and self._is_later_than_the_try(sign, now):
            self.verdict = _MEANING[self._answer]

    def record_answer(self, answer: Answer, now: float, asked: int | None = None) -> None:
        """Record the answer of the try. `asked` is the first number that we write after it, if we write any."""
        assert self.ready
        self._answer, self._tried, self._asked = answer, now, asked

    def _restart(self, sign: Sign) -> None:
        self._newest = sign.beat
        self._holds = self._risen = False
        self._answer = self._floor = None

    def _is_later_than_the_try(self, sign: Sign, now: float) -> bool:
        if self._asked is not None and sign.heard is not None:
            return sign.heard >= self._asked
        if now < self._tried + self._staleness:
            return False
        if self._floor is None:
            self._floor = sign.beat
        return sign.beat > self._floor
