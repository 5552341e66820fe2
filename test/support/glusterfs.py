"""A GlusterFS volume on this machine alone: its daemons live in a private network namespace, so they occupy no port."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from support.farming import eventually, has_private_mounts, is_running, need, send, unmount

ADDRESS = "192.0.2.1"
NAME = "fields"
DAEMON = """
volume management
    type mgmt/glusterd
    option working-directory {folder}/work
    option run-directory {folder}/run
    option glusterd-sockfile {folder}/run/socket
    option transport-type socket
end-volume
"""


class Hung(Exception):
    """A GlusterFS client stopped responding and was killed: the results on its mount prove nothing."""


class Volume:
    """A volume of one brick below `folder`, mounted twice: two clients with separate caches.

    A client that hangs for `patience` seconds is killed, because nothing else frees the processes that wait for it,
    and is added to `hung`. GlusterFS 10.3 did that once in about 130 storms: all threads of the client slept, and its
    log contained "server has not responded in the last 42 seconds", while the server responded to the other client.
    """

    def __init__(self, folder: Path, patience: float = 20.0) -> None:
        self.folder = folder
        self.patience = patience
        self.places = (folder / "one", folder / "two")
        self.daemon: subprocess.Popen[bytes]
        self.clients: dict[Path, subprocess.Popen[bytes]] = {}
        self.hung: list[Path] = []

    def gluster(self, *words: str) -> subprocess.CompletedProcess[str]:
        socket, log = self.folder / "run" / "socket", self.folder / "gluster.log"
        command = ["gluster", "--mode=script", f"--glusterd-sock={socket}", f"--log-file={log}", *words]
        return subprocess.run(command, capture_output=True, text=True, timeout=60)

    def _begin(self, *words: str) -> subprocess.Popen[bytes]:
        with open(self.folder / "out", "ab") as out:
            return subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=out, stderr=out, cwd=self.folder)

    @contextmanager
    def running(self) -> Iterator[None]:
        """The daemon and its volume, until the end of the block."""
        for name in ("work", "run", "brick"):
            (self.folder / name).mkdir()
        definition = self.folder / "glusterd.vol"
        definition.write_text(DAEMON.format(folder=self.folder))
        network = f"ip link set lo up && ip address add {ADDRESS}/32 dev lo"
        daemon = f"exec glusterd -N --volfile={definition} -l {self.folder}/glusterd.log -p {self.folder}/run/pid"
        self.daemon = self._begin("unshare", "--net", "sh", "-c", f"{network} && {daemon}")
        try:
            brick = f"{ADDRESS}:{self.folder}/brick"
            eventually(lambda: self.gluster("volume", "list").returncode == 0, "the daemon", 20, every=0.2)
            for words in (("create", NAME, brick, "force"), ("start", NAME)):
                made = self.gluster("volume", *words)
                assert made.returncode == 0, made.stdout + made.stderr
            yield
        finally:
            bricks = [int(path.read_text()) for path in self.folder.glob("run/vols/*/*.pid")]
            for pid in bricks:
                send(pid, signal.SIGTERM)
            self.daemon.terminate()
            self.daemon.wait(20)
            eventually(lambda: not any(map(is_running, bricks)), "the end of the brick", 20)

    @contextmanager
    def mounted(self, point: Path) -> Iterator[None]:
        """One client's mount."""
        point.mkdir()
        words = [f"--volfile-server={ADDRESS}", f"--volfile-id={NAME}", f"--log-file={point}.log", str(point)]
        network = f"--net=/proc/{self.daemon.pid}/ns/net"
        client = self.clients[point] = self._begin("nsenter", network, "glusterfs", "--no-daemon", *words)
        try:
            eventually(lambda: os.path.ismount(point) and os.access(point, os.W_OK), f"the mount {point}", 20)
            with self._watched(point, client):
                yield
        finally:
            unmount(point)
            client.terminate()  # a process that copied our mounts into a private namespace would keep it
            try:
                client.wait(20)
            except subprocess.TimeoutExpired:
                client.kill()
                client.wait(20)

    @contextmanager
    def _watched(self, point: Path, client: subprocess.Popen[bytes]) -> Iterator[None]:
        """Check a mount from time to time."""
        over = threading.Event()

        def watch() -> None:
            while not over.wait(self.patience / 10):
                asking = subprocess.Popen(["stat", str(point)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
                try:
                    asking.wait(self.patience)
                except subprocess.TimeoutExpired:
                    self.hung.append(point)
                    client.kill()
                    asking.wait()
                    return

        watcher = threading.Thread(target=watch)
        watcher.start()
        try:
            yield
        finally:
            over.set()
            watcher.join()


@contextmanager
def glusterfs(folder: Path, patience: float = 20.0) -> Iterator[Volume]:
    """A volume with its two mounts; all its processes have exited afterwards. Raises Hung if a client hung."""
    need(os.getuid() == 0 and has_private_mounts(), "GlusterFS needs root, and a mount namespace")
    need(shutil.which("glusterd") and shutil.which("gluster"), "glusterfs-server is not installed")
    need(shutil.which("ip") and shutil.which("nsenter"), "iproute2 or util-linux is not installed")
    need(os.path.exists("/dev/fuse"), "there is no /dev/fuse")
    alone = subprocess.run(["unshare", "--net", "ip", "link", "set", "lo", "up"], capture_output=True, text=True)
    need(alone.returncode == 0, f"no network namespace can be had: {alone.stderr.strip()}")
    volume = Volume(folder, patience)
    with ExitStack() as stack:
        stack.enter_context(volume.running())
        for point in volume.places:
            stack.enter_context(volume.mounted(point))
        try:
            yield volume
        except Exception as error:
            if volume.hung:
                raise Hung(f"{volume.hung[0]}: GlusterFS itself hung here") from error
            raise
