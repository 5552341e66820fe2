"""Small file systems that fill up, exceed a quota, or fail: ext4 on a loop device, tmpfs, btrfs for its quota."""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
import struct
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from support.farming import has_private_mounts, need

EXT4_SHUTDOWN = 0x8004587D
WITHOUT_ITS_JOURNAL = 2
SIZES = (1 << 18, 1 << 15, 1 << 12, 1 << 8, 1)
FULL = (errno.ENOSPC, errno.EDQUOT)


def tools(*names: str) -> None:
    need(os.getuid() == 0 and has_private_mounts(), "mounting a small file system needs root, and a mount namespace")
    for name in names:
        need(shutil.which(name), f"{name} is not installed")


def run(*words: object) -> str:
    """The output of a program; if it fails, the test fails."""
    made = subprocess.run([str(word) for word in words], capture_output=True, text=True)
    assert made.returncode == 0, f"{words}: {made.stdout}{made.stderr}"
    return made.stdout


@contextmanager
def mounted(kind: str, device: object, point: Path, options: str) -> Iterator[Path]:
    """A mount inside the block; skips the test if the kernel does not support it."""
    point.mkdir(exist_ok=True)
    made = subprocess.run(["mount", "-t", kind, "-o", options, str(device), str(point)], capture_output=True, text=True)
    if made.returncode:
        pytest.skip(f"this kernel mounts no {kind} ({options}): {made.stderr.strip()}")
    try:
        yield point
    finally:
        if os.path.ismount(point):
            run("umount", "-l", point)


class Ext4:
    """ext4 in a file: mounted inside the block, and remounted on request."""

    def __init__(self, folder: Path, size: str = "8M", inodes: int = 2000, options: str = "errors=remount-ro") -> None:
        tools("mkfs.ext4", "losetup")
        self.image = folder / "ext4"
        self.point = folder / "disk"
        self.options = f"loop,{options}"
        run("truncate", "-s", size, self.image)
        run("mkfs.ext4", "-q", "-F", "-m", 0, "-N", inodes, self.image)

    @contextmanager
    def mounted(self) -> Iterator[Path]:
        with mounted("ext4", self.image, self.point, self.options):
            yield self.point

    def remount(self) -> None:
        """Unmount it, and mount it with the contents on the disk. No process may have a file on it open."""
        run("umount", self.point)
        checked = subprocess.run(["e2fsck", "-p", str(self.image)], capture_output=True, text=True)
        assert checked.returncode in (0, 1), checked.stdout
        run("mount", "-o", self.options, self.image, self.point)

    def becomes_read_only(self) -> None:
        """The reaction of ext4 to damage in its structures."""
        device = run("findmnt", "-n", "-o", "SOURCE", self.point).strip()
        Path("/sys/fs/ext4", Path(device).name, "trigger_fs_error").write_text("a test\n")

    def loses_power(self) -> None:
        """From now on each call fails with an I/O error, and all data that was not synced is lost."""
        fd = os.open(self.point, os.O_RDONLY)
        try:
            fcntl.ioctl(fd, EXT4_SHUTDOWN, struct.pack("I", WITHOUT_ITS_JOURNAL))
        finally:
            os.close(fd)


@contextmanager
def ext4(folder: Path) -> Iterator[Path]:
    with Ext4(folder).mounted() as point:
        yield point


@contextmanager
def tmpfs(folder: Path) -> Iterator[Path]:
    tools("mount")
    with mounted("tmpfs", "tmpfs", folder / "disk", "size=2m,nr_inodes=400") as point:
        yield point


@contextmanager
def quota(folder: Path) -> Iterator[Path]:
    """A directory with a limit of 8 MiB on a file system with more free space.

    This uses btrfs: kernels without CONFIG_QFMT_V2 refuse quotas of ext4, those without CONFIG_XFS_QUOTA quotas of XFS.
    """
    tools("mkfs.btrfs", "btrfs")
    image = folder / "btrfs"
    run("truncate", "-s", "256M", image)
    run("mkfs.btrfs", "-q", image)
    with mounted("btrfs", image, folder / "disk", "loop") as point:
        run("btrfs", "quota", "enable", point)
        run("btrfs", "subvolume", "create", point / "limited")
        run("btrfs", "qgroup", "limit", "8M", point / "limited")
        yield point / "limited"


DISKS: dict[str, Callable[[Path], contextmanager[Path]]] = {"ext4": ext4, "tmpfs": tmpfs, "quota": quota}  # type: ignore[type-arg]


class _Filling:
    """Takes the rest of a file system, and gives it back."""

    def __init__(self, disk: Path) -> None:
        self.disk = disk

    def take(self) -> None:
        """Take more; OSError if nothing is left."""
        raise NotImplementedError

    def give_back(self) -> None:
        raise NotImplementedError


class AllBytes(_Filling):
    def __init__(self, disk: Path) -> None:
        super().__init__(disk)
        self.file = os.open(disk / "filling", os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    def take(self) -> None:
        for size in SIZES:
            try:
                os.write(self.file, bytes(size))
                return
            except OSError as error:
                last = error
        raise last

    def give_back(self) -> None:
        os.close(self.file)
        try:
            (self.disk / "filling").unlink()
        except OSError as error:
            # btrfs may refuse even to remove a file when a quota is exceeded
            assert error.errno == errno.EDQUOT
            run("btrfs", "qgroup", "limit", "none", self.disk)


class AllInodes(_Filling):
    """Takes all inodes, and no space."""

    def __init__(self, disk: Path) -> None:
        super().__init__(disk)
        self.names: list[Path] = []
        (disk / "names").mkdir()

    def take(self) -> None:
        name = self.disk / "names" / str(len(self.names))
        name.touch(exist_ok=False)
        self.names.append(name)

    def give_back(self) -> None:
        shutil.rmtree(self.disk / "names")


@contextmanager
def full(disk: Path, of: type[_Filling] = AllBytes) -> Iterator[None]:
    """Fill a file system, and keep it full inside the block: freed space is taken at once."""
    filling = of(disk)
    over = threading.Event()
    filled = threading.Event()

    def fill() -> None:
        while not over.is_set():
            try:
                filling.take()
            except OSError as error:
                assert error.errno in FULL
                filled.set()
                over.wait(0.001)

    thread = threading.Thread(target=fill)
    thread.start()
    try:
        assert filled.wait(30)
        yield
    finally:
        over.set()
        thread.join()
        filling.give_back()
