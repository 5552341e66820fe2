"""Every way to stop a farmer, in each of its states, with every kind of task.

In each combination the exit status is the documented one, all tasks in flight are released, no process is left, the
views are exact, and the next farmer completes the list with every task recorded once.
"""

from __future__ import annotations

import fcntl
import os
import signal
import subprocess
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest

from support.farming import eventually, need
from support.scenes import DONE, KINDS, STOPS, Cell, Scene, TooEarly, full

AT_ONCE = 8
"""Cells that run at the same time: a cell spends most of its time waiting."""
State = Callable[[Scene], Iterator[None]]

# --- states ------------------------------------------------------------------------------------


def importing_modules(scene: Scene) -> Iterator[None]:
    """Signals are blocked: a signal that arrives now is handled later."""
    scene.farm.write(*[scene.stay()] * scene.stays)
    scene.start(point=("import", "click", 1))
    scene.at_point()
    yield
    scene.pass_point()


def importing_the_list(scene: Scene) -> Iterator[None]:
    scene.farm.write(*[scene.stay()] * scene.stays)
    scene.start(point=("open", "_workdir/tasks/", 1))
    scene.at_point()
    yield
    scene.pass_point()


def waiting_for_an_import(scene: Scene) -> Iterator[None]:
    scene.farm.write(*[scene.stay()] * scene.stays)
    scene.farm.workdir.mkdir()
    with open(scene.farm.workdir / "lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        scene.start(point=("fcntl.flock", "", 2))
        scene.at_point()
        yield
    scene.pass_point()


def starting_its_workers(scene: Scene) -> Iterator[None]:
    scene.farm.write(*[scene.stay()] * scene.stays)
    scene.start(point=("os.fork", "", 2))
    scene.at_point()
    yield
    scene.pass_point()


def running_with_full_slots(scene: Scene) -> Iterator[None]:
    scene.farm.write(*[scene.stay()] * scene.stays, "true")
    scene.start()
    scene.runs(*range(scene.stays))
    yield


def with_a_queue(scene: Scene) -> Iterator[None]:
    """The farmer holds claimed tasks that no slot has started."""
    quick = scene.stays + 40  # enough for the farmer to learn that tasks take long enough to be handed out one by one
    scene.farm.write(*["sleep 0.2"] * quick)
    assert scene.farm.run("-n", 8).wait(120) == 0
    scene.farm.append("".join(f"{line}\n" for line in [scene.stay()] * (scene.stays + 1) + ["true"] * 300))
    scene.start(slots=scene.stays + 1)
    scene.runs(*range(quick, quick + scene.stays + 1))
    eventually(lambda: len(scene.farm.check(views=False).held) > scene.stays + 1 or scene.over(), "a queue", 60)
    yield


def idle_and_waiting(scene: Scene) -> Iterator[None]:
    """The farmer is idle and waits for the tasks of a peer."""
    scene.farm.write(*[scene.stay()] * scene.stays, "true")
    scene.peer = scene.farm.start(*scene.options(scene.stays))
    scene.farm.wait_for_tasks(*range(scene.stays))
    scene.farm.append(f"{scene.farm.marked('true')}\n" * 4)
    scene.start("--wait", slots=2)
    eventually(lambda: len(scene.farm.check(views=False).finished) == 5 or scene.over(), "nothing is left to take", 60)
    scene.status = DONE
    yield


def already_stopping(scene: Scene) -> Iterator[None]:
    scene.grace = (
        60.0 if scene.cell.stop == "SIGINT twice" else 2 * scene.timeout if scene.cell.stop == "--timeout" else 3.0
    )
    scene.farm.write(*[scene.stay()] * scene.stays, scene.stay("ignores SIGTERM"))
    scene.start(slots=scene.stays + 1)
    scene.runs(*range(scene.stays + 1))
    first = "SIGINT" if scene.cell.stop == "SIGINT twice" else "SIGUSR1"
    scene.farmer.signal(signal.Signals[first])
    eventually(lambda: f"{first}: " in scene.farmer.said or scene.over(), "it stops")
    yield


def _all_slots_taken(scene: Scene, point: tuple[str, str, int] | None) -> None:
    """All slots are busy; one task is behind the short door."""
    scene.farm.write(*[scene.stay()] * scene.stays, scene.behind("short"))
    scene.start(slots=scene.stays + 1, point=point, armed="armed")
    scene.runs(*range(scene.stays + 1))
    scene.in_flight.discard(scene.stays)


def _before_an_exchange(scene: Scene, point: tuple[str, str, int]) -> None:
    """One task finishes, so that there is a result to commit, and the farmer waits at `point`."""
    _all_slots_taken(scene, point)
    scene.arm()
    scene.open("short")


def waiting_for_the_lock(scene: Scene) -> Iterator[None]:
    _before_an_exchange(scene, ("fcntl.flock", "", 2))
    with open(scene.farm.workdir / "lock", "a") as lock:
        eventually(lambda: _taken(lock.fileno()), "the lock")
        scene.at_point()
        yield
    scene.pass_point()


def _taken(lock: int) -> bool:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def before_its_commit(scene: Scene) -> Iterator[None]:
    _before_an_exchange(scene, ("os.link", "/ledger/", 1))
    scene.at_point()
    yield
    scene.pass_point()


def behind_its_commit(scene: Scene) -> Iterator[None]:
    """The revision has its name; the farmer has not yet read which commit won."""
    _before_an_exchange(scene, ("os.remove", "/ledger/", 1))
    scene.at_point()
    yield
    scene.pass_point()


def on_a_full_disk(scene: Scene) -> Iterator[None]:
    need(os.getuid() == 0, "mounting a small file system needs root")
    scene.farm.workdir.mkdir()
    disk = ["mount", "-t", "tmpfs", "-o", "size=4m,mode=700", "tmpfs", str(scene.farm.workdir)]
    made = subprocess.run(disk, capture_output=True, text=True)
    need(made.returncode == 0, f"no tmpfs can be mounted: {made.stderr.strip()}")
    _all_slots_taken(scene, None)
    with full(scene.farm.workdir):
        scene.open("short")
        eventually(lambda: "no new ones are started" in scene.farmer.said or scene.over(), "the error is reported")
        yield


WITH_MANY = (starting_its_workers, running_with_full_slots, already_stopping)
"""The states in which 256 tasks run at once even in the short selection."""
STATES: tuple[State, ...] = (
    importing_modules,
    importing_the_list,
    waiting_for_an_import,
    starting_its_workers,
    running_with_full_slots,
    with_a_queue,
    idle_and_waiting,
    already_stopping,
    waiting_for_the_lock,
    before_its_commit,
    behind_its_commit,
    on_a_full_disk,
)


def play(state: State, cell: Cell, folder: Path) -> None:
    for timeout in (4.0, 12.0, 36.0):
        scene = Scene(cell, folder.with_name(f"{folder.name}-{timeout:g}"), timeout)
        try:
            with contextmanager(state)(scene):
                scene.stop()
            scene.finish_stop()
            scene.judge()
        except TooEarly:
            continue
        finally:
            scene.close()
        return
    raise AssertionError("the farmer ends before it is in its state")


def play_all(cells: list[tuple[State, Cell]], folder: Path) -> None:
    """Run several cells at a time, and list those that failed."""
    with ThreadPoolExecutor(AT_ONCE) as threads:
        played = {
            cell: threads.submit(play, state, cell, folder / str(number)) for number, (state, cell) in enumerate(cells)
        }
    wrong = {cell: one.exception() for cell, one in played.items() if one.exception() is not None}
    for error in wrong.values():
        if not isinstance(error, Exception):
            raise error  # a skip is not a failure of the cell
    assert not wrong, "\n\n".join(f"{cell}: {error}" for cell, error in wrong.items())


def name_of(state: State) -> str:
    return state.__name__.replace("_", " ")


@pytest.mark.timeout(600)
def test_every_stop_in_every_state_releases_all_tasks(tmp_path: Path) -> None:
    """These cells include all pairs of state and stop, state and kind, stop and kind, and some of 256 tasks at once."""
    cells = []
    for number, state in enumerate(STATES):
        kinds = tuple(kind for kind in KINDS if state in WITH_MANY or kind != "256 at once")
        cells += [
            (state, Cell(name_of(state), stop, kinds[(number + place) % len(kinds)]))
            for place, stop in enumerate(STOPS)
        ]
    play_all(cells, tmp_path)


@pytest.mark.campaign
@pytest.mark.timeout(900)
@pytest.mark.parametrize("kind", KINDS)
def test_every_stop_in_every_state_with_every_kind_of_task_releases_all_tasks(kind: str, tmp_path: Path) -> None:
    play_all([(state, Cell(name_of(state), stop, kind)) for state in STATES for stop in STOPS], tmp_path)
