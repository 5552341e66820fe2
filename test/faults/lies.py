"""The shim of lies.c from the side of a test: its variables, what it told, and the renames that it puts off."""

from __future__ import annotations

import os
import random
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Liar:
    """Lies about the names below `under`; each of them is a line of the file `told`."""

    shim: Path
    under: Path
    told: Path

    def variables(self, kind: str = "", share: int = 100, seed: int = 0, after: int = 0) -> dict[str, str]:
        """For the environment of one program. `kind` is what is told of links, see lies.c."""
        found = {"LD_PRELOAD": self.shim, "LIES_UNDER": self.under, "LIES_TOLD": self.told, "LIES_SEED": seed}
        found |= {"LIES_SHARE": share, "LIES_AFTER": after, **({"LIES_LINK": kind} if kind else {})}
        return {name: str(value) for name, value in found.items()}

    def lies(self) -> Counter[str]:
        """How often each lie was told."""
        lines = self.told.read_text().splitlines() if self.told.exists() else []
        return Counter(line.partition(" ")[0] for line in lines)


class LateRenames(threading.Thread):
    """Does renames that a program was told are done, up to `most` seconds later; those onto one name in order."""

    def __init__(self, fifo: Path, most: float, seed: int) -> None:
        super().__init__()
        self.fifo = fifo
        self.most = most
        self.done = 0
        self.vanished = 0
        self._random = random.Random(seed)
        self._due: dict[bytes, float] = {}
        self._waiting: list[tuple[float, bytes, bytes]] = []
        self._over = threading.Event()
        os.mkfifo(fifo)
        self._fd = os.open(fifo, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)

    def run(self) -> None:
        while not (self._over.is_set() and not self._hear() and not self._waiting):
            self._hear()
            self._waiting.sort(key=lambda one: one[0])
            while self._waiting and self._waiting[0][0] <= time.monotonic():
                _, old, new = self._waiting.pop(0)
                try:
                    os.rename(old, new)
                    self.done += 1
                except FileNotFoundError:
                    self.vanished += 1
            time.sleep(0.002)
        os.close(self._fd)

    def _hear(self) -> bool:
        try:
            words = os.read(self._fd, 1 << 16).split(b"\0")[:-1]
        except BlockingIOError:
            return False
        for old, new in zip(words[::2], words[1::2], strict=True):
            due = max(time.monotonic() + self._random.uniform(0, self.most), self._due.get(new, 0.0))
            self._due[new] = due
            self._waiting.append((due, old, new))
        return True

    def finish(self) -> None:
        self._over.set()
        self.join()


@contextmanager
def late_renames(fifo: Path, most: float, seed: int) -> Iterator[LateRenames]:
    """Put renames off inside the block; at its end the last of them is done."""
    helper = LateRenames(fifo, most, seed)
    helper.start()
    try:
        yield helper
    finally:
        helper.finish()
