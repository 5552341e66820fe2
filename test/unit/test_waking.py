"""How a worker notices when tasks end or orders arrive: each way, in a separate process."""

from __future__ import annotations

import os
import select
import signal
import socket
import time
import traceback
from collections.abc import Callable
from types import FrameType

import pytest

from taskfarmer.worker import waking
from taskfarmer.worker.waking import ByDescriptors, BySignals, Waking


class Scene:
    """A waiting worker: its end of the link and the farmer's, and the processes that it knows."""

    def __init__(self, kind: type[Waking]) -> None:
        self.link, self.farmer = socket.socketpair()
        self.running: set[int] = set()
        self.hits: list[int] = []
        signal.signal(signal.SIGUSR1, self.hit)
        self.wakeup, written = os.pipe2(os.O_NONBLOCK)
        signal.set_wakeup_fd(written)
        if kind is BySignals:
            self.waking: Waking = BySignals(self.running, (self.link.fileno(), self.wakeup))
            assert self.waking.wait(None) == ([], True)  # the check for earlier events
        else:
            poll = select.poll()
            poll.register(self.link, select.POLLIN)
            poll.register(self.wakeup, select.POLLIN)
            self.waking = ByDescriptors(self.running, poll)

    def hit(self, number: int, frame: FrameType | None) -> None:
        self.hits.append(number)

    def start_process(self, *argv: str) -> int:
        pid = os.posix_spawnp(argv[0], argv, os.environ, setsigmask=())
        self.running.add(pid)
        self.waking.begun(pid)
        return pid

    def ends(self, count: int) -> list[tuple[int, int]]:
        """Process and status of the next tasks that end."""
        found: list[tuple[int, int]] = []
        end = time.monotonic() + 30
        while len(found) < count and time.monotonic() < end:
            for pid, status, _ in self.waking.wait(5.0)[0]:
                if pid in self.running:
                    self.running.discard(pid)
                    found.append((pid, status))
        return found


def run_in_child(scene: Callable[[], None]) -> None:
    """Run a scene in a separate process, with private signals and children."""
    child = os.fork()
    if not child:
        status = 1
        try:
            signal.pthread_sigmask(signal.SIG_SETMASK, ())
            scene()
            status = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(status)
    assert os.waitpid(child, 0)[1] == 0, "the scene failed; what it said is above"


KINDS = pytest.mark.parametrize("kind", [BySignals, ByDescriptors])


@KINDS
def test_the_end_of_a_task_is_reported_with_its_status(kind: type[Waking]) -> None:
    def scene() -> None:
        one = Scene(kind)
        pid = one.start_process("sh", "-c", "exit 3")
        assert one.ends(1) == [(pid, 3 << 8)]

    run_in_child(scene)


@KINDS
def test_tasks_that_end_at_the_same_time_are_all_reported(kind: type[Waking]) -> None:
    def scene() -> None:
        one = Scene(kind)
        pids = {one.start_process("true") for _ in range(8)}
        time.sleep(0.5)  # one signal may be for all of them
        assert {pid for pid, _ in one.ends(8)} == pids

    run_in_child(scene)


@KINDS
def test_an_orphan_that_ends_hides_no_task(kind: type[Waking]) -> None:
    def scene() -> None:
        one = Scene(kind)
        strangers = [os.posix_spawnp("true", ["true"], os.environ) for _ in range(3)]
        pid = one.start_process("true")
        time.sleep(0.5)
        assert pid not in strangers and one.ends(1) == [(pid, 0)]

    run_in_child(scene)


@KINDS
def test_a_task_that_ends_late_is_awaited(kind: type[Waking]) -> None:
    def scene() -> None:
        one = Scene(kind)
        late, soon = one.start_process("sleep", "0.5"), one.start_process("true")
        assert one.ends(2) == [(soon, 0), (late, 0)]

    run_in_child(scene)


@KINDS
def test_orders_and_the_death_of_the_farmer_wake_the_worker(kind: type[Waking]) -> None:
    def scene() -> None:
        one = Scene(kind)
        one.farmer.send(b"early")
        while not one.waking.wait(None)[1]:
            pass
        assert one.link.recv(100) == b"early"
        one.farmer.send(b"later")
        while not one.waking.wait(None)[1]:
            pass
        assert one.link.recv(100) == b"later"
        one.farmer.close()
        while not one.waking.wait(None)[1]:
            pass
        assert one.link.recv(100) == b""

    run_in_child(scene)


