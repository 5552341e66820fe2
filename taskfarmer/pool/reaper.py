"""The process between a farmer and a worker in which code of the user's runs.

That code may wait for children of its own at any time, so the worker cannot reap the orphans of its task: it cannot
tell them from the children of the code, whose exit status nobody else may take. The reaper adopts the orphans in its
place, and takes the exit status of each at once. It passes on the signals of the farmer, ends with its worker, and
ends like it: what is left below it then is killed.
"""

from __future__ import annotations

import os
import resource
import signal
import time

from taskfarmer.pool.processes import Tree, adopt_orphans, die_with, send
from taskfarmer.signals import END_NOW

_FOR_THE_WORKER = frozenset((signal.SIGTERM, END_NOW, signal.SIGCONT))
_MOMENT = 0.5
"""Seconds for which the worker must be stopped until we stop, too."""
_HEARD = _FOR_THE_WORKER | {signal.SIGCHLD}


def fork_worker(farmer: int, link: int) -> int:
    """Fork. Returns the reaper's number in the child, which is to become the worker; the reaper does not return.

    The reaper closes the `link` to the farmer, who sees by its end when the worker is gone.
    """
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    adopt_orphans()
    reaper = os.getpid()
    worker = os.fork()
    if not worker:
        os.setpgid(0, 0)
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        return reaper
    os.close(link)
    die_with(farmer)
    status = _wait_for(worker, farmer)
    # orphans that are not in the worker's group are found by /proc
    Tree(groups=lambda: (worker,)).end(time.monotonic())
    _end_like(status)
    raise AssertionError("unreachable")


def _wait_for(worker: int, farmer: int) -> int:
    """Reap until the worker has ended; its wait status."""
    while True:
        told = signal.sigwaitinfo(_HEARD)
        if told.si_signo == signal.SIGCHLD and _is_stopped(worker):
            _stop_with(worker)
        # one that is sent to all of a job step reaches the worker without us
        if told.si_signo in _FOR_THE_WORKER and told.si_pid in (farmer, os.getpid()):
            send(worker, told.si_signo)
        while (ended := os.waitpid(-1, os.WNOHANG))[0]:
            if ended[0] == worker:
                return ended[1]


def _stop_with(worker: int) -> None:
    """Stop like the worker, so that the farmer sees it. SIGCONT for this process is one for the worker, too."""
    time.sleep(_MOMENT)  # a job that is suspended and goes on gets the signal for all of its processes
    if _is_stopped(worker):
        os.kill(os.getpid(), signal.SIGSTOP)
        send(worker, signal.SIGCONT)


def _is_stopped(worker: int) -> bool:
    found = os.waitid(os.P_PID, worker, os.WSTOPPED | os.WEXITED | os.WNOHANG | os.WNOWAIT)
    return found is not None and found.si_code == os.CLD_STOPPED


def _end_like(status: int) -> None:
    """Exit with a wait status: by the same signal, but without another core file."""
    if os.WIFSIGNALED(status):
        number = os.WTERMSIG(status)
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        if number != signal.SIGKILL:
            signal.signal(number, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, (number,))
        os.kill(os.getpid(), number)
    os._exit(os.waitstatus_to_exitcode(status) & 0xFF)
