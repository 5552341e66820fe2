"""A farmer that waits while another one imports the list."""

from __future__ import annotations

import fcntl
import signal
from pathlib import Path

from support.farming import eventually
from support.farms import Farm

STATUS_AGAIN = 75


def catches(pid: int, number: int) -> bool:
    """Whether a process has a handler for a signal (proc(5), SigCgt)."""
    status = Path(f"/proc/{pid}/status").read_text()
    return bool(int(status.partition("SigCgt:")[2].split()[0], 16) >> (number - 1) & 1)


def test_a_signal_stops_a_farmer_that_waits_for_the_import_of_another(farm: Farm) -> None:
    farm.write("true")
    farm.workdir.mkdir()
    # the importing farmer holds this lock during the import
    with open(farm.workdir / "lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        farmer = farm.start("-n", 1)
        eventually(lambda: catches(farmer.pid, signal.SIGUSR1), "the farmer handles signals")
        farmer.signal(signal.SIGUSR1)
        assert farmer.wait(60) == STATUS_AGAIN, farmer.said
    assert "stopped by a signal" in farmer.said
    assert not (farm.workdir / "farm.json").exists()
    assert farm.run("-n", 1).wait() == 0
    assert farm.check().finished == {0}
