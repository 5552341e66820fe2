"""Processes that no signal ends, because they wait inside the kernel when a file system does not respond."""

from __future__ import annotations

import signal
import time
from pathlib import Path

from support.farming import eventually
from support.farms import Farm

STATUS_AGAIN = 75


def name(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/comm").read_text().strip()
    except OSError:
        return ""


def keeps_waiting(pid: int) -> bool:
    """Whether a process sleeps inside the kernel for a second."""
    for _ in range(10):
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except OSError:
            return False
        if state not in "SD":
            return False
        time.sleep(0.1)
    return True


def test_a_process_that_survives_sigkill_is_awaited_for_a_while_and_reported(farm: Farm, hung: Path) -> None:
    farm.write(farm.marked(f"exec cat {hung}"), farm.marked("sleep 1000"), "true")
    farmer = farm.start("-n", 2, "--grace", 1)
    farm.wait_for_tasks(0, 1)
    (stuck,) = eventually(lambda: [pid for pid in farm.processes() if name(pid) == "cat"], "the task reads the file")
    eventually(lambda: keeps_waiting(stuck), "the task waits for the file system")
    begin = time.monotonic()
    farmer.signal(signal.SIGUSR1)
    assert farmer.wait(40) == STATUS_AGAIN, farmer.said
    assert time.monotonic() - begin < 30
    assert "could not kill processes" in farmer.said
    assert str(stuck) in farmer.said
    assert farm.processes() == [stuck]
    assert farm.places() == ([0, 1, 2], [], [])
    assert farm.check().problems == []
