"""What a pool keeps of its workers and of the tasks that it has: stock, batches, seats, members, news."""

from __future__ import annotations

import math
import socket
import time
from collections import deque
from collections.abc import Iterable

from taskfarmer.ledger.ledger import Tidings
from taskfarmer.model import Interval
from taskfarmer.plain import dataclass, field
from taskfarmer.pool.child import Child
from taskfarmer.pool.wire import News, NewsFeed

FEW = 8
"""Workers that have a slot each; where there are more slots, a worker serves up to as many."""


def teams(slots: int, shared: bool) -> list[range]:
    """The slots of each worker; one for each if workers are not to be `shared`.

    A runner of the user's own is alone in its process: PyTaskFarmer's contract has one task at a time.
    """
    width = min(FEW, -(-slots // FEW)) if shared else 1
    return [range(first, min(first + width, slots)) for first in range(0, slots, width)]


@dataclass
class Happened:
    """What workers told since the last look: for the ledger, and for people.

    `hopeless` is why no more workers are started; empty while they are.
    """

    tidings: Tidings = field(default_factory=Tidings)
    troubles: list[str] = field(default_factory=list)
    survivors: list[int] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    leftovers: list[tuple[int, int]] = field(default_factory=list)
    """Tasks that left processes, and how many; a negative ID if the task is not known."""
    hopeless: str = ""


@dataclass
class Batch:
    number: int
    interval: Interval
    lines: list[bytes]
    done: int = 0

    @property
    def left(self) -> int:
        return self.interval.count - self.done


class Stock:
    """Tasks that are held and not handed out: those of `interval`, whose lines begin at `offset` of `lines`."""

    def __init__(self, interval: Interval, lines: list[bytes]) -> None:
        self.interval = interval
        self.lines = lines
        self.offset = 0

    def cut(self, size: int) -> tuple[Interval, list[bytes]]:
        size = min(size, self.interval.count)
        part, lines = self.interval.part(0, size), self.lines[self.offset : self.offset + size]
        self.interval = self.interval.part(size, self.interval.count - size)
        self.offset += size
        return part, lines


class Seat:
    """One slot as its farmer knows it: the batches that are with its worker, the first of them being run."""

    def __init__(self, slot: int, member: Member) -> None:
        self.slot = slot
        self.member = member
        self.batches: deque[Batch] = deque()
        self.outstanding = 0
        self.moved = time.monotonic()
        self.asked = False


class Member:
    """One worker as its farmer knows it: a process, the pipe to it, and its slots.

    `doubted` is news of an interrupted task although nothing is to stop: it waits, and with it all later news, until
    it is known whether the farmer is to stop, too (`doubted_until`). `died` are tasks that were not given back then.
    `looks` counts the looks in a row that found the process stopped or ended.
    """

    def __init__(self, slots: Iterable[int], process: Child, link: socket.socket) -> None:
        self.process = process
        self.started = time.monotonic()
        self.link = link
        self.feed = NewsFeed()
        self.out = bytearray()
        self.doubted: News | None = None
        self.doubted_until = -math.inf
        self.died: list[Interval] = []
        self.looks = 0
        self.seats = {slot: Seat(slot, self) for slot in slots}

    @property
    def pid(self) -> int:
        return self.process.pid
