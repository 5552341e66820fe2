"""Tasks have no terminal: they get no signals from its keys or its hangup, and cannot read from it."""

from __future__ import annotations

import os
import sys

from support.farms import Farm

# starts a command as the session leader of a new terminal; exits with the command's status
WITH_TERMINAL = """
import os, pty, sys
pid, terminal = pty.fork()
if not pid:
    os.execv(sys.argv[1], sys.argv[1:])
try:
    while os.read(terminal, 4096):
        pass
except OSError:  # the last process has closed it
    pass
sys.exit(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
"""
LOOK = (
    "cut -d ' ' -f 5-7 /proc/$$/stat; echo $$ $(cut -d ' ' -f 6 /proc/$PPID/stat); "
    "(: < /dev/tty) 2> /dev/null || echo none"
)


def parse_ids(text: str) -> tuple[int, int, int, int, int]:
    """Process group, session and terminal of a task, its pid, and the session of its worker."""
    group, session, terminal, pid, workers, tty = text.split()
    assert tty == "none"
    return int(group), int(session), int(terminal), int(pid), int(workers)


def test_tasks_of_a_farmer_with_a_terminal_run_in_a_session_without_one(farm: Farm) -> None:
    farm.write(LOOK)
    farmer = farm.start("-n", 1, "-q", before=[sys.executable, "-c", WITH_TERMINAL])
    assert farmer.wait() == 0, farmer.said
    group, session, terminal, pid, workers = parse_ids(farm.log(0))
    assert (group, terminal) == (pid, 0)
    assert session == workers != os.getsid(0)


def test_tasks_of_a_farmer_without_a_terminal_run_in_its_session_and_in_private_groups(farm: Farm) -> None:
    farm.write(LOOK)
    farmer = farm.start("-n", 1, before=["setsid", "--wait"])
    assert farmer.wait() == 0, farmer.said
    group, session, terminal, pid, workers = parse_ids(farm.log(0))
    assert (group, terminal) == (pid, 0)
    assert session == workers == farmer.pid
