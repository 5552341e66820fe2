"""Fixtures that several folders of tests use. Classes behind them are in the modules beside this one."""

from __future__ import annotations

import os
import pickle
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from benchmarks.system import compiled
from support import halfdone
from support.farming import Field, eventually, need, send
from support.farms import Farm
from support.glusterfs import Volume, glusterfs
from support.grid_engine import GridEngine
from support.halfdone import HalfDone
from support.house import Done, House
from support.lies import Liar
from support.members import Project
from support.nodes import Cluster
from support.slurm_cluster import SlurmCluster
from support.users import READING, User, close_held, may_import

HERE = Path(__file__).parent

# --- folders with a list and its farm --------------------------------------------------------------


@pytest.fixture
def house(tmp_path: Path) -> House:
    """A folder for a task list, and the commands that are run in it."""
    return House(tmp_path)


@pytest.fixture
def farm_run(house: House) -> Callable[..., Done]:
    """`farm_run(list_text, *options)`: write the list and run `pytaskfarmer.py list.txt *options` to its end."""

    def run(list_text: str | bytes, *options: object) -> Done:
        house.write(list_text)
        return house.command("pytaskfarmer.py", house.list.name, *options)

    return run


@pytest.fixture
def farm(tmp_path: Path) -> Iterator[Farm]:
    """A folder for a list and its farm. All its processes are ended."""
    one = Farm(tmp_path)
    try:
        yield one
    finally:
        one.close()


@pytest.fixture(scope="module")
def shared_farm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Farm]:
    """One farm for all tests of a module, which only read its results."""
    one = Farm(tmp_path_factory.mktemp("farm"))
    try:
        yield one
    finally:
        one.close()


@pytest.fixture
def field(tmp_path: Path) -> Iterator[Field]:
    """A folder for a task list and its farm, for many farmers. All its processes are ended."""
    one = Field(tmp_path)
    try:
        yield one
    finally:
        one.close()


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    """A farm and nodes that share it, each with a clock that may be wrong. All processes are ended."""
    one = Cluster(tmp_path)
    try:
        yield one
    finally:
        one.close()


@pytest.fixture(scope="session")
def halves(tmp_path_factory: pytest.TempPathFactory) -> tuple[HalfDone, HalfDone]:
    """Two farms that are half done, made at the same time. The second lends files to the first."""
    need(sys.platform == "linux", "permissions are taken from root with Linux capabilities")
    first, second = (tmp_path_factory.mktemp(name) for name in ("half", "other"))
    pid = os.fork()
    if not pid:
        try:
            (second / "half.pickle").write_bytes(pickle.dumps(halfdone.make(second)))
        finally:
            os._exit(0)
    half = halfdone.make(first)
    os.waitpid(pid, 0)
    other = second / "half.pickle"
    assert other.exists(), "the other farm was not made"
    return half, pickle.loads(other.read_bytes())


# --- clusters --------------------------------------------------------------------------------------


@contextmanager
def private_folder() -> Iterator[Path]:
    """A folder directly below /tmp: the name of a socket has to be short."""
    folder = Path(tempfile.mkdtemp(prefix="cluster-", dir="/tmp"))
    folder.chmod(0o755)
    try:
        yield folder
    finally:
        shutil.rmtree(folder)


@pytest.fixture(scope="session")
def slurm() -> Iterator[SlurmCluster]:
    """A Slurm with three nodes. If the nodes do not come up, it is started once more."""
    for left in (1, 0):
        with private_folder() as folder:
            slurm = SlurmCluster(folder)
            try:
                try:
                    slurm.start()
                except AssertionError as error:
                    if not left:
                        raise
                    print(error)
                    continue
                yield slurm
                return
            finally:
                slurm.stop()


@pytest.fixture(scope="session")
def grid() -> Iterator[GridEngine]:
    """A Grid Engine with one node."""
    with private_folder() as folder:
        engine = GridEngine(folder)
        try:
            engine.start()
            yield engine
        finally:
            engine.stop()


# --- file systems ----------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def volume(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Volume]:
    """A GlusterFS volume with two mounts."""
    with glusterfs(tmp_path_factory.mktemp("gluster")) as volume:
        yield volume


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """An empty directory to be examined."""
    path = tmp_path / "directory"
    path.mkdir()
    return path


