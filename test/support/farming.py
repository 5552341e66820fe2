"""Real farmers for tests: the tests start them, send signals to their pids, and leave no process running."""

from __future__ import annotations

import ctypes
import fcntl
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

TEST = Path(__file__).parents[1]
LAUNCH = """
import fcntl, os, sys
fcntl.flock(os.open(sys.argv[1], os.O_RDONLY), fcntl.LOCK_SH)
os.execv(sys.argv[2], sys.argv[2:])
"""


_CLONE_NEWNS = 0x00020000
_mounts_at_start = os.readlink("/proc/self/ns/mnt")


def leave_shared_mounts() -> None:
    """Move to a private mount namespace, so that the machine never sees the mounts of tests.

    The mounts vanish when the tests exit. The namespace shares them with the namespaces of nodes that tests start, as
    systemd does on most machines. Otherwise such a node would keep a small file system of another test alive after
    that test unmounted it. Without root privileges this function does nothing: tests that mount need root anyway.
    """
    if os.getuid() != 0 or ctypes.CDLL(None, use_errno=True).unshare(_CLONE_NEWNS) != 0:
        return
    # first isolate this namespace from the machine, then share it with all child processes
    for propagation in ("--make-rslave", "--make-rshared"):
        subprocess.run(["mount", propagation, "/"], check=True, capture_output=True)


def has_private_mounts() -> bool:
    """Whether this process has left the mount namespace that it started in."""
    return os.readlink("/proc/self/ns/mnt") != _mounts_at_start


def need(condition: object, reason: str) -> None:
    """Skip the test if this machine lacks a feature that it needs; fail if CI demands a complete run."""
    if not condition:
        if os.environ.get("CI"):
            pytest.fail(f"needed here: {reason}")
        pytest.skip(reason)


def eventually(
    condition: Callable[[], Any], what: str | Callable[[], str], seconds: float = 30.0, every: float = 0.02
) -> Any:
    """Wait until `condition` is true and return its value; `what` describes the condition in the error message."""
    end = time.monotonic() + seconds
    while True:
        found = condition()
        if found:
            return found
        if time.monotonic() >= end:
            raise AssertionError(f"not within {seconds} s: {what() if callable(what) else what}")
        time.sleep(every)


def children(pid: int) -> list[int]:
    found: list[int] = []
    with suppress(OSError):
        for thread in os.listdir(f"/proc/{pid}/task"):
            with suppress(OSError):  # the thread has exited; the children of the others count
                found += map(int, Path(f"/proc/{pid}/task/{thread}/children").read_text().split())
    return found


def tree(pid: int) -> list[int]:
    """A process and all its descendants."""
    found = [pid]
    for child in children(pid):
        found += tree(child)
    return found


def is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def send(pid: int, number: int) -> None:
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        pass


def kill_at_once(pid: int) -> None:
    """Kill a process and all its descendants with SIGKILL, so fast that none can react."""
    pids = tree(pid)
    for one in pids:
        send(one, signal.SIGSTOP)
    # kill parents last: the kernel continues stopped processes when their parent dies
    for one in reversed([*pids, *tree(pid)]):
        send(one, signal.SIGKILL)


def as_node(name: str, words: list[str]) -> list[str]:
    """The words that run a program with a private host name and pid namespace."""
    namespaces = ["--uts", "--pid", "--fork", "--mount-proc", "--propagation", "slave"]
    return ["unshare", *namespaces, "sh", "-c", f'hostname {name}; "$@"; exit $?', "sh", *words]


class Farmer:
    """A farmer's process. As a `node` it has a private host name and pid namespace."""

    def __init__(self, arguments: list[str], folder: Path, node: str | None = None, after: Path | None = None) -> None:
        self.node = node
        words = [sys.executable, "-m", "taskfarmer", "run", *arguments]
        if node:
            words = as_node(node, words)
        if after is not None:
            words = [sys.executable, "-c", LAUNCH, str(after), *words]
        environment = {name: value for name, value in os.environ.items() if name != "SCRATCH"}
        environment["PYTHONPATH"] = str(TEST.parent)
        self.log = folder / f"farmer-{time.monotonic_ns()}.err"
        with open(self.log, "wb") as log:
            self.process = subprocess.Popen(
                words, cwd=folder, env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )
        self.stopped = False

    @property
    def pid(self) -> int:
        """The pid of the farmer; for a node, of the process inside its namespace. 0 until it exists."""
        pid = self.process.pid
        for _ in range(2 if self.node else 0):
            pid = next(iter(children(pid)), 0)
        return pid

    @property
    def ended(self) -> bool:
        return self.process.poll() is not None

    @property
    def said(self) -> str:
        return self.log.read_text(errors="replace")

    def signal(self, number: int) -> None:
        if not self.ended and self.pid:
            send(self.pid, number)

    def stop_tree(self) -> None:
        """Stop the farmer, its workers and their tasks, as if the node were suspended."""
        for _ in range(2):  # the second pass stops processes started during the first
            for pid in [] if self.ended else tree(self.process.pid):
                send(pid, signal.SIGSTOP)

    def continue_tree(self) -> None:
        for pid in [] if self.ended else tree(self.process.pid):
            send(pid, signal.SIGCONT)

    def kill_tree(self) -> None:
        """Kill the farmer, its workers and their tasks with SIGKILL, so fast that none can react."""
        if self.ended:
            return
        kill_at_once(self.process.pid)

    def wait(self, seconds: float = 60.0) -> int:
        """The exit status, negative for a signal."""
        try:
            return self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            self.kill_tree()
            raise AssertionError(f"the farmer did not end within {seconds} s; it said:\n{self.said}") from None


