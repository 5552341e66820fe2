"""When a farmer is stopped at any point of its life, no process survives, and all unfinished tasks are released."""

from __future__ import annotations

import fcntl
import os
import signal
import time
from pathlib import Path

import pytest

from support.farming import eventually
from support.farms import Farm, Farmer

AGAIN = 75
STOPS = ["SIGUSR1", "SIGTERM", "SIGINT"]

# Each of these runs for a thousand seconds at its first attempt and resists termination in a different way.
STUBBORN = {
    "plain": "sleep 1000",
    "a program without a shell": "",
    "ignores SIGTERM": "trap '' TERM; while :; do sleep 0.2; done",
    "its child ignores SIGTERM": "(trap '' TERM; while :; do sleep 0.2; done) & wait",
    "calls setsid": "setsid --wait sleep 1000",
    "leaves a process in another session": "setsid sleep 1000 & sleep 1000",
    "forks twice": "(setsid sleep 1000 &) ; sleep 1000",
    "forks twice and ignores SIGTERM": "(trap '' TERM HUP; setsid sleep 1000 & ) ; sleep 1000",
    "the parent is gone": "(trap '' TERM; setsid bash -c 'sleep 1000 & sleep 1000' &) ; exec sleep 1000",
    "is stopped": "kill -STOP $$; sleep 1000",
    "its child is stopped": "(kill -STOP $BASHPID; sleep 1000) & wait; sleep 1000",
    "starts more when asked to end": "trap 'sleep 1000 & sleep 1000 & wait' TERM; sleep 1000 & wait; sleep 1000",
}


def stubborn(farm: Farm, kind: str) -> str:
    """A task that resists termination at its first attempt, and finishes at its second."""
    if not STUBBORN[kind]:
        program = farm.folder / "program"
        program.write_text(
            f"#!/bin/bash\n[ $TASKFARMER_ATTEMPT = 1 ] || exit 0\n: > {farm.started}/$PROC_NUMBER\nsleep 1000\n"
        )
        program.chmod(0o755)
        return str(program)
    return f"[ $TASKFARMER_ATTEMPT = 1 ] || exit 0; {farm.marked(STUBBORN[kind])}"


def wait_until_held(farmer: Farmer) -> None:
    """Wait until the program in front of the farmer, or the farmer itself, has blocked SIGUSR1."""
    bit = 1 << (signal.SIGUSR1 - 1)

    def held() -> bool:
        for line in Path(f"/proc/{farmer.pid}/status").read_text().splitlines():
            if line.startswith("SigBlk:"):
                return bool(int(line.split()[1], 16) & bit)
        return False

    eventually(held, "SIGUSR1 is held", every=0.0005)


def nothing_lost(farm: Farm, tasks: int) -> None:
    """The next farmer runs the released tasks, and every task is recorded once."""
    assert farm.run("-n", 8).wait() == 0
    farm.no_survivors()
    assert farm.places() == ([], list(range(tasks)), [])
    assert len(farm.check().finished) == tasks


@pytest.mark.parametrize("stop", [*STOPS, "SIGHUP", "--timeout"])
def test_a_farmer_with_full_slots_stops_its_tasks_and_releases_all(farm: Farm, stop: str) -> None:
    farm.write(*(stubborn(farm, kind) for kind in STUBBORN), *["sleep 0"] * 100)
    full = len(STUBBORN)
    farmer = farm.start("-n", full, "--grace", 1, *(["--timeout", 3] if stop == "--timeout" else []))
    farm.wait_for_tasks(*range(full))
    if stop != "--timeout":
        farmer.signal(signal.Signals[stop])
    assert farmer.wait() == AGAIN
    farm.no_survivors()
    assert f"{stop}: " in farmer.said
    assert farm.places() == (list(range(full + 100)), [], [])
    report = farm.check()
    assert {line.outcome for line in report.lines} == {"returned"}
    assert {report.attempts[task] for task in range(full)} == {2}
    nothing_lost(farm, full + 100)
    assert farm.attempts(0) == [(1, "returned"), (2, "finished")]


