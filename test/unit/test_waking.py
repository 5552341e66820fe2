"""A worker waits for tasks to exit and for commands. Each scene is played in a separate process."""

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
from taskfarmer.worker.waking import ExitWatcher


class Scene:
    """A waiting worker: its end of the link and the farmer's, and the processes that it knows."""

    def __init__(self) -> None:
        self.link, self.farmer = socket.socketpair()
        self.running: set[int] = set()
        self.hits: list[int] = []
        signal.signal(signal.SIGUSR1, self.hit)
        self.wakeup, written = os.pipe2(os.O_NONBLOCK)
        signal.set_wakeup_fd(written)
        poll = select.poll()
        poll.register(self.link, select.POLLIN)
        poll.register(self.wakeup, select.POLLIN)
        self.watcher = ExitWatcher(self.running, poll)

    def hit(self, number: int, frame: FrameType | None) -> None:
        self.hits.append(number)

    def begin(self, *argv: str) -> int:
        pid = os.posix_spawnp(argv[0], argv, os.environ, setsigmask=())
        self.running.add(pid)
        self.watcher.add(pid)
        return pid

    def ends(self, count: int) -> list[tuple[int, int]]:
        """Process and status of the next tasks that end."""
        found: list[tuple[int, int]] = []
        end = time.monotonic() + 30
        while len(found) < count and time.monotonic() < end:
            for pid, status, _ in self.watcher.wait(5.0)[0]:
                if pid in self.running:
                    self.running.discard(pid)
                    found.append((pid, status))
        return found


def apart(scene: Callable[[], None]) -> None:
    """Play a scene in a separate process with its signals and children."""
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


def test_the_end_of_a_task_is_reported_with_its_status() -> None:
    def scene() -> None:
        one = Scene()
        pid = one.begin("sh", "-c", "exit 3")
        assert one.ends(1) == [(pid, 3 << 8)]

    apart(scene)


def test_tasks_that_end_at_the_same_time_are_all_reported() -> None:
    def scene() -> None:
        one = Scene()
        pids = {one.begin("true") for _ in range(8)}
        time.sleep(0.5)
        assert {pid for pid, _ in one.ends(8)} == pids

    apart(scene)


def test_an_orphan_that_ends_hides_no_task() -> None:
    def scene() -> None:
        one = Scene()
        strangers = [os.posix_spawnp("true", ["true"], os.environ) for _ in range(3)]
        pid = one.begin("true")
        time.sleep(0.5)
        assert pid not in strangers and one.ends(1) == [(pid, 0)]

    apart(scene)


def test_a_task_that_ends_late_is_awaited() -> None:
    def scene() -> None:
        one = Scene()
        late, soon = one.begin("sleep", "0.5"), one.begin("true")
        assert one.ends(2) == [(soon, 0), (late, 0)]

    apart(scene)


def test_commands_and_the_end_of_the_farmer_wake() -> None:
    def scene() -> None:
        one = Scene()
        one.farmer.send(b"early")
        while not one.watcher.wait(None)[1]:
            pass
        assert one.link.recv(100) == b"early"
        one.farmer.send(b"later")
        while not one.watcher.wait(None)[1]:
            pass
        assert one.link.recv(100) == b"later"
        one.farmer.close()
        while not one.watcher.wait(None)[1]:
            pass
        assert one.link.recv(100) == b""

    apart(scene)


def test_nothing_is_reported_if_nothing_happens_in_time() -> None:
    def scene() -> None:
        one = Scene()
        one.begin("sleep", "10")
        assert one.watcher.wait(0.05) == ([], False)
        assert one.watcher.wait(0) == ([], False)

    apart(scene)


def test_a_stop_signal_reaches_its_handler_and_wakes_the_worker() -> None:
    def scene() -> None:
        one = Scene()
        os.kill(os.getpid(), signal.SIGUSR1)
        assert one.watcher.wait(None) == ([], True)
        assert one.hits == [signal.SIGUSR1]
        os.read(one.wakeup, 100)
        me = os.getpid()
        if not os.fork():  # while it waits
            time.sleep(0.3)
            os.kill(me, signal.SIGUSR1)
            os._exit(0)
        while one.hits != [signal.SIGUSR1] * 2:
            assert one.watcher.wait(None)[0] == []

    apart(scene)


@pytest.mark.parametrize("patience", [0.2, 5.0, None])
def test_a_worker_that_was_stopped_while_it_waited_goes_on(patience: float | None) -> None:
    def scene() -> None:
        one = Scene()
        late = one.begin("sleep", "1.5")
        me = os.getpid()
        if not os.fork():
            time.sleep(0.1)
            os.kill(me, signal.SIGSTOP)
            time.sleep(0.5)
            os.kill(me, signal.SIGCONT)
            os._exit(0)
        ended: list[int] = []
        while late not in ended:
            ended += [pid for pid, _, _ in one.watcher.wait(patience)[0]]

    apart(scene)


def test_signals_are_handled_after_it_was_closed() -> None:
    def scene() -> None:
        one = Scene()
        one.begin("sleep", "10")
        one.watcher.close()
        one.farmer.send(b"order")
        os.kill(os.getpid(), signal.SIGUSR1)
        assert one.hits == [signal.SIGUSR1]
        assert signal.pthread_sigmask(signal.SIG_BLOCK, ()) == set()

    apart(scene)


def test_ends_are_reported_if_the_kernel_has_no_pidfds(monkeypatch: pytest.MonkeyPatch) -> None:
    def none(pid: int) -> int:
        raise OSError

    monkeypatch.setattr(waking.os, "pidfd_open", none)

    def scene() -> None:
        one = Scene()
        late, soon = one.begin("sleep", "0.3"), one.begin("true")
        assert one.ends(2) == [(soon, 0), (late, 0)]

    apart(scene)
