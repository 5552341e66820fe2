"""Every way to stop a farmer, in every state of it, with every kind of task.

Whatever meets whatever: the exit status is the one that is promised, everything in flight is given back, no
process is left, the views are exact, and the next farmer ends the list with every task recorded once.
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
from farming import eventually, need
from scenes import DONE, KINDS, STOPS, Cell, Scene, TooEarly, full

AT_ONCE = 8
"""Cells that are played at the same time: most of a cell is waiting."""
State = Callable[[Scene], Iterator[None]]

# --- states ------------------------------------------------------------------------------------


def importing_modules(scene: Scene) -> Iterator[None]:
    """Signals are blocked: what comes now is heard later."""
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
    """It holds tasks that no slot has begun."""
    quick = scene.stays + 40  # so many that it knows how long tasks take: long enough to be handed out one by one
    scene.farm.write(*["sleep 0.2"] * quick)
    assert scene.farm.run("-n", 64).wait() == 0
    scene.farm.append("".join(f"{line}\n" for line in [scene.stay()] * (scene.stays + 1) + ["true"] * 300))
    scene.start(slots=scene.stays + 1)
    scene.runs(*range(quick, quick + scene.stays + 1))
    eventually(lambda: len(scene.farm.check(views=False).held) > scene.stays + 1 or scene.over(), "a queue", 60)
    yield


def idle_and_waiting(scene: Scene) -> Iterator[None]:
    """It has nothing to do, and waits for what a peer holds."""
    scene.farm.write(*[scene.stay()] * scene.stays, "true")
    scene.peer = scene.farm.start(*scene.options(scene.stays))
    scene.farm.wait_for_tasks(*range(scene.stays))
    scene.farm.append(f"{scene.farm.begun('true')}\n" * 4)
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
    """All slots are taken; one task is behind the short door."""
    scene.farm.write(*[scene.stay()] * scene.stays, scene.behind("short"))
    scene.start(slots=scene.stays + 1, point=point, armed="armed")
    scene.runs(*range(scene.stays + 1))
    scene.in_flight.discard(scene.stays)


def _before_an_exchange(scene: Scene, point: tuple[str, str, int]) -> None:
    """One task ends, so that there is something to commit, and the farmer waits at `point`."""
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
    """The revision has its name; the farmer has not read yet who won."""
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
        eventually(lambda: "no new ones are started" in scene.farmer.said or scene.over(), "trouble is told")
        yield


WITH_MANY = (starting_its_workers, running_with_full_slots, already_stopping)
"""The states in which tasks are 256 at once also where time is short."""
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
    """Play cells, some at a time, and name those that went wrong."""
    with ThreadPoolExecutor(AT_ONCE) as threads:
        played = {
            cell: threads.submit(play, state, cell, folder / str(number)) for number, (state, cell) in enumerate(cells)
        }
    wrong = {cell: one.exception() for cell, one in played.items() if one.exception() is not None}
    for error in wrong.values():
        if not isinstance(error, Exception):
            raise error  # a skip is no error of the cell
    assert not wrong, "\n\n".join(f"{cell}: {error}" for cell, error in wrong.items())


def name_of(state: State) -> str:
    return state.__name__.replace("_", " ")


@pytest.mark.timeout(600)
def test_every_stop_in_every_state_gives_everything_back(tmp_path: Path) -> None:
    """All pairs of state and stop, of state and kind, and of stop and kind are in these; of 256 at once some."""
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
def test_every_stop_in_every_state_with_every_kind_of_task_gives_everything_back(kind: str, tmp_path: Path) -> None:
    play_all([(state, Cell(name_of(state), stop, kind)) for state in STATES for stop in STOPS], tmp_path)
