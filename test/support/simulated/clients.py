"""How nodes see the simulated file system: replacements for `os`, `time`, `random` and `secrets`.

Each call of a process is one step of the world; before it, other processes may run, and the process may sleep or be
killed. A node caches names, missing names, contents and listings for a while, as clients of network file systems do.
It sees its own changes at once.
"""

from __future__ import annotations

import errno
import os
import posixpath
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from support.simulated.server import File, Folder, failure

if TYPE_CHECKING:
    from support.simulated.world import World

SHORT_FOR = 0.7
"""A file that another node has just created may look too short for this many seconds."""


class Cache:
    """The cache of one node: path -> (expiry, cached value)."""

    def __init__(self) -> None:
        self.names: dict[str, tuple[float, File | Folder | None]] = {}
        self.contents: dict[str, tuple[float, bytes]] = {}
        self.listings: dict[str, tuple[float, list[str]]] = {}

    def changed(self, path: str) -> None:
        self.names.pop(path, None)
        self.contents.pop(path, None)
        self.listings.pop(path.rpartition("/")[0], None)


class Opened:
    __slots__ = ("append", "path", "what")

    def __init__(self, path: str, what: File | Folder, append: bool) -> None:
        self.path, self.what, self.append = path, what, append


class Reading:
    """A file that was opened for reading, with the contents that this node saw at that time."""

    __slots__ = ("data", "place")

    def __init__(self, data: bytes) -> None:
        self.data, self.place = data, 0


