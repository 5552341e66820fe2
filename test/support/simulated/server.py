"""The server of a simulated shared file system: its current contents, and those that would survive a power failure.

Directories and files are one tree in memory, in which `link`, `rename`, `mkdir` and `unlink` are atomic. The durable
state is separate: the bytes of a file up to its last `fsync`, and the names of a directory up to the last `fsync` of
that directory. A power failure leaves the durable state, and a part of the later changes.
"""

from __future__ import annotations

import errno
import os
from random import Random


def failure(number: int, path: str) -> OSError:
    return OSError(number, os.strerror(number), path)


class File:
    """Another node than the writer's has read `seen` bytes, so they cannot be lost with the writer's node."""

    __slots__ = ("born", "data", "durable", "links", "node", "seen")

    def __init__(self, node: str, born: float) -> None:
        self.data = bytearray()
        self.durable = b""
        self.seen = 0
        self.links = 0
        self.node = node
        self.born = born

    def sync(self) -> None:
        self.durable = bytes(self.data)

    def sync_failed(self) -> None:
        """The kernel drops the data that it could not write, and marks the file as clean."""
        lost = len(self.data) - len(self.durable)
        if lost > 0:
            self.data[len(self.durable) :] = bytes(lost)

    def lose(self, rng: Random, kept: int, garbage: bytes) -> None:
        """The machine has failed: a part of the data that was not durable remains, or blocks with garbage."""
        synced = self.durable
        if bytes(self.data) == synced:
            return
        if not self.data.startswith(synced):  # written in place: the old bytes, or the new ones
            self.data = bytearray(rng.choice((synced, bytes(self.data))))
            return
        kept = min(len(self.data), max(kept, len(synced)))
        cut = rng.choice((kept, rng.randint(kept, len(self.data))))
        rest = len(self.data) - cut
        tail = (bytes(rest), garbage[:rest], b"")[rng.randrange(3)]
        self.data = self.data[:cut] + tail


class Folder:
    """`pending` are the changes since the last `fsync` of the directory, in order; each is atomic."""

    __slots__ = ("durable", "entries", "gone", "pending")

    def __init__(self) -> None:
        self.entries: dict[str, File | Folder] = {}
        self.durable: dict[str, File | Folder] = {}
        self.pending: list[tuple[tuple[str, File | Folder | None], ...]] = []
        self.gone = False

    def change(self, *changes: tuple[str, File | Folder | None]) -> None:
        self.pending.append(changes)
        _apply(self.entries, changes)

    def sync(self, count: int | None = None) -> None:
        for changes in self.pending[:count]:
            _apply(self.durable, changes)
        self.pending = [] if count is None else self.pending[count:]


def _apply(names: dict[str, File | Folder], changes: tuple[tuple[str, File | Folder | None], ...]) -> None:
    for name, what in changes:
        if what is None:
            names.pop(name, None)
        else:
            names[name] = what


class Server:
    """The tree, by absolute paths. Each call is atomic; an OSError is the one that a Linux server would return."""

    def __init__(self) -> None:
        self.root = Folder()

    def find(self, path: str) -> File | Folder | None:
        here: File | Folder | None = self.root
        for name in path.split("/"):
            if name:
                if not isinstance(here, Folder):
                    return None
                here = here.entries.get(name)
        return here

    def parent(self, path: str) -> tuple[Folder, str]:
        folder, _, name = path.rpartition("/")
        found = self.find(folder)
        if not isinstance(found, Folder):
            raise failure(errno.ENOENT, path)
        return found, name

    def create(self, path: str, node: str, now: float) -> File:
        folder, name = self.parent(path)
        if name in folder.entries:
            raise failure(errno.EEXIST, path)
        file = File(node, now)
        file.links = 1
        folder.change((name, file))
        return file

    def link(self, source: str, target: str) -> File:
        file = self.find(source)
        folder, name = self.parent(target)
        if not isinstance(file, File):
            raise failure(errno.ENOENT, source)
        if name in folder.entries:
            raise failure(errno.EEXIST, target)
        folder.change((name, file))
        file.links += 1
        return file

    def symlink(self, text: str, path: str, node: str, now: float) -> None:
        """Its text exists with its name, and its inode is as durable as its name."""
        file = self.create(path, node, now)
        file.data[:] = os.fsencode(text)
        file.sync()

    def unlink(self, path: str) -> None:
        folder, name = self.parent(path)
        file = folder.entries.get(name)
        if file is None:
            raise failure(errno.ENOENT, path)
        if isinstance(file, Folder):
            raise failure(errno.EISDIR, path)
        file.links -= 1
        folder.change((name, None))

    def rename(self, source: str, target: str) -> None:
        """Rename within one directory; a farm does no other renames."""
        folder, old = self.parent(source)
        file = folder.entries.get(old)
        if file is None:
            raise failure(errno.ENOENT, source)
        new = target.rpartition("/")[2]
        replaced = folder.entries.get(new)
        if isinstance(replaced, File):
            replaced.links -= 1
        folder.change((old, None), (new, file))

    def mkdir(self, path: str) -> None:
        folder, name = self.parent(path)
        if name in folder.entries:
            raise failure(errno.EEXIST, path)
        folder.change((name, Folder()))

    def rmdir(self, path: str) -> None:
        folder, name = self.parent(path)
        found = folder.entries.get(name)
        if found is None:
            raise failure(errno.ENOENT, path)
        if not isinstance(found, Folder):
            raise failure(errno.ENOTDIR, path)
        if found.entries:
            raise failure(errno.ENOTEMPTY, path)
        found.gone = True
        folder.change((name, None))

    # --- crashes ------------------------------------------------------------------------------------

    def files(self, folder: Folder | None = None) -> list[File]:
        found: list[File] = []
        for what in (folder or self.root).entries.values():
            found += self.files(what) if isinstance(what, Folder) else [what]
        return found

    def node_lost(self, node: str, rng: Random) -> None:
        """A node fails and loses the data that it had not sent to the server."""
        files = self.files()
        for file in files:
            if file.node == node:
                file.lose(rng, file.seen, bytes(rng.choice(files).data))

    def power_lost(self, rng: Random) -> None:
        """The server loses all data that was not durable; each directory keeps its first changes, or all, or none."""
        garbage = [bytes(file.data) for file in self.files()]
        self._restore(self.root, rng)
        files = self.files()
        for file in files:
            file.links = 0
            file.lose(rng, 0, rng.choice(garbage))
            file.durable = bytes(file.data)
        for file in files:
            file.links += 1

    def _restore(self, folder: Folder, rng: Random) -> None:
        folder.sync(rng.choice((0, rng.randint(0, len(folder.pending)), len(folder.pending))))
        folder.pending = []
        folder.entries = dict(folder.durable)
        folder.gone = False
        for what in folder.entries.values():
            if isinstance(what, Folder):
                self._restore(what, rng)
