"""Where doctors meet and leave their files: a hidden folder in the directory that they examine.

    <doctor>.sign             who it is, a number that rises, what it has seen; locked while it lives
    <doctor>.lock             the same kind of lock, in the folder of the lock directory
    <doctor>.news             a file whose appearance is measured
    <doctor>.work/            what its probes write
    race-<doctor>-<doctor>-N  the N-th name that the two race for

Every name has a random part, and nothing is believed of a doctor whose number does not rise: what a killed
one leaves misleads nobody. Whoever comes later removes it, if that process is known to be gone or the files
are old; the last to leave removes the folder.
"""

from __future__ import annotations

import errno
import os
import re
import shutil
import stat

from taskfarmer import procfs
from taskfarmer.errors import UsageError
from taskfarmer.formats.sealed import unsealed
from taskfarmer.peers.identity import Identity
from taskfarmer.storage import durable

FOLDER = ".taskfarmer-doctor"
OLD = 3600.0
"""Seconds after which files of a doctor that wrote nothing since are removed by others."""
_OWN = re.compile(r"(.+)\.(sign|lock|news|work)")
_RACE = re.compile(r"race-(.+)-with-(.+)\.\d+")
_TRIES = 20


class Place:
    """The folder of doctors in one directory, as one doctor uses it."""

    def __init__(self, directory: str, doctor: str) -> None:
        self.directory = directory
        self.doctor = doctor
        self.path = os.path.join(directory, FOLDER)
        self._entered = False

    def sign(self, doctor: str) -> str:
        return os.path.join(self.path, doctor + ".sign")

    def lock(self, doctor: str) -> str:
        return os.path.join(self.path, doctor + ".lock")

    def news(self, doctor: str) -> str:
        return os.path.join(self.path, doctor + ".news")

    @property
    def work(self) -> str:
        return os.path.join(self.path, self.doctor + ".work")

    def race(self, first: str, second: str, number: int) -> str:
        return os.path.join(self.path, f"race-{first}-with-{second}.{number}")

    def create(self, path: str) -> int:
        """A new, empty file in the folder, which is made if need be; its descriptor."""
        for _ in range(_TRIES):
            self._make_folder()
            try:
                return os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            except FileNotFoundError:
                continue  # another doctor left and took the folder along
        raise OSError(errno.ENOENT, "vanishes as often as it is made", self.path)

    def _make_folder(self) -> None:
        try:
            os.mkdir(self.path, 0o700)
        except FileExistsError:
            pass
        found = os.lstat(self.path)
        if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid():
            raise UsageError(
                f"{self.path}: is not a folder of yours; ask its owner to remove it, or examine another directory"
            )
        self._entered = True

    def doctors(self) -> list[str]:
        """Those that have a sign here, this one too."""
        return [name.removesuffix(".sign") for name in self._names() if name.endswith(".sign")]

    def _names(self) -> list[str]:
        try:
            return sorted(os.listdir(self.path))
        except FileNotFoundError:
            return []

    # --- what is left behind --------------------------------------------------------------------------

    def sweep(self, me: Identity, now: float) -> None:
        """Remove what doctors left that are gone. `now` is when a file was stamped that was written just now."""
        names = self._names()
        owners = {match[1] for match in map(_OWN.fullmatch, names) if match} - {self.doctor}
        gone = {owner for owner in owners if self._is_gone(owner, names, me, now)}
        for name in names:
            race = _RACE.fullmatch(name)
            if race and not {race[1], race[2]} & (owners - gone | {self.doctor}):
                durable.unlink_quietly(os.path.join(self.path, name))
        for owner in gone:
            self._remove(owner)

    def _is_gone(self, owner: str, names: list[str], me: Identity, now: float) -> bool:
        path = next(self._path(name) for name in names if name.startswith(owner + "."))
        for ending in (".sign", ".lock"):
            if owner + ending in names:
                path = self._path(owner + ending)
                try:
                    document = unsealed(durable.read(path))
                except OSError:
                    document = None
                runs = _runs_here(document, me) if document is not None else None
                if runs is not None:
                    return not runs
        try:
            return now - os.stat(path).st_mtime > OLD
        except OSError:
            return False

    def _path(self, name: str) -> str:
        return os.path.join(self.path, name)

    def _remove(self, doctor: str) -> None:
        shutil.rmtree(self._path(doctor + ".work"), ignore_errors=True)
        for path in (self.news(doctor), self.lock(doctor), self.sign(doctor)):
            durable.unlink_quietly(path)

    def forget_races(self, partner: str) -> None:
        """Remove the names that this doctor and another one raced for."""
        for name in self._names():
            race = _RACE.fullmatch(name)
            if race and {race[1], race[2]} == {self.doctor, partner}:
                durable.unlink_quietly(self._path(name))

    def forget_own(self) -> None:
        """Remove our own files."""
        if self._entered:
            self._remove(self.doctor)

    def remove_if_empty(self) -> None:
        """Remove the folder if nobody else is in it."""
        if self._entered:
            try:
                os.rmdir(self.path)
            except OSError:
                pass


def _runs_here(document: dict[str, object], me: Identity) -> bool | None:
    """Whether the process of a doctor of this very node runs; None if it is of another node, or cannot be known."""
    node = document.get("host"), document.get("boot"), document.get("namespace")
    pid, start = document.get("pid"), document.get("pid_start")
    if node != (me.host, me.boot, me.pid_namespace) or not all(node):
        return None
    return procfs.runs(pid, start) if isinstance(pid, int) and isinstance(start, str) else None
