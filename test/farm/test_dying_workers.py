"""Workers that die or are stopped without a request of their farmer: no task is retried for ever, and none is lost.

Pauses and checks of the product take seconds. Tests start farmers with shorter ones if only their order matters.
"""

from __future__ import annotations

import json
import signal
import sys
from pathlib import Path

import pytest

from support.farming import eventually, is_running, send, tree
from support.farms import Farm, Farmer
from taskfarmer.formats.intervals import parse_intervals

STATUS_TROUBLE, STATUS_AGAIN = 74, 75
HURRIED = """
import sys
from taskfarmer.pool import deaths, pool
from taskfarmer.start import taskfarmer
deaths.START_PAUSE, pool.CHECK_EVERY, pool.AWAIT_STOP = map(float, sys.argv[1:4])
sys.argv[1:4] = ['run']
taskfarmer()
"""
RUNNERS = """
import ctypes, os, signal, socket, sys, time
from taskfarmer.runners import BasicRunner, Runner

def again():
    return os.environ['TASKFARMER_ATTEMPT'] != '1'

class Bad(Runner):
    '''Each word names a failure of a runner at the first attempt; the second attempt succeeds.'''

    def run(self, taskid, command, logfh):
        open('ran-%d' % taskid, 'a').write('x')
        return 0 if again() else getattr(self, command.split()[0])()

    def true(self):
        return 0

    def leave(self):
        os._exit(0)

    def crash(self):
        ctypes.string_at(0)

    def kill(self):
        os.kill(os.getpid(), signal.SIGKILL)

    def term(self):
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(0.1)
        return 1

    def endless(self):
        os.kill(os.getpid(), signal.SIGTERM)
        while True:
            pass

    def execute(self):
        os.execvp('sleep', ['sleep', '1000'])

    def close(self):
        os.closerange(3, 256)
        return 0

    def reuse(self):
        os.closerange(3, 256)
        self.kept = [os.open(os.devnull, os.O_RDONLY) for _ in range(64)]
        return 0

    def orphan(self):
        # a child that inherits the worker's pipe and keeps running
        if not os.fork():
            time.sleep(1000)
            os._exit(0)
        os.kill(os.getpid(), signal.SIGKILL)

    def both(self):
        os.fork()
        return 0

    def child(self):
        pid = os.fork()
        if not pid:
            raise RuntimeError('this was the child')
        os.waitpid(pid, 0)
        return 0

class Crashes(Runner):
    def run(self, taskid, command, logfh):
        if not os.path.exists('mended'):
            ctypes.string_at(0)
        return 0

class DiesAtFirst(BasicRunner):
    '''The worker dies before it starts a task.'''

    def plan(self, taskid, command):
        if not os.path.exists('mended'):
            os._exit(1)
"""


def start(farm: Farm, *options: object, pause: float = 0.1, look: float = 0.3, doubt: float = 0.1) -> Farmer:
    """A farmer with these seconds of `pause` after a worker's death, between `look`s, and of `doubt` (halved)."""
    words = [sys.executable, "-c", HURRIED, *map(str, (pause, look, doubt)), str(farm.list), *map(str, options)]
    return farm.start(words=words)


@pytest.fixture
def plugged(farm: Farm) -> Farm:
    """A farm with custom runners that kill their workers."""
    (farm.folder / "dying.py").write_text(RUNNERS)
    names = "".join(f"[{name}]\nRunner = dying.{name}\n" for name in ("Bad", "Crashes", "DiesAtFirst"))
    (farm.folder / "runners.ini").write_text(names)
    return farm


def deaths_of(farm: Farm) -> list[tuple[int, int]]:
    """The tasks to be retried, and how many farmers and workers died while they ran, from the newest revision."""
    (epoch,) = [path for path in (farm.workdir / "ledger").iterdir() if path.is_dir()]
    newest = max((path for path in epoch.iterdir() if path.name.isdigit()), key=lambda path: int(path.name))
    back = parse_intervals(json.loads(newest.read_bytes().splitlines()[0])["returned"])
    return sorted((one.start + place, one.deaths) for one in back for place in range(one.count))