def test_this_system_signals_orders_and_the_probe_leaves_no_handlers() -> None:
    def scene() -> None:
        assert waking.orders_are_signalled()
        assert signal.getsignal(signal.SIGIO) == signal.SIG_DFL
        assert signal.pthread_sigmask(signal.SIG_BLOCK, ()) == set()

    run_in_child(scene)


def test_a_system_without_signals_for_orders_is_detected(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(waking, "_signalled", lambda fd, on: None)

    def scene() -> None:
        assert not waking.orders_are_signalled()

    run_in_child(scene)


def test_an_order_that_arrived_before_signals_were_enabled_is_found() -> None:
    def scene() -> None:
        link, farmer = socket.socketpair()
        farmer.send(b"early")
        assert BySignals(set(), [link.fileno()]).wait(None) == ([], True)
        assert link.recv(100) == b"early"

    run_in_child(scene)


def test_free_space_in_the_buffer_of_a_busy_farmer_wakes_the_worker() -> None:
    def scene() -> None:
        one = Scene(BySignals)
        with pytest.raises(BlockingIOError):
            while True:
                one.link.send(bytes(10_000), socket.MSG_DONTWAIT)
        assert one.waking.wait(0.2) == ([], False)
        while select.select([one.farmer], [], [], 0)[0]:
            one.farmer.recv(100_000)
        assert one.waking.wait(30.0) == ([], True)

    run_in_child(scene)


@KINDS
def test_after_the_timeout_no_events_are_reported(kind: type[Waking]) -> None:
    def scene() -> None:
        one = Scene(kind)
        one.start_process("sleep", "10")
        assert one.waking.wait(0.05) == ([], False)
        assert one.waking.wait(0) == ([], False)

    run_in_child(scene)


@KINDS
def test_a_stop_signal_reaches_its_handler_and_wakes_the_worker(kind: type[Waking]) -> None:
    def scene() -> None:
        one = Scene(kind)
        os.kill(os.getpid(), signal.SIGUSR1)
        assert one.waking.wait(None) == ([], True)
        assert one.hits == [signal.SIGUSR1]
        os.read(one.wakeup, 100)
        me = os.getpid()
        if not os.fork():  # while it waits
            time.sleep(0.3)
            os.kill(me, signal.SIGUSR1)
            os._exit(0)
        while one.hits != [signal.SIGUSR1] * 2:
            assert one.waking.wait(None)[0] == []

    run_in_child(scene)


@KINDS
@pytest.mark.parametrize("patience", [0.2, 5.0, None])
def test_a_worker_that_was_stopped_while_it_waited_continues(kind: type[Waking], patience: float | None) -> None:
    def scene() -> None:
        one = Scene(kind)
        late = one.start_process("sleep", "1.5")
        me = os.getpid()
        if not os.fork():
            time.sleep(0.1)
            os.kill(me, signal.SIGSTOP)
            time.sleep(0.5)
            os.kill(me, signal.SIGCONT)
            os._exit(0)
        ended: list[int] = []
        while late not in ended:
            ended += [pid for pid, _, _ in one.waking.wait(patience)[0]]

    run_in_child(scene)


@KINDS
def test_afterwards_signals_are_handled_as_they_come(kind: type[Waking]) -> None:
    def scene() -> None:
        one = Scene(kind)
        one.start_process("sleep", "10")
        one.waking.close()
        one.farmer.send(b"order")
        os.kill(os.getpid(), signal.SIGUSR1)
        assert one.hits == [signal.SIGUSR1]
        assert signal.pthread_sigmask(signal.SIG_BLOCK, ()) == set()

    run_in_child(scene)


def test_ends_of_tasks_are_reported_if_the_kernel_has_no_pidfds(monkeypatch: pytest.MonkeyPatch) -> None:
    def none(pid: int) -> int:
        raise OSError

    monkeypatch.setattr(waking.os, "pidfd_open", none)

    def scene() -> None:
        one = Scene(ByDescriptors)
        late, soon = one.start_process("sleep", "0.3"), one.start_process("true")
        assert one.ends(2) == [(soon, 0), (late, 0)]

    run_in_child(scene)