class Field:
    """A task list, its work directory, and the farmers on it. `close` stops all of them.

    List and work directory are in `shared` if that is given, all other files in `folder`.
    """

    def __init__(self, folder: Path, name: str = "list", shared: Path | None = None) -> None:
        self.folder = folder
        self.shared = shared or folder
        self.list = self.shared / name
        self.workdir = self.shared / f"{name}_workdir"
        self.seen_as = {self.workdir}
        self.ran = folder / "ran"
        self.ran.mkdir(exist_ok=True)
        self.farmers: list[Farmer] = []

    def write(self, commands: Iterable[str]) -> Path:
        self.list.write_text("".join(f"{one}\n" for one in commands))
        return self.list

    def appending(self, count: int, then: str = "true") -> Path:
        """A list of tasks that each append their attempt to `ran/<ID>`."""
        return self.write(f"echo $TASKFARMER_ATTEMPT >> {self.ran}/$PROC_NUMBER; {then}" for _ in range(count))

    def runs(self) -> dict[int, int]:
        """How often each task ran, according to the files that the tasks wrote."""
        return {int(path.name): len(path.read_text().split()) for path in self.ran.iterdir()}

    def start(
        self, *options: object, node: str | None = None, after: Path | None = None, through: Path | None = None
    ) -> Farmer:
        """Start a farmer; `through` names another mount of the folder."""
        where = through or self.shared
        self.seen_as.add(where / self.workdir.name)
        arguments = [str(where / self.list.name), *map(str, options)]
        farmer = Farmer(arguments, self.folder, node, after)
        self.farmers.append(farmer)
        return farmer

    def run(self, *options: object, seconds: float = 60.0, **more: Any) -> Farmer:
        """Start a farmer and wait until it exits."""
        farmer = self.start(*options, **more)
        farmer.wait(seconds)
        return farmer

    def close(self) -> None:
        left: set[int] = set()
        for farmer in self.farmers:
            if not farmer.ended:
                left.update(tree(farmer.process.pid))
                farmer.kill_tree()
        for farmer in self.farmers:
            farmer.process.wait(20)
        # processes that outlived their farmer (such as a worker in its grace period) still have our environment
        # variable
        for pid in left | set(self.strays()):
            send(pid, signal.SIGKILL)
        eventually(
            lambda: not [pid for pid in (*left, *self.strays()) if is_running(pid)], "the end of all processes", 20
        )

    def strays(self) -> list[int]:
        """Processes of this farm's tasks, identified by the work directory in their environment."""
        marks = [f"TASKFARMER_WORKDIR={path}\0".encode() for path in self.seen_as]
        found = []
        for name in filter(str.isdigit, os.listdir("/proc")):
            try:
                environment = Path(f"/proc/{name}/environ").read_bytes()
                if any(mark in environment for mark in marks) and is_running(int(name)):
                    found.append(int(name))
            except OSError:
                continue
        return found


@contextmanager
def gate(path: Path) -> Iterator[Path]:
    """A lock that is held inside the block; farmers started with `after` all start when it is released."""
    path.touch()
    with open(path) as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield path


def unmount(point: Path) -> None:
    for words in (["fusermount3", "-u"], ["umount"], ["umount", "-l"]):
        if shutil.which(words[0]) and not subprocess.run([*words, str(point)], capture_output=True).returncode:
            break


@contextmanager
def mounts(source: Path, *points: Path, options: tuple[str, ...] = ()) -> Iterator[tuple[Path, ...]]:
    """Mounts of one folder that silently do not share file locks (as on some GPFS, Lustre and NFS installations)."""
    need(os.getuid() == 0 and has_private_mounts(), "bindfs mounts need root, and a mount namespace")
    need(shutil.which("bindfs"), "bindfs is not installed")
    need(os.path.exists("/dev/fuse"), "there is no /dev/fuse")
    done: list[Path] = []
    try:
        for point in points:
            point.mkdir(exist_ok=True)
            made = subprocess.run(
                ["bindfs", "--multithreaded", *options, str(source), str(point)], capture_output=True, text=True
            )
            need(made.returncode == 0, f"bindfs: {made.stderr.strip()}")
            done.append(point)
        yield points
    finally:
        for point in done:
            unmount(point)


SFTP_SERVER = "/usr/lib/openssh/sftp-server"


@contextmanager
def sshfs_mounts(source: Path, *points: Path) -> Iterator[tuple[Path, ...]]:
    """Mounts of one folder through sshfs with its default caches. A pipe to an SFTP server replaces ssh."""
    need(os.getuid() == 0 and has_private_mounts(), "sshfs mounts need root, and a mount namespace")
    need(shutil.which("sshfs") and os.path.exists(SFTP_SERVER), "sshfs or openssh-sftp-server is not installed")
    need(os.path.exists("/dev/fuse"), "there is no /dev/fuse")
    processes: list[subprocess.Popen[bytes]] = []
    done: list[Path] = []
    try:
        for point in points:
            point.mkdir(exist_ok=True)
            ours, theirs = socket.socketpair()
            with ours, theirs:
                processes.append(subprocess.Popen([SFTP_SERVER], stdin=theirs, stdout=theirs))
                # sshfs runs in the foreground: its pipe to the server is its standard input and output
                words = ["sshfs", "-f", "-o", "passive", f":{source}", str(point)]
                client = subprocess.Popen(words, stdin=ours, stdout=ours)
            processes.append(client)
            done.append(point)
            eventually(lambda point=point, client=client: os.path.ismount(point) or client.poll() is not None, "sshfs")
            need(client.poll() is None, "this machine cannot mount with sshfs")
        yield points
    finally:
        for point in done:
            unmount(point)
        for process in processes:
            process.terminate()
            process.wait(20)
