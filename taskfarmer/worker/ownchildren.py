"""The children that code of the user's made in a worker, and the orphans that the worker adopted beside them.

The worker must reap the orphans of a task while the user's code runs it, but the exit status of a child is for the code
that made it, which may wait for it at any time. The kernel does not record which is which. So every function of Python
that makes a process notes what it made; `subprocess`, `multiprocessing` and `pty` end in one of them. A child that a
library in C makes is not noted: its status is lost if it ends while Python code runs.
"""

from __future__ import annotations

import _posixsubprocess
import functools
import os
import subprocess
from collections.abc import Callable, Iterator
from typing import Any

from taskfarmer import procfs
from taskfarmer.proctree import children

_MAKERS: tuple[tuple[Any, str], ...] = (
    (os, "fork"),
    (os, "forkpty"),
    (os, "posix_spawn"),
    (os, "posix_spawnp"),
    (_posixsubprocess, "fork_exec"),
    (subprocess, "_fork_exec"),
)


class OwnChildren:
    """Those of this process. Not for one that it forks, which has no orphans to reap."""

    def __init__(self) -> None:
        self._made: set[int] = set()
        self._making: set[object] = set()  # calls under way: what they made is not noted yet
        self._hidden_behind = 0

    def __iter__(self) -> Iterator[int]:
        return iter(tuple(self._made))

    def __contains__(self, pid: object) -> bool:
        return pid in self._made

    def watch(self) -> None:
        """Note from now on what is made."""
        for module, name in _MAKERS:
            if hasattr(module, name):
                setattr(module, name, self._noting(getattr(module, name)))

    def _noting(self, make: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(make)
        def made(*arguments: Any, **named: Any) -> Any:
            call = object()
            self._making.add(call)
            try:
                result = make(*arguments, **named)
                self._made.add(result[0] if isinstance(result, tuple) else result)
                return result
            finally:
                self._making.discard(call)

        return made

    def reap_others(self) -> None:
        """Take the exit status of orphans, not of our own children. May run in a signal handler."""
        while not self._making:
            try:
                found = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
            except ChildProcessError:
                self._made.clear()
                return
            if found is None:
                return
            if found.si_pid in self._made:
                # mostly it is waited for at once; if not, it hides others
                if found.si_pid == self._hidden_behind:
                    self._reap_each()
                self._hidden_behind = found.si_pid
                return
            _reap(found.si_pid)

    def _reap_each(self) -> None:
        if procfs.sight() == "blind":
            return
        mine = children(os.getpid())
        self._made.intersection_update(mine)
        for pid in mine:
            if pid not in self._made and not self._making:
                _reap(pid)


def _reap(pid: int) -> None:
    try:
        os.waitpid(pid, os.WNOHANG)
    except ChildProcessError:
        pass  # reaped meanwhile, by a signal handler
