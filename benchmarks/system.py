"""Measurements of running programs by the system: seconds, memory, and system calls."""

from __future__ import annotations

import os
import re
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.measure import HERE, farmer

_NAMES = """
open openat openat2 creat stat lstat newfstatat statx access faccessat faccessat2 statfs fstatfs getdents64
link linkat symlink symlinkat readlink readlinkat unlink unlinkat rename renameat renameat2 mkdir mkdirat rmdir
chmod fchmod fchmodat chown lchown fchown fchownat truncate ftruncate utimensat fsync fdatasync flock
"""
OPERATIONS = frozenset(_NAMES.split())
"""System calls that access more of a file system than the bytes of an open file. (glibc's fstat(2) is newfstatat.)"""


@dataclass(frozen=True)
class Spent:
    """The resources of a command; `cpu` are seconds of it and of its children, `written` bytes to files and pipes."""

    seconds: float
    cpu: float
    written: int
    said: bytes


def compiled(source: str, folder: str, *options: str) -> str:
    """Compile a C file of this directory to a program or library."""
    target = os.path.join(folder, source + ".out")
    subprocess.run(["cc", "-O2", *options, "-o", target, str(Path(__file__).with_name(source)), "-ldl"], check=True)
    return target


def slowed(library: str, microseconds: int, below: str) -> dict[str, str]:
    """The environment in which each file operation below a directory takes that much longer; see slow.c."""
    return {"LD_PRELOAD": library, "SLOW_MICROSECONDS": str(microseconds), "SLOW_BELOW": below}


def operated(
    library: str, command: Sequence[str], folder: str, task: str = "", more: Mapping[str, str] | None = None
) -> int:
    """The file operations of a command in a folder, at full speed; programs of the name `task` do not count."""
    with tempfile.NamedTemporaryFile("r+b") as file:
        file.truncate(8)
        counting = {"SLOW_COUNT": file.name, "SLOW_UNCOUNTED": task}
        timed(command, more={**slowed(library, 0, folder), **counting, **(more or {})})
        return int.from_bytes(file.read(8), sys.byteorder)


def timed(
    command: Sequence[str],
    leaves: str | None = None,
    more: Mapping[str, str] | None = None,
    words: str | None = None,
    folder: str | None = None,
) -> Spent:
    """Run a command with `words` for a file as its input; remove the files that it `leaves` before the next turn."""
    before, wrote = resource.getrusage(resource.RUSAGE_CHILDREN), _written()
    with open(words or os.devnull, "rb") as standard_input:
        start = time.perf_counter()
        done = subprocess.run(
            command,
            check=True,
            cwd=folder,
            env={**os.environ, **(more or {})},
            stdin=standard_input,
            stdout=subprocess.PIPE,
        )
        seconds = time.perf_counter() - start
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime
    written = _written() - wrote
    if leaves is not None:
        shutil.rmtree(leaves)
    return Spent(seconds, cpu, written, done.stdout)


def _written() -> int:
    """Bytes that this process and its reaped children have written: wchar of proc(5) io."""
    return int(next(line.split()[1] for line in read("/proc/self/io").splitlines() if line.startswith("wchar")))


# --- processes -----------------------------------------------------------------------------------


def tree(pid: int) -> list[int]:
    """A process and all its descendants."""
    found, waiting = [], [pid]
    while waiting:
        one = waiting.pop()
        found.append(one)
        waiting += map(int, read(f"/proc/{one}/task/{one}/children").split())
    return found


def name(pid: int) -> str:
    return read(f"/proc/{pid}/comm").strip()


def megabytes(pids: Iterable[int], what: str = "Pss") -> float:
    """The proportional (or resident, `Rss`) set size of processes, from smaps_rollup of proc(5)."""
    kilobytes = 0
    for pid in pids:
        for line in read(f"/proc/{pid}/smaps_rollup").splitlines():
            if line.startswith(what + ":"):
                kilobytes += int(line.split()[1])
    return kilobytes * 1024 / 1e6


def cpu(pids: Iterable[int]) -> float:
    """Seconds that processes have run, from schedstat of proc(5), to the nanosecond."""
    return sum(int((read(f"/proc/{pid}/schedstat").split() or ["0"])[0]) for pid in pids) / 1e9


def read(path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


# --- system calls --------------------------------------------------------------------------------


def can_trace() -> bool:
    """Whether strace is installed, and may trace."""
    try:
        return not subprocess.run(["strace", "-c", "-o", os.devnull, "true"], stderr=subprocess.DEVNULL).returncode
    except OSError:
        return False


def calls(command: Sequence[str], leaves: str | None = None) -> Counter[str]:
    """The system calls of a command and its forked children; programs that those start are not followed."""
    with tempfile.NamedTemporaryFile("r") as report:
        timed(["strace", "-f", "-c", "-b", "execve", "-o", report.name, *command], leaves)
        return counted(report.read())


def calls_of(pids: Sequence[int], seconds: float) -> Counter[str]:
    """The system calls of running processes and of their forked children, within some seconds."""
    with tempfile.NamedTemporaryFile("r") as report:
        words = [word for pid in pids for word in ("-p", str(pid))]
        process = subprocess.Popen(
            ["strace", "-f", "-c", "-b", "execve", "-o", report.name, *words], stderr=subprocess.DEVNULL
        )
        try:
            time.sleep(seconds)
        finally:
            process.terminate()
            process.wait()
        return counted(report.read())


def counted(report: str) -> Counter[str]:
    """The contents of the table of `strace -c`: calls by their names."""
    found: Counter[str] = Counter()
    for line in report.splitlines():
        words = line.split()
        if re.match(r"[\d.]+$", line.strip().partition(" ")[0]) and len(words) >= 5 and words[-1] != "total":
            found[words[-1]] += int(words[3])
    return found


def operations(found: Counter[str]) -> int:
    return sum(number for call, number in found.items() if call in OPERATIONS)


# --- farmers -------------------------------------------------------------------------------------


def knows_logs(mode: str = "none") -> bool:
    """Whether this version has `--logs` with this mode: without it, each task has a log file."""
    said = subprocess.run(farmer("--help"), check=True, stdout=subprocess.PIPE, text=True).stdout
    return re.search(rf"--logs \[[^]]*\b{mode}\b", said) is not None


def watched(report: str, *arguments: str) -> list[str]:
    """The command of a farmer that reports the durations of its exchanges afterwards; see watched.py."""
    start = f"import sys; sys.path.insert(0, {str(HERE)!r}); from benchmarks.watched import main; main()"
    return [*farmer()[:2], start, report, *arguments]