class System:
    """`os` for the process that runs now."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.server = world.server
        self.path = SimpleNamespace(
            **{name: getattr(posixpath, name) for name in ("join", "abspath", "basename", "dirname", "split")},
            exists=self._exists,
            lexists=self._exists,
            islink=lambda path: False,
            isdir=lambda path: isinstance(self._peek(path), Folder),
        )

    def __getattr__(self, name: str) -> Any:
        if name.startswith(("O_", "SEEK_")) or name in ("strerror", "pathconf", "fsencode"):
            return getattr(os, name)
        raise AttributeError(f"the simulated file system has no os.{name}")

    # --- looking --------------------------------------------------------------------------------

    def _look_up(self, path: str) -> File | Folder:
        """The file of that name, as far as this node knows."""
        world = self.world
        names = world.current.cache.names
        known = names.get(path)
        if known is not None and known[0] > world.now:
            found = known[1]
            if found is not None and (found.gone if isinstance(found, Folder) else not found.links):
                del names[path]
                raise failure(world.rng.choice((errno.ENOENT, errno.ESTALE)), path)
        else:
            found = self.server.find(path)
            until = world.kept_until()
            if until:
                names[path] = until, found
        if found is None:
            raise failure(errno.ENOENT, path)
        return found

    def _peek(self, path: str) -> File | Folder | None:
        self.world.step("look", path)
        try:
            return self._look_up(path)
        except OSError:
            return None

    def _exists(self, path: str) -> bool:
        return self._peek(path) is not None

    def listdir(self, path: str) -> list[str]:
        world = self.world
        world.step("look", path)
        world.refuse("list", path)
        listings = world.current.cache.listings
        known = listings.get(path)
        if known is not None and known[0] > world.now:
            return list(known[1])
        found = self._look_up(path)
        if not isinstance(found, Folder):
            raise failure(errno.ENOTDIR, path)
        names = list(found.entries)
        world.rng.shuffle(names)
        until = world.kept_until()
        if until:
            listings[path] = until, names
        return list(names)

    def stat(self, path: str) -> SimpleNamespace:
        self.world.step("look", path)
        found = self._look_up(path)
        if isinstance(found, Folder):
            return SimpleNamespace(st_nlink=2, st_mode=stat.S_IFDIR | 0o777)
        return SimpleNamespace(st_nlink=found.links, st_mode=stat.S_IFREG | 0o777)

    def fstat(self, fd: int) -> SimpleNamespace:
        opened = self.world.current.files[fd]
        size = len(opened.data) if isinstance(opened, Reading) else 0
        return SimpleNamespace(st_mode=stat.S_IFREG | 0o777, st_size=size)

    def chmod(self, path: str, mode: int) -> None:
        """All files belong to all users here."""

    def lseek(self, fd: int, place: int, how: int) -> int:
        self.world.current.files[fd].place = place
        return place

    def read(self, fd: int, count: int) -> bytes:
        opened = self.world.current.files[fd]
        data: bytes = opened.data[opened.place : opened.place + count]
        opened.place += len(data)
        return data

    def _reading(self, path: str) -> Reading:
        """Open and read in one step."""
        world = self.world
        world.step("look", path)
        world.refuse("read", path)
        contents = world.current.cache.contents
        known = contents.get(path)
        if known is not None and known[0] > world.now:
            return Reading(known[1])
        found = self._look_up(path)
        if not isinstance(found, File):
            raise failure(errno.EISDIR, path)
        data = bytes(found.data)
        until = world.kept_until()
        if found.node != world.current.node:
            if world.now - found.born < SHORT_FOR and world.happens(world.faults.short):
                data = data[: world.rng.randrange(len(data) + 1)]
                until = world.now + SHORT_FOR
            found.seen = max(found.seen, len(data))
        if until:
            contents[path] = until, data
        return Reading(data)

    # --- changing -------------------------------------------------------------------------------

    def _change(self, kind: str, path: str, action: Callable[[], object]) -> None:
        """Do `action`, or fail, or do it and fail; if it was done the node drops its cache of the path."""
        world = self.world
        world.step(kind, path)
        world.refuse(kind, path)
        action()
        if world.faults.metadata_is_safe:
            self.server.parent(path)[0].sync()
        number = world.lost_reply(kind)
        if number is not None:
            raise failure(number, path)
        world.current.cache.changed(path)

    def open(self, path: str, flags: int, mode: int = 0o777) -> int:
        world = self.world
        what: File | Folder | None
        if not flags & (os.O_CREAT | os.O_DIRECTORY | os.O_WRONLY | os.O_RDWR):
            return world.current.opened(self._reading(path))
        if flags & os.O_CREAT:
            world.step("create", path)
            what = None if flags & os.O_EXCL else self.server.find(path)
            if what is None:
                world.refuse("create", path)
                what = self.server.create(path, world.current.node, world.now)
                world.current.cache.changed(path)
                if world.faults.metadata_is_safe:
                    self.server.parent(path)[0].sync()
        else:
            world.step("look", path)
            what = self._look_up(path)
        return world.current.opened(Opened(path, what, bool(flags & os.O_APPEND)))

    def close(self, fd: int) -> None:
        world = self.world
        if not world.current.killed:
            world.current.files.pop(fd)

    def _put(self, path: str, file: File, data: bytes, place: int) -> None:
        world = self.world
        world.current.cache.changed(path)
        file.data[place : place + len(data)] = data
        file.born = world.now
        file.node = world.current.node

    def write(self, fd: int, data: bytes | memoryview) -> int:
        world = self.world
        opened = world.current.files[fd]
        assert isinstance(opened.what, File)
        text = bytes(data)
        part = text[: world.rng.randrange(len(text) + 1)]
        try:
            world.step("write", opened.path)
            world.refuse("write", opened.path)
        except BaseException:
            # a full disk writes only a part, and so does a process that is killed
            self._put(opened.path, opened.what, part, len(opened.what.data))
            raise
        self._put(opened.path, opened.what, text, len(opened.what.data))
        return len(text)

    def pwrite(self, fd: int, data: bytes, place: int) -> int:
        world = self.world
        opened = world.current.files[fd]
        world.step("write", opened.path)
        world.refuse("write", opened.path)
        self._put(opened.path, opened.what, bytes(data), place)
        return len(data)

    def ftruncate(self, fd: int, size: int) -> None:
        self.world.step("write", "")
        opened = self.world.current.files[fd]
        del opened.what.data[size:]

    def fsync(self, fd: int) -> None:
        world = self.world
        opened = world.current.files[fd]
        world.step("fsync", opened.path)
        try:
            world.refuse("fsync", opened.path)
        except OSError:
            if isinstance(opened.what, File):
                opened.what.sync_failed()
            raise
        opened.what.sync()

    def link(self, source: str, target: str) -> None:
        world = self.world
        world.step("link", target)
        if world.postponed(source, target):
            raise failure(errno.ETIMEDOUT, target)
        world.refuse("link", target)
        if self.server.find(target) is not None and world.lies(target):
            return
        world.link(source, target)
        number = world.lost_reply("link")
        if number is not None:
            raise failure(number, target)
        world.current.cache.changed(target)

    def symlink(self, text: str, path: str) -> None:
        world = self.world
        self._change("symlink", path, lambda: self.server.symlink(text, path, world.current.node, world.now))

    def readlink(self, path: str) -> str:
        self.world.step("look", path)
        self.world.refuse("read", path)
        found = self._look_up(path)
        if not isinstance(found, File):
            raise failure(errno.EINVAL, path)
        return os.fsdecode(bytes(found.data))

    def unlink(self, path: str) -> None:
        self._change("unlink", path, lambda: self.world.unlink(path))

    def rename(self, source: str, target: str) -> None:
        self._change("rename", target, lambda: self.server.rename(source, target))
        self.world.current.cache.changed(source)

    def mkdir(self, path: str, mode: int = 0o777) -> None:
        self._change("mkdir", path, lambda: self.server.mkdir(path))

    def rmdir(self, path: str) -> None:
        self._change("rmdir", path, lambda: self.server.rmdir(path))

    def makedirs(self, path: str, mode: int = 0o777, exist_ok: bool = False) -> None:
        folder = ""
        for name in path.strip("/").split("/"):
            folder += "/" + name
            if not isinstance(self.server.find(folder), Folder):
                try:
                    self.mkdir(folder)
                except FileExistsError:
                    pass


@contextmanager
def installed(world: World) -> Iterator[None]:
    """Replace the real system in the product's modules by the simulated one."""
    from taskfarmer.farm import create
    from taskfarmer.ledger import commits, epochs, farmfile, head, ledger, results
    from taskfarmer.peers import heartbeat, identity, watch
    from taskfarmer.storage import durable, eventually, linkproof, locks, reading, turns

    system = System(world)
    clock = SimpleNamespace(monotonic=lambda: world.now, time=lambda: world.now, sleep=world.sleep)
    names = {
        "os": system,
        "time": clock,
        "random": world.rng,
        "secrets": SimpleNamespace(token_hex=lambda count: f"{world.rng.getrandbits(8 * count):0{2 * count}x}"),
        "locks": SimpleNamespace(hold_alive=lambda fd: True, PATIENCE=locks.PATIENCE),
        "FarmLock": world.lock,
    }
    saved: list[tuple[Any, str, Any]] = []
    modules = (commits, epochs, farmfile, head, identity, ledger, linkproof, heartbeat, watch, create, results, turns)
    for module in (durable, eventually, reading, *modules):
        for name, stand_in in names.items():
            if name in vars(module):
                saved.append((module, name, vars(module)[name]))
                setattr(module, name, stand_in)
    try:
        yield
    finally:
        for module, name, real in saved:
            setattr(module, name, real)
