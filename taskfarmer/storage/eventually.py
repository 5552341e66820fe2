"""Waiting until a file is visible here that another node has written.

Network file systems cache names, sizes and contents, so a node may see an old directory or a short file for a while.
Each wait for another node uses this function and one of three patiences.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from typing import TypeVar

from taskfarmer.errors import StaleView

T = TypeVar("T")

FOR_A_NAME = 2.0
"""Seconds until a name or a small file is visible; GlusterFS may answer "exists" and then "not found"."""
FOR_CONTENTS = 60.0
"""Seconds until old contents are replaced; 60 is the default of NFS for its longest cache (nfs(5), acdirmax)."""
FOR_PEOPLE = 5.0
"""Seconds that a command waits for data if its user is waiting for the answer."""


def wait_until_visible(
    action: Callable[[], T],
    patience: float,
    every: float,
    not_yet: type[Exception] | tuple[type[Exception], ...] = StaleView,
    jitter: float = 0.0,
) -> T:
    """The result of `action`, which is repeated while it raises `not_yet`, for at most `patience` seconds.

    The last exception is raised if time runs out. `action` runs once at least. The pauses last `every` seconds, give or
    take `jitter`. If `action` raises another exception, for instance Stopped, the wait ends.
    """
    end = time.monotonic() + patience
    while True:
        try:
            return action()
        except not_yet:
            if time.monotonic() >= end:
                raise
        time.sleep(random.uniform(every - jitter, every + jitter) if jitter else every)
