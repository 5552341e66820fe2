"""Tell the children of a custom runner from the orphans that its worker has adopted.

A worker must reap orphans while a custom runner runs a task. But the exit status of a child belongs to the code that
started it, which may wait for it at any time. The kernel does not record which child is which. So each function of
Python that starts a process is wrapped, and the wrapper records the process; `subprocess`, `multiprocessing` and `pty`
all call one of them. A child that a C library starts is not recorded: its status is lost if it ends while Python code
runs.
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

_SPAWNERS: tuple[tuple[Any, str], ...] = (
    (os, "fork"),
    (os, "forkpty"),
    (os, "posix_spawn"),
    (os, "posix_spawnp"),
    (_posixsubprocess, "fork_exec"),
    (subprocess, "_fork_exec"),
)


class OwnChildren:
    """The recorded children of this process. A process that it forks must not use them."""

    def __init__(self) -> None:
        self._pids: set[int] = set()
        self._calls: set[object] = set()  # calls in progress, whose children are not recorded yet
        self._in_front = 0  # a child of the runner that `waitid` reported the last time

    def __iter__(self) -> Iterator[int]:
        return iter(tuple(self._pids))

    def __contains__(self, pid: object) -> bool:
        return pid in self._pids

    def watch(self) -> None:
        """Wrap the functions that start processes."""
        for module, name in _SPAWNERS:
            if hasattr(module, name):
                setattr(module, name, self._recording(getattr(module, name)))

    def _recording(self, spawn: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(spawn)
        def wrapper(*arguments: Any, **named: Any) -> Any:
            call = object()
            self._calls.add(call)
            try:
                result = spawn(*arguments, **named)
                self._pids.add(result[0] if isinstance(result, tuple) else result)
                return result
            finally:
                self._calls.discard(call)

        return wrapper

    def reap_others(self) -> bool:
        """Reap orphans, but no recorded children; returns whether there were any. May run in a signal handler."""
        any_reaped = False
        while not self._calls:
            try:
                found = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
            except ChildProcessError:
                self._pids.clear()
                return any_reaped
            if found is None:
                return any_reaped
            if found.si_pid in self._pids:
                # mostly the runner waits for it at once; if not, the orphans after it are reaped one by one
                if found.si_pid == self._in_front:
                    self._reap_each()
                self._in_front = found.si_pid
                return any_reaped
            _reap(found.si_pid)
            any_reaped = True
        return any_reaped

    def _reap_each(self) -> None:
        if procfs.sight() == "blind":
            return
        pids = children(os.getpid())
        self._pids.intersection_update(pids)
        for pid in pids:
            if pid not in self._pids and not self._calls:
                _reap(pid)


def _reap(pid: int) -> None:
    try:
        os.waitpid(pid, os.WNOHANG)
    except ChildProcessError:
        pass  # a signal handler has reaped it
