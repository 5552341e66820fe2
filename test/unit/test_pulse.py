"""Between file operations a farmer sends heartbeats, forwards a signal, and aborts an operation that takes too long."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator

import pytest

from taskfarmer.errors import Stopped
from taskfarmer.farmer import pulse as module
from taskfarmer.farmer.pulse import LEAST, LEAVE, VIEWS, WORK, Pulse
from taskfarmer.signals import STOPS, Signals, release


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(module, "time", clock)
    return clock


@pytest.fixture
def signals() -> Iterator[Signals]:
    before = {number: signal.getsignal(number) for number in (*STOPS, signal.SIGCHLD)}
    arrived = Signals()
    try:
        yield arrived
    finally:
        arrived.restore()
        for number, handler in before.items():
            signal.signal(number, handler)
        release()


@pytest.fixture
def pulse(signals: Signals, clock: Clock) -> Pulse:
    return Pulse(signals)


def beat_through(pulse: Pulse, clock: Clock, seconds: float, step: float = 0.1) -> float:
    """Do operations that take `step` each; how many seconds passed until they were aborted."""
    begin = clock.now
    while clock.now - begin < seconds:
        clock.now += step
        try:
            pulse()
        except Stopped:
            return clock.now - begin
    return seconds


def test_without_a_signal_no_operation_is_aborted(pulse: Pulse, clock: Clock) -> None:
    beats: list[float] = []
    pulse.beat = beats.append
    assert beat_through(pulse, clock, 1000, step=10) == 1000
    assert len(beats) == 100
    assert not pulse.interrupted


@pytest.mark.parametrize(("seconds", "name"), [(None, WORK), (LEAVE, LEAVE), (VIEWS, VIEWS)])
def test_after_a_signal_each_kind_of_work_has_its_time_limit(
    pulse: Pulse, signals: Signals, clock: Clock, seconds: float | None, name: float
) -> None:
    heard: list[float] = []
    pulse.on_signal = heard.append
    if seconds is not None:
        pulse.allow(seconds)
    signals.since = clock.now
    assert beat_through(pulse, clock, 100) == pytest.approx(name, abs=0.2)
    assert heard[0] == pytest.approx(signals.since + 0.1)
    assert pulse.interrupted


def test_a_farmer_whose_tasks_had_a_long_grace_time_may_leave_by_a_commit(
    pulse: Pulse, signals: Signals, clock: Clock
) -> None:
    signals.since = clock.now
    clock.now += 60
    pulse.allow(LEAVE)
    assert beat_through(pulse, clock, 100) == pytest.approx(LEAST, abs=0.2)


def test_a_farmer_whose_file_operations_take_long_may_not_leave_by_a_commit(
    pulse: Pulse, signals: Signals, clock: Clock
) -> None:
    signals.since = clock.now
    clock.now += 60
    pulse.allow(LEAVE)
    assert beat_through(pulse, clock, 100, step=2.0) == 2.0


def test_the_recorded_time_is_that_of_the_first_signal(signals: Signals) -> None:
    assert signals.since is None
    before = time.monotonic()
    os.kill(os.getpid(), signal.SIGUSR1)
    first = signals.since
    assert first is not None
    assert before <= first <= time.monotonic()
    os.kill(os.getpid(), signal.SIGTERM)
    assert signals.since == first
    assert signals.arrived == [signal.SIGUSR1, signal.SIGTERM]