# --- one task -----------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["TERM", "KILL", "SEGV", "ALRM"])
def test_a_task_that_kills_its_worker_is_failed_as_lost_and_the_others_complete(farm: Farm, how: str) -> None:
    farm.write("true", f"kill -{how} $PPID; sleep 1000", *["true"] * 5)
    farmer = start(farm, "-n", 1, "--grace", 1, "--max-deaths", 1)
    assert farmer.wait() == 1, farmer.said
    assert farm.places() == ([], [0, 2, 3, 4, 5, 6], [1])
    assert farm.attempts(1) == [(1, "returned"), (2, "returned"), (3, "lost")]
    assert f"worker for slot 0 died (SIG{how})" in farmer.said
    farm.no_survivors()


def test_a_task_that_dies_of_a_signal_together_with_its_worker_is_failed_as_lost(farm: Farm) -> None:
    """The worker only records such a signal, which may have been sent to the whole job."""
    farm.write("kill -USR1 $PPID; kill -USR1 $$", "true")
    farmer = start(farm, "-n", 1, "--max-deaths", 1)
    assert farmer.wait() == 1, farmer.said
    assert farm.places() == ([], [1], [0])
    assert farm.attempts(0) == [(1, "returned"), (2, "returned"), (3, "lost")]


@pytest.mark.parametrize("how", ["TERM", "KILL"])
def test_all_tasks_that_ran_in_a_worker_count_its_death(farm: Farm, how: str) -> None:
    """Sixteen slots have eight workers: if two tasks share a worker, either may have killed it."""
    killer = f"[ $TASKFARMER_ATTEMPT -gt 1 ] || {{ until [ -e go ]; do sleep 0.05; done; kill -{how} $PPID; }}"
    farm.write(farm.marked(f"{killer}; sleep 1000"), *[farm.marked("sleep 1000")] * 15)
    farmer = start(farm, "-n", 16, "--grace", 1)
    farm.wait_for_tasks(*range(16))
    for task in (0, 1):
        (farm.started / str(task)).unlink()
    (farm.folder / "go").touch()
    farm.wait_for_tasks(0, 1)
    farmer.signal(signal.SIGUSR1)
    assert farmer.wait() == STATUS_AGAIN, farmer.said
    assert deaths_of(farm) == [(0, 1), (1, 1), *((number, 0) for number in range(2, 16))]
    farm.check()


def test_a_sigterm_for_all_processes_of_a_job_counts_no_death_even_if_the_farmer_gets_it_last(farm: Farm) -> None:
    farm.write(*[farm.marked("sleep 1000")] * 2)
    farmer = start(farm, "-n", 2, "--grace", 5, doubt=500.0)
    farm.wait_for_tasks(0, 1)
    workers = farmer.workers()
    for pid in [one for worker in workers for one in reversed(tree(worker))]:
        send(pid, signal.SIGTERM)
    eventually(lambda: not any(map(is_running, workers)), "the workers have ended their tasks and are gone")
    farmer.signal(signal.SIGTERM)
    assert farmer.wait() == STATUS_AGAIN, farmer.said
    assert deaths_of(farm) == [(0, 0), (1, 0)]
    farm.check()


# --- custom runners --------------------------------------------------------------------------------


def test_a_runner_may_kill_its_worker_in_any_way_and_its_task_is_retried(plugged: Farm) -> None:
    words = ["leave", "crash", "kill", "term", "endless", "execute", "close", "reuse", "orphan"]
    plugged.write(*words, "true")
    farmer = start(plugged, "-r", "Bad", "-n", 3, "--grace", 0)
    assert farmer.wait() == 0, farmer.said
    assert plugged.places() == ([], list(range(10)), [])
    assert "unexpected" not in farmer.said
    plugged.check()
    plugged.no_survivors()


