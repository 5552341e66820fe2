"""Storms: farmers are killed, stopped past their lease, interrupted and replaced at random; no task is lost or doubled.

The file system is plain, or two mounts of one folder: with locks that are silently local to each mount, with locks
that are forwarded, or with those of a network file system. The seed of each storm is printed.
"""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import pytest

from support.farming import Field, mounts, sshfs_mounts
from support.glusterfs import Hung, glusterfs
from support.storms import KINDS, Storm, judge

CACHES = "attr_timeout=1,entry_timeout=1,negative_timeout=1"
BINDFS = {
    "lying bindfs": (),
    "lying, stale bindfs": ("-o", CACHES),
    "bindfs with forwarded locks": ("--enable-lock-forwarding",),
}
GROUNDS = ("plain", *BINDFS, "GlusterFS", "sshfs")
Ground = Callable[[str], AbstractContextManager[tuple[Path, ...]]]


@pytest.fixture
def ground(tmp_path_factory: pytest.TempPathFactory) -> Ground:
    """`ground(kind)`: a folder, and its mount points on a file system of that kind."""

    @contextmanager
    def made(kind: str) -> Iterator[tuple[Path, ...]]:
        folder = tmp_path_factory.mktemp("ground")
        if kind == "plain":
            yield folder, folder
        elif kind == "GlusterFS":
            with glusterfs(folder) as volume:
                yield volume.places[0], *volume.places
        elif kind == "sshfs":
            points = tmp_path_factory.mktemp("mounts")
            with sshfs_mounts(folder, points / "one", points / "two") as places:
                yield folder, *places
        else:
            points = tmp_path_factory.mktemp("mounts")
            with mounts(folder, points / "one", points / "two", options=BINDFS[kind]) as places:
                yield folder, *places

    return made


def run_storm(ground: Ground, tmp_path: Path, kind: str, seed: int, **more: Any) -> Storm:
    """Run a storm on that kind of file system, and on a new one if GlusterFS itself failed."""
    for number in range(3):
        print(f"{kind}, seed {seed}")
        try:
            return _storm(ground, tmp_path / f"storm{number}", kind, seed, **more)
        except Hung as hung:
            print(hung)
    raise AssertionError("GlusterFS hung three times")


def _storm(ground: Ground, tmp_path: Path, kind: str, seed: int, **more: Any) -> Storm:
    tmp_path.mkdir()
    with ground(kind) as (folder, *places):
        field = Field(tmp_path, shared=folder)
        try:
            storm = Storm(field, tuple(places), seed, **more)
            storm.run()
            judge(storm, kind, storm.quiesce())
        except BaseException:
            field.close()
            shutil.copytree(field.workdir, tmp_path / "kept")
            raise
        finally:
            field.close()
    return storm


def test_a_storm_on_a_plain_file_system_loses_no_task_and_records_none_twice(ground: Ground, tmp_path: Path) -> None:
    run_storm(ground, tmp_path, "plain", random.randrange(10**6), seconds=8, tasks=200, everything=False)


@pytest.mark.timeout(240)
def test_a_storm_on_two_mounts_with_lying_locks_loses_no_task_and_records_none_twice(
    ground: Ground, tmp_path: Path
) -> None:
    seed = random.randrange(10**6)
    run_storm(ground, tmp_path, "lying bindfs", seed, seconds=25, tasks=500, everything=False)


@pytest.mark.timeout(400)
@pytest.mark.parametrize("kind", ["bindfs with forwarded locks", "GlusterFS", "sshfs"])
def test_a_storm_with_all_events_loses_no_task_and_records_none_twice(
    ground: Ground, tmp_path: Path, kind: str
) -> None:
    storm = run_storm(ground, tmp_path, kind, random.randrange(10**6), seconds=5, tasks=200, limit=90)
    assert {*KINDS, "growth"} == {*storm.did}
    assert storm.retried


@pytest.mark.campaign
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("seed", range(1, 6))
@pytest.mark.parametrize("kind", GROUNDS)
def test_a_campaign_of_storms(ground: Ground, tmp_path: Path, kind: str, seed: int) -> None:
    run_storm(ground, tmp_path, kind, seed, tasks=5000, kills=200, rate=6.0)


def test_a_client_of_glusterfs_that_hangs_is_killed(tmp_path: Path) -> None:
    """When it is killed, the calls that wait for it fail, and the results of that storm do not count."""
    with pytest.raises(Hung), glusterfs(tmp_path, patience=2.0) as volume:
        os.kill(volume.clients[volume.places[0]].pid, signal.SIGSTOP)
        os.listdir(volume.places[1])
        os.stat(volume.places[0] / "nothing")


@pytest.mark.parametrize("kind", ["lying bindfs", "bindfs with forwarded locks", "GlusterFS"])
def test_the_mounts_of_the_storm_have_the_expected_kind_of_locks(ground: Ground, kind: str) -> None:
    script = (
        "import fcntl, sys; file = open(sys.argv[1] + '/f', 'a'); fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB); "
        "print(1, flush=True); input()"
    )
    with ground(kind) as (_, *places):
        holders = []
        try:
            for place in places:
                words = [sys.executable, "-c", script, str(place)]
                pipe = subprocess.PIPE
                holders.append(subprocess.Popen(words, stdin=pipe, stdout=pipe, stderr=subprocess.DEVNULL))
            got = [holder.stdout and holder.stdout.readline() for holder in holders]
            assert sorted(got) == ([b"1\n", b"1\n"] if kind == "lying bindfs" else [b"", b"1\n"])
        finally:
            for holder in holders:
                holder.communicate(b"\n")