def test_64_tasks_that_ignore_sigterm_are_killed_together(farm: Farm) -> None:
    kinds = [kind for kind in STUBBORN if "ignores" in kind]
    farm.write(*(stubborn(farm, kinds[number % len(kinds)]) for number in range(64)))
    farmer = farm.start("-n", 64, "--grace", 1)
    farm.wait_for_tasks(*range(64))
    begin = time.monotonic()
    farmer.signal(signal.SIGUSR1)
    assert farmer.wait() == AGAIN
    assert time.monotonic() - begin < 15
    farm.no_survivors()
    assert farm.places() == (list(range(64)), [], [])
    nothing_lost(farm, 64)


def test_a_task_that_succeeds_within_the_grace_time_is_finished(farm: Farm) -> None:
    farm.write(
        farm.marked("trap 'sleep 0.3; echo saved; exit 0' TERM; sleep 1000 & wait"),
        farm.marked("trap 'exit 5' TERM; sleep 1000 & wait"),
        farm.marked("sleep 1000"),
    )
    farmer = farm.start("-n", 3)
    farm.wait_for_tasks(0, 1, 2)
    farmer.signal(signal.SIGTERM)
    assert farmer.wait() == AGAIN
    farm.no_survivors()
    assert farm.places() == ([1, 2], [0], [])
    assert "saved\n" in farm.log(0)
    farm.check()


def test_a_task_that_ignores_sigterm_has_the_whole_grace_time(farm: Farm) -> None:
    farm.write("trap '' TERM; " + farm.marked("sleep 1.5; echo done"))
    farmer = farm.start("--grace", 10)
    farm.wait_for_tasks(0)
    farmer.signal(signal.SIGUSR1)
    assert farmer.wait() == 0
    assert farm.places() == ([], [0], [])


@pytest.mark.parametrize("pair", ["SIGUSR1 SIGUSR1", "SIGUSR1 SIGTERM", "SIGTERM SIGTERM", "SIGINT SIGTERM"])
def test_a_second_stop_changes_nothing(farm: Farm, pair: str) -> None:
    first, second = (signal.Signals[name] for name in pair.split())
    farm.write(farm.marked("trap 'sleep 1; exit 0' TERM; sleep 1000 & wait"), stubborn(farm, "ignores SIGTERM"), "true")
    farmer = farm.start("-n", 2, "--grace", 5)
    farm.wait_for_tasks(0, 1)
    farmer.signal(first)
    farmer.says(f"{first.name}: ")
    farmer.signal(second)
    assert farmer.wait() == AGAIN
    farm.no_survivors()
    assert farm.places() == ([1, 2], [0], [])
    farm.check()


def test_a_second_sigint_is_immediate(farm: Farm) -> None:
    farm.write(*(stubborn(farm, kind) for kind in STUBBORN), "true")
    full = len(STUBBORN)
    farmer = farm.start("-n", full, "--grace", 600)
    farm.wait_for_tasks(*range(full))
    farmer.signal(signal.SIGINT)
    farmer.says("SIGINT: ")
    begin = time.monotonic()
    farmer.signal(signal.SIGINT)
    assert farmer.wait() == AGAIN
    assert time.monotonic() - begin < 60  # not the grace time
    farm.no_survivors()
    assert farm.places() == (list(range(full + 1)), [], [])
    nothing_lost(farm, full + 1)


@pytest.mark.parametrize("stop", STOPS)
def test_a_farmer_stopped_during_startup_leaves_its_farm_intact(farm: Farm, stop: str) -> None:
    """The signal is pending before our first statement; `env` blocks it, as in the examples."""
    farm.write(*["sleep 1000"] * 20)
    farmer = farm.start("-n", 4, "--grace", 1, before=["env", "--block-signal=USR1,TERM,INT"])
    wait_until_held(farmer)
    farmer.signal(signal.Signals[stop])
    assert farmer.wait() == AGAIN
    farm.no_survivors()
    assert farm.places() == (list(range(20)), [], [])
    farm.check()


def test_signals_that_arrive_continuously_from_the_start_lose_no_task(farm: Farm) -> None:
    """One signal follows the other during all states of the farmer, until it exits."""
    farm.write(*(farm.marked("echo $TASKFARMER_ATTEMPT; sleep 0.01") for _ in range(60)))
    for number in range(12):
        farmer = farm.start("-n", 4, "--grace", 1, before=["env", "--block-signal=USR1"])
        wait_until_held(farmer)
        # each farmer gets further than the one before it
        end = time.monotonic() + number * 0.04
        while time.monotonic() < end and not farmer.ended:
            time.sleep(0.005)
        while not farmer.ended:
            farmer.signal(signal.SIGUSR1)
            time.sleep(0.002)
        assert farmer.wait() in (AGAIN, 0), farmer.said
        assert "Traceback" not in farmer.said
        farm.no_survivors()
        farm.check()
    nothing_lost(farm, 60)


