"""The programs that `spawn` compares with: downloaded when they are requested, and kept in a cache directory.

HyperQueue and PyTaskFarmer come from the package index, GNU parallel from Debian's archive if it is not installed.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from benchmarks.system import Spent, timed

HYPERQUEUE = """
import os, sys, time
sys.path.insert(0, sys.argv[1])
from hyperqueue import Job, LocalCluster
from hyperqueue.cluster import WorkerConfig
with LocalCluster() as cluster:
    cluster.start_worker(WorkerConfig(cores=int(sys.argv[3])))
    client = cluster.client()
    for count in (1, int(sys.argv[2])):
        start = time.time()
        job = Job()
        for _ in range(count):
            job.program(sys.argv[4:])
        if not client.wait_for_jobs([client.submit(job)]):
            sys.exit(1)
        seconds = max(entry.stat().st_mtime for entry in os.scandir(".")) - start
print(seconds, flush=True)
"""
"""A server, a worker and a client.

It prints the seconds from the creation of the tasks to the last output file, because the client only checks once a
second if all have finished. The start of the three and a first task do not count.
"""


QUIET = {"TQDM_DISABLE": "1"}


class Missing(Exception):
    """A program that is not available here, and the reason."""


@dataclass(frozen=True)
class Work:
    """Tasks to run: `size` lines of `path`, each of them the command `words`."""

    path: str
    size: int
    processes: int
    words: tuple[str, ...]


Turn = Callable[[Work, str], Spent]
"""Runs all of the work in a separate folder."""


def xargs(work: Work, folder: str) -> Spent:
    """One process per line, started by xargs: without logs and without records."""
    *program, last = work.words
    words = program if program else [last]
    return timed(["xargs", f"-P{work.processes}", "-d", "\\n", "-n1", *words], words=work.path)


def parallel() -> Turn:
    program = shutil.which("parallel") or _unpacked("parallel", "usr/bin/parallel")

    def turn(work: Work, folder: str) -> Spent:
        return timed(["perl", program, "--will-cite", f"-j{work.processes}"], words=work.path)

    return turn


def hyperqueue() -> Turn:
    place = _installed("hyperqueue", "hyperqueue")

    def turn(work: Work, folder: str) -> Spent:
        numbers = (str(work.size), str(work.processes))
        spent = timed([sys.executable, "-c", HYPERQUEUE, place, *numbers, *work.words], folder=folder, more=QUIET)
        return Spent(float(spent.said.split()[-1]), spent.cpu, spent.written, b"")

    return turn


def pytaskfarmer() -> Turn:
    place = _installed("pytaskfarmer-0.1.0", "pytaskfarmer==0.1.0")

    def turn(work: Work, folder: str) -> Spent:
        program = [sys.executable, os.path.join(place, "bin", "pytaskfarmer.py")]
        arguments = ["-n", str(work.processes), "-w", os.path.join(folder, "farm"), work.path]
        return timed([*program, *arguments], more={"PYTHONPATH": place}, folder=folder)

    return turn


def cache() -> Path:
    base = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    return Path(base) / "taskfarmer-benchmarks"


def _installed(name: str, requirement: str) -> str:
    """The directory that contains a Python package; the package is installed there once."""

    def fill(fresh: str) -> None:
        pip = [sys.executable, "-m", "pip", "install", "--quiet", "--only-binary", ":all:", "--target", fresh]
        _run([*pip, requirement], fresh)

    return _kept(f"{name}-python{sys.version_info[0]}.{sys.version_info[1]}", fill)


def _unpacked(package: str, program: str) -> str:
    """A program from a Debian package, which is downloaded once and not installed."""

    def fill(fresh: str) -> None:
        _run(["apt-get", "download", "-q", package], fresh)
        (archive,) = Path(fresh).glob("*.deb")
        _run(["dpkg", "-x", str(archive), fresh], fresh)

    return os.path.join(_kept(package, fill), program)


def _kept(name: str, fill: Callable[[str], None]) -> str:
    place = cache() / name
    if not place.is_dir():
        cache().mkdir(parents=True, exist_ok=True)
        fresh = tempfile.mkdtemp(dir=cache())
        try:
            fill(fresh)
            os.rename(fresh, place)
        finally:
            shutil.rmtree(fresh, ignore_errors=True)
    return str(place)


def _run(command: list[str], folder: str) -> None:
    try:
        subprocess.run(command, check=True, cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    except FileNotFoundError as error:
        raise Missing(f"no {command[0]} here") from error
    except subprocess.CalledProcessError as error:
        said = error.stderr.decode(errors="replace").strip().splitlines() or [f"{command[0]} failed"]
        raise Missing(said[-1]) from error
