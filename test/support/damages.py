"""The damages that a file can suffer, each as a function of its path, and the files of a farm by their kind."""

from __future__ import annotations

import os
import random
import shutil
from collections.abc import Callable
from pathlib import Path

from support.halfdone import QUICK, HalfDone

Damage = Callable[[Path, Path, random.Random], None]
"""A function of the path, of the same path in another farm, and of a random generator."""


def truncated(size: Callable[[int], int]) -> Damage:
    def cut(path: Path, other: Path, rng: random.Random) -> None:
        os.truncate(path, max(0, size(path.stat().st_size)))

    return cut


def zeroed(path: Path, other: Path, rng: random.Random) -> None:
    path.write_bytes(bytes(path.stat().st_size))


def flipped(path: Path, other: Path, rng: random.Random) -> None:
    data = bytearray(path.read_bytes())
    if data:
        place = rng.randrange(len(data))
        data[place] ^= 1 << rng.randrange(8)
    path.write_bytes(data)


def gone(path: Path, other: Path, rng: random.Random) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink()


def a_folder(path: Path, other: Path, rng: random.Random) -> None:
    gone(path, other, rng)
    path.mkdir()


def a_file(path: Path, other: Path, rng: random.Random) -> None:
    gone(path, other, rng)
    path.write_bytes(b"")


def a_fifo(path: Path, other: Path, rng: random.Random) -> None:
    gone(path, other, rng)
    os.mkfifo(path)


def a_dangling_link(path: Path, other: Path, rng: random.Random) -> None:
    gone(path, other, rng)
    path.symlink_to("nowhere")


def unreadable(path: Path, other: Path, rng: random.Random) -> None:
    path.chmod(0)


def of_another_farm(path: Path, other: Path, rng: random.Random) -> None:
    gone(path, other, rng)
    if other.is_dir():
        shutil.copytree(other, path)
    else:
        # a task that has not started there has no log
        shutil.copyfile(other, path) if other.exists() else path.write_bytes(b"of another farm\n")


OF_FILES: dict[str, Damage] = {
    "empty": truncated(lambda size: 0),
    "half": truncated(lambda size: size // 2),
    "one byte short": truncated(lambda size: size - 1),
    "zeroed": zeroed,
    "a bit flipped": flipped,
    "gone": gone,
    "a folder": a_folder,
    "a FIFO": a_fifo,
    "a dangling link": a_dangling_link,
    "unreadable": unreadable,
    "of another farm": of_another_farm,
}
OF_FOLDERS: dict[str, Damage] = {
    "gone": gone,
    "a file": a_file,
    "a FIFO": a_fifo,
    "a dangling link": a_dangling_link,
    "unreadable": unreadable,
}
FLIPS = 4
"""Positions at which a bit is flipped, each a separate case."""

HARMLESS = (
    "older revision",
    "HEAD",
    "prepared revision",
    "identity of a farmer that left",
    "ballast",
    "torn journal end",
    "toprocess",
    "finished",
    "failed",
    "timeline.json",
    "views.json",
    "log of a recorded task",
    "lock",
)
"""Kinds of files whose damage never keeps a farm from its exact end."""

NOTHING_TO_REPORT = (
    "HEAD",
    "prepared revision",
    "identity of a farmer that left",
    "identity of a farmer of this node",
    "identity of a farmer elsewhere",
    "alive file",
    "alive file of a farmer elsewhere",
    "farewell",
    "ballast",
    "views.json",
    "log of a recorded task",
    "log of a task to run",
    "lock",
)
"""Kinds of files that do not determine any task's place: `check` may skip them."""


def files(half: HalfDone) -> dict[str, str]:
    """Kind -> path in the work directory, for every kind of file that a farm has."""
    state = half.state
    segment, epoch = state["segments"][-1]["file"], state["epoch"]
    older = half.newest.with_name(str(int(half.newest.name) - 1))
    prepared = min((half.workdir / "ledger" / epoch / "tmp").iterdir())
    closed = next(path.name for path in sorted((half.workdir / "results").iterdir()) if "." in path.name)
    left = next(
        path.name for path in sorted((half.workdir / "farmers").iterdir()) if path.name[:-5] not in state["farmers"]
    )
    return {
        "farm.json": "farm.json",
        "segment": f"tasks/{segment}",
        "index": f"tasks/{segment}.index",
        "newest revision": str(half.newest),
        "older revision": str(older),
        "HEAD": "ledger/HEAD",
        "prepared revision": str(prepared.relative_to(half.workdir)),
        "open journal": f"results/{half.here}",
        "departed journal": f"results/{next(iter(state['departed']), closed)}",
        "closed journal": f"results/{closed}",
        "identity of a farmer that left": f"farmers/{left}",
        "identity of a farmer of this node": f"farmers/{half.here}.json",
        "identity of a farmer elsewhere": f"farmers/{half.elsewhere}.json",
        "alive file": f"farmers/{half.here}.alive",
        "alive file of a farmer elsewhere": f"farmers/{half.elsewhere}.alive",
        "farewell": f"farmers/{half.farewell}.farewell",
        "ballast": f"farmers/{half.elsewhere}.ballast",
        "toprocess": "toprocess",
        "finished": "finished",
        "failed": "failed",
        "timeline.json": "timeline.json",
        "views.json": "views.json",
        "log of a recorded task": "logs/log_3",
        "log of a task to run": f"logs/log_{QUICK + 100}",
        "lock": "lock",
    }


def folders(half: HalfDone) -> dict[str, str]:
    epoch = half.state["epoch"]
    (older,) = {path.name for path in (half.workdir / "ledger").iterdir() if path.is_dir()} - {epoch}
    return {
        "tasks": "tasks",
        "ledger": "ledger",
        "results": "results",
        "farmers": "farmers",
        "logs": "logs",
        "epoch": f"ledger/{epoch}",
        "older epoch": f"ledger/{older}",
        "tmp": f"ledger/{epoch}/tmp",
    }


def other_path(half: HalfDone, other: HalfDone, kind: str) -> Path:
    """The same kind of file in another farm."""
    return other.workdir / files(other).get(kind, "")