@pytest.mark.parametrize("how", ["both", "child"])
def test_a_child_process_that_returns_from_a_runner_does_not_become_a_second_worker(plugged: Farm, how: str) -> None:
    """It would report the same task twice, and the next task would count as done without having run."""
    plugged.write(*["true"] * 50, how, *["true"] * 50)
    farmer = plugged.run("-r", "Bad", "-n", 1)
    assert farmer.wait() == 0, farmer.said
    assert plugged.places() == ([], list(range(101)), [])
    assert [(plugged.folder / f"ran-{number}").read_text() for number in range(101)] == ["x"] * 101
    plugged.check()
    plugged.no_survivors()


# --- all workers ----------------------------------------------------------------------------------


@pytest.mark.parametrize(("runner", "slots"), [("Crashes", 4), ("Crashes", 1), ("DiesAtFirst", 2)])
def test_a_farmer_whose_workers_all_die_gives_up_and_keeps_the_tasks(plugged: Farm, runner: str, slots: int) -> None:
    plugged.write(*["true"] * 12)
    farmer = start(plugged, "-r", runner, "-n", slots)
    assert farmer.wait() == STATUS_TROUBLE, farmer.said
    assert "workers died in a row and no task ended" in farmer.said
    assert f"{plugged.workdir}/logs" in farmer.said
    assert plugged.places() == (list(range(12)), [], [])
    report = plugged.check()
    assert not report.held, "it left, and gave all back"
    (plugged.folder / "mended").touch()
    assert plugged.run("-r", runner, "-n", 4).wait() == 0
    assert plugged.places() == ([], list(range(12)), [])


def test_a_farmer_continues_while_some_of_its_workers_finish_tasks(farm: Farm) -> None:
    farm.write(*["kill -9 $PPID; sleep 1000", *["true"] * 9] * 8)
    farmer = start(farm, "-n", 4, "--max-deaths", 2)
    assert farmer.wait() == 1, farmer.said
    failed = list(range(0, 80, 10))
    assert farm.places() == ([], [number for number in range(80) if number not in failed], failed)
    farm.check()


# --- stopped workers ------------------------------------------------------------------------------


def test_a_worker_that_was_stopped_is_continued(farm: Farm) -> None:
    farm.write("kill -STOP $PPID; echo well", *["true"] * 5)
    farmer = start(farm, "-n", 2)
    assert farmer.wait() == 0, farmer.said
    assert "worker for slot 0 was stopped" in farmer.said
    assert farm.attempts(0) == [(1, "finished")]
    assert farm.log(0) == "well\n"


def test_a_worker_that_is_stopped_repeatedly_is_replaced_and_its_task_is_failed_as_lost(farm: Farm) -> None:
    farm.write("while kill -STOP $PPID; do :; done", *["true"] * 5)
    farmer = start(farm, "-n", 2, "--max-deaths", 1)
    assert farmer.wait() == 1, farmer.said
    assert farm.places() == ([], [1, 2, 3, 4, 5], [0])
    farm.no_survivors()


def test_a_farmer_that_is_suspended_with_all_its_processes_resumes(farm: Farm) -> None:
    """Slurm suspends a job this way: all processes are stopped, and continued later, the farmer first."""
    go = farm.folder / "go"
    farm.write(*[farm.marked(f"until [ -e {go} ]; do sleep 0.1; done")] * 4)
    farmer = start(farm, "-n", 2, look=1.0)
    farm.wait_for_tasks(0, 1)
    pids = tree(farmer.pid)
    for pid in reversed(pids):
        send(pid, signal.SIGSTOP)
    eventually(lambda: all(map(stopped, pids)), "all are stopped")
    before = Path("/proc/uptime").read_text().split()[0]
    eventually(lambda: float(Path("/proc/uptime").read_text().split()[0]) > float(before) + 3.5, "looks were missed")
    for pid in pids:
        send(pid, signal.SIGCONT)
    go.touch()
    assert farmer.wait() == 0, farmer.said
    assert farm.places() == ([], [0, 1, 2, 3], [])
    assert {line.attempt for line in farm.check().lines} == {1}


def stopped(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] in "TZ"
    except OSError:
        return True