def test_a_farmer_started_with_nohup_outlives_its_terminal(farm: Farm) -> None:
    """SIGHUP is ignored from the start, as with `nohup`."""
    go = farm.folder / "go"
    farm.write(farm.marked(f"while ! [ -e {go} ]; do sleep 0.02; done"), "true")
    farmer = farm.start("-n", 1, before=["env", "--ignore-signal=HUP"])
    farm.wait_for_tasks(0)
    farmer.signal(signal.SIGHUP)
    go.touch()
    assert farmer.wait() == 0
    assert "SIGHUP" not in farmer.said
    assert farm.places() == ([], [0, 1], [])


def test_a_farmer_that_gets_a_signal_during_shutdown_completes_the_shutdown(farm: Farm) -> None:
    """The test holds the farm's lock, so that the signal reaches the farmer between its last task and its exit."""
    go = farm.folder / "go"
    farm.write(farm.marked(f"while ! [ -e {go} ]; do sleep 0.02; done"), "true")
    farmer = farm.start("-n", 2)
    farm.wait_for_tasks(0)
    with open(farm.workdir / "lock", "r+b") as lock:
        eventually(lambda: _locked(lock.fileno()), "the farm's lock is free")
        go.touch()
        eventually(lambda: not farmer.workers(), "the workers are gone")
        assert not farmer.ended, farmer.said
        for stop in (*STOPS, *STOPS):
            farmer.signal(signal.Signals[stop])
            time.sleep(0.05)
    assert farmer.wait() == 0
    farm.no_survivors()
    assert farm.places() == ([], [0, 1], [])
    farm.check()


def _locked(fd: int) -> bool:
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


@pytest.mark.parametrize("call", ["link", "fsync", "rename", "unlink"])
def test_a_signal_does_not_interrupt_a_commit(farm: Farm, strace: list[str], call: str) -> None:
    """strace sends the signal during the system call, repeatedly."""
    farm.write(*["true"] * 30)
    for first in range(1, 13, 2):
        stop = ["-e", f"trace={call}", "-e", f"inject={call}:signal=USR1:when={first}+3"]
        farmer = farm.run("-n", 2, "--grace", 1, before=[*strace, *stop])
        assert farmer.wait() in (0, AGAIN), farmer.said
        assert "Traceback" not in farmer.said
        farm.no_survivors()
        farm.check()
    nothing_lost(farm, 30)


def test_a_farmer_that_times_out_before_any_task_ran_releases_all_tasks(farm: Farm) -> None:
    farm.write(*["sleep 1000"] * 5)
    farmer = farm.run("--timeout", "0.01", "--grace", 1)
    assert farmer.wait() == AGAIN
    assert farm.places() == (list(range(5)), [], [])
    farm.no_survivors()


def test_a_farmer_that_exits_leaves_no_files_except_its_description(farm: Farm) -> None:
    farm.write(*[farm.marked("sleep 1000")] * 3)
    farmer = farm.start("-n", 3, "--grace", 1)
    farm.wait_for_tasks(0, 1, 2)
    farmer.signal(signal.SIGUSR1)
    assert farmer.wait() == AGAIN
    names = {name.partition(".")[2] for name in os.listdir(farm.workdir / "farmers")}
    assert names <= {"json"}, names
    assert not [name for name in os.listdir(farm.workdir) if name.startswith(".")]


def test_programs_that_a_task_starts_to_save_its_state_are_not_terminated(farm: Farm) -> None:
    """SIGTERM goes to processes that run when the farmer stops, not to programs that a trap starts to save state."""
    farm.write(
        f"[ -e saved ] && exit 0; trap 'sleep 0.7; echo whole > part; sleep 0.7; mv part saved; exit 1' TERM; "
        f"{farm.marked('while :; do sleep 0.1; done')}"
    )
    farmer = farm.start("--grace", 30)
    farm.wait_for_tasks(0)
    farmer.signal(signal.SIGUSR1)
    assert farmer.wait() == AGAIN, farmer.said
    assert (farm.folder / "saved").read_text() == "whole\n"
    assert farm.run().wait() == 0
