"""Three nodes share a list through two mounts: no task is lost, despite faults of nodes and unreliable locks.

The mounts belong to a network file system, or to one that forwards locks, or to one whose locks are silently local to
each mount. Nodes are pid and host name namespaces. The seed of each run is printed.
"""

from __future__ import annotations

import os
import random
import shutil
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import pytest

from support.course import Course
from support.farming import mounts, need
from support.storms import nodes_are_possible

BINDFS = {"lying bindfs": (), "bindfs with forwarded locks": ("--enable-lock-forwarding",)}
LOCKS = {"GlusterFS": "shared", "bindfs with forwarded locks": "shared", "lying bindfs": "local"}
Views = Callable[[str], AbstractContextManager[tuple[Path, ...]]]


@pytest.fixture(scope="module")
def views(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Views:
    """`views(kind)`: one folder as two nodes see it on a file system of that kind."""
    need(os.getuid() == 0 and nodes_are_possible(), "separate nodes need root and unshare")
    need(shutil.which("bindfs"), "bindfs is not installed")
    places = request.getfixturevalue("volume").places

    @contextmanager
    def made(kind: str) -> Iterator[tuple[Path, ...]]:
        folder = tmp_path_factory.mktemp("views")
        if kind == "GlusterFS":
            found = tuple(place / folder.name for place in places)
            found[0].mkdir()
            yield found
        else:
            source = folder / "source"
            source.mkdir()
            with mounts(source, folder / "one", folder / "two", options=BINDFS[kind]) as found:
                yield found

    return made


def run(views: Views, folder: Path, kind: str, tasks: int, seed: int) -> None:
    print(f"{kind}, seed {seed}")
    with views(kind) as places:
        course = Course(folder, places, LOCKS[kind], tasks, seed)
        try:
            course.run()
            course.judge(f"{kind}, seed {seed}")
        except BaseException:
            course.close()
            if course.field.workdir.exists():
                shutil.copytree(course.field.workdir, folder / "kept")
            raise
        finally:
            course.close()


@pytest.fixture(scope="module")
def at_once(views: Views, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Future[None]]]:
    """A run on each kind of file system, all at the same time."""
    with ThreadPoolExecutor(len(LOCKS)) as pool:
        yield {
            kind: pool.submit(run, views, tmp_path_factory.mktemp("course"), kind, 480, random.randrange(10**6))
            for kind in LOCKS
        }


@pytest.mark.campaign
@pytest.mark.parametrize("kind", LOCKS)
def test_three_nodes_lose_no_task_record_none_twice_and_detect_the_kind_of_locks(
    kind: str, at_once: dict[str, Future[None]]
) -> None:
    at_once[kind].result(170)


@pytest.mark.campaign
@pytest.mark.timeout(900)
@pytest.mark.parametrize("seed", range(1, 4))
@pytest.mark.parametrize("kind", LOCKS)
def test_three_nodes_and_two_thousand_tasks(views: Views, tmp_path: Path, kind: str, seed: int) -> None:
    run(views, tmp_path, kind, 2000, seed)
