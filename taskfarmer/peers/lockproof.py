"""Whether a lock that a process of another node holds keeps us out: concluded from what is seen over time.

The peer holds an exclusive `flock` for as long as it lives, and writes into a file a number that rises and
the word that it holds. We try for the same lock, once, without waiting, and *shared*: so that of all who try
nobody is in another's way, and only the peer itself can be the one that refuses us.

    watching   until two different numbers were seen with the word: the peer lives and holds
    tried      refused, granted, or no answer at all; nothing is concluded yet
    decided    once the peer is known to have written, after the try, that it holds

A peer that dies in between is not heard of again, so nothing is concluded from a lock that fell with its
holder. "Written after the try" is known in one of two ways: the peer says that it has read a number of ours
that we wrote after the try; or, where it says nothing about us, its number rose between two looks that were
both later than the try by more than any cache is old.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

Answer = Literal["refused", "granted", "unsupported"]
"""What a try for the lock came to: `unsupported` where the file system knows no locks."""
Verdict = Literal["shared", "local", "unsupported", "unknown"]
"""`shared`: the lock excludes between the two nodes. `local`: both had it at once."""

STALENESS = 120.0
"""Seconds by which a file system may show old contents; nfs(5) has 60 as the default of its longest cache."""

_MEANING: dict[Answer, Verdict] = {"refused": "shared", "granted": "local", "unsupported": "unsupported"}


class Sign(NamedTuple):
    """What a peer says: a number that rises, whether it holds, and the newest number of ours that it read."""

    beat: int
    holds: bool
    heard: int | None = None


class LockProof:
    """The proof for one lock of one peer. Told of looks and of the try, in order; it never waits.

    `now` is in seconds on any clock of our own that does not jump.
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
        """Whether now is the time to try for the lock."""
        return self._answer is None and self._risen and self._holds

    def observe(self, sign: Sign | None, now: float) -> None:
        """What is read in the peer's file; None where nothing, or nothing whole, is read."""
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
        """What the try came to. `asked` is the first number that we ourselves write after it, if we write any."""
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