@pytest.fixture
def hung(tmp_path: Path) -> Iterator[Path]:
    """A file whose reading is an uninterruptible wait.

    It is on a file system whose server takes the request and then waits for another server, which is stopped.
    """
    need(os.getuid() == 0, "bindfs mounts need root")
    need(shutil.which("bindfs") and os.path.exists("/dev/fuse"), "bindfs or /dev/fuse is missing")
    source, inner, outer = (tmp_path / name for name in ("source", "inner", "outer"))
    for folder in (source, inner, outer):
        folder.mkdir()
    (source / "file").write_text("data\n")
    servers = []
    try:
        for below, point in ((source, inner), (inner, outer)):
            servers.append(subprocess.Popen(["bindfs", "-f", "--multithreaded", str(below), str(point)]))
            eventually(lambda point=point: os.path.ismount(point), "the file system is mounted")
        send(servers[0].pid, signal.SIGSTOP)
        yield outer / "file"
    finally:
        for server in servers:
            send(server.pid, signal.SIGCONT)
        for point in (outer, inner):
            subprocess.run(["umount", "-l", str(point)], check=False)
        for server in servers:
            server.terminate()
            server.wait(20)


# --- compiled libraries ----------------------------------------------------------------------------


def _library(source: str, folder: Path) -> Path:
    need(shutil.which("gcc"), "gcc is not installed")
    library = folder / f"{source}.so"
    words = ["gcc", "-Wall", "-Wextra", "-Werror", "-O1", "-shared", "-fPIC"]
    subprocess.run([*words, "-o", library, HERE / f"{source}.c", "-ldl"], check=True)
    return library


@pytest.fixture(scope="session")
def misbehaving_calls(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The library of shim.c: calls misbehave as DOCTOR_SHIM says."""
    return str(_library("shim", tmp_path_factory.mktemp("library")))


@pytest.fixture(scope="session")
def stops(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The library of stops.c."""
    return _library("stops", tmp_path_factory.mktemp("library"))


@pytest.fixture(scope="session")
def lost_replies(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The library of lies.c."""
    return _library("lies", tmp_path_factory.mktemp("library"))


@pytest.fixture
def liar(lost_replies: Path, tmp_path: Path) -> Liar:
    """Variables that make a program get false replies about the names below `tmp_path`."""
    return Liar(lost_replies, tmp_path, tmp_path / "told")


@pytest.fixture(scope="session")
def counting(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The library of benchmarks/slow.c."""
    need(shutil.which("cc"), "no C compiler is installed")
    return compiled("slow.c", str(tmp_path_factory.mktemp("library")), "-shared", "-fPIC")


# --- programs and users ----------------------------------------------------------------------------


@pytest.fixture(scope="session")
def as_a_user() -> list[str]:
    """The words before a program that make file permissions apply to it, as they do not to root."""
    if os.getuid():
        return []
    capabilities = "-dac_override,-dac_read_search"
    words = ["setpriv", f"--bounding-set={capabilities}", f"--inh-caps={capabilities}"]
    need(shutil.which("setpriv"), "root ignores permissions, and there is no setpriv to take that from it")
    made = subprocess.run([*words, "true"], capture_output=True, text=True)
    need(made.returncode == 0, f"setpriv does not work here: {made.stderr.strip()}")
    return words


@pytest.fixture(scope="session")
def strace() -> list[str]:
    """`strace` without output."""
    words = ["strace", "-qq", "-o", "/dev/null"]
    need(shutil.which("strace"), "strace is not installed")
    need(subprocess.run([*words, "true"], capture_output=True).returncode == 0, "strace cannot trace here")
    return words


@pytest.fixture(scope="session")
def options() -> Sequence[str]:
    """The options another user needs for this Python: to read a checkout that only root may read, or none.

    The users are real users of the kernel, so this needs root.
    """
    need(os.getuid() == 0, "several users need root")
    need(shutil.which("setpriv"), "setpriv (util-linux) is not installed")
    for found in ((), READING):
        if may_import(*found):
            return found
    need(False, "another user cannot start this Python")
    raise AssertionError("unreachable")


def _open_folder() -> Path:
    """A folder that all users may enter; only its owner may enter `tmp_path`."""
    folder = Path(tempfile.mkdtemp(prefix="taskfarmer-users-"))
    folder.chmod(0o755)
    return folder


@pytest.fixture
def user(options: Sequence[str]) -> Iterator[User]:
    """A folder with a home and scratch space, and two users."""
    folder = _open_folder()
    yield User(folder, options)
    close_held()
    shutil.rmtree(folder)


@pytest.fixture(scope="module")
def farmed(options: Sequence[str]) -> Iterator[User]:
    """A user whose farm has its lock in scratch space, for all tests of a module that grow it."""
    folder = _open_folder()
    user = User(folder, options)
    done = user.run(SCRATCH=str(user.scratch))
    assert (done.status, done.lines_with("warning")) == (0, []), done.said
    yield user
    close_held()
    shutil.rmtree(folder)


@pytest.fixture
def place() -> Iterator[Path]:
    """A folder that all users may enter."""
    folder = _open_folder()
    yield folder
    shutil.rmtree(folder)


@pytest.fixture
def project(place: Path, options: Sequence[str]) -> Iterator[Project]:
    """A folder of a group, and members of the group."""
    one = Project(place / "project", options)
    yield one
    one.close()
