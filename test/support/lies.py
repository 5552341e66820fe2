"""The Python side of lies.c: its variables, the false replies that it gave, and the renames that it delays."""

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
    """False replies about the names below `under`; each of them is a line of the file `told`."""

    shim: Path
    under: Path
    told: Path

    def variables(self, kind: str = "", share: int = 100, seed: int = 0, after: int = 0) -> dict[str, str]:
        """The environment of one program. `kind` selects the false replies to `link`, see lies.c."""
        found = {"LD_PRELOAD": self.shim, "LIES_UNDER": self.under, "LIES_TOLD": self.told, "LIES_SEED": seed}
        found |= {"LIES_SHARE": share, "LIES_AFTER": after, **({"LIES_LINK": kind} if kind else {})}
        return {name: str(value) for name, value in found.items()}

    def lies(self) -> Counter[str]:
        """How often each false reply was given."""
        lines = self.told.read_text().splitlines() if self.told.exists() else []
        return Counter(line.partition(" ")[0] for line in lines)


class LateRenames(threading.Thread):
    """Carries out renames up to `most` seconds after they were reported as done; those onto one name stay in order."""

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
        while not (self._over.is_set() and not self._receive() and not self._waiting):
            self._receive()
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

    def _receive(self) -> bool:
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
    """Delay renames inside the block; all of them are done when it ends."""
    helper = LateRenames(fifo, most, seed)
    helper.start()
    try:
        yield helper
    finally:
        helper.finish()
