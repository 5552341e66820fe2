"""The doctors' files: a hidden folder in the directory that they examine.

    <doctor>.sign                  identity, a counter (beat), observations; locked while the doctor runs
    <doctor>.lock                  the same kind of lock, in the folder of the lock directory
    <doctor>.news                  a new file; the other doctors measure when it becomes visible
    <doctor>.work/                 files of its probes
    race-<doctor>-with-<doctor>.N  the N-th name for which the two doctors race

Each name contains a random part, and a doctor whose beat does not increase is ignored, so the files of a killed doctor
do no harm. Later doctors remove them if the process is known to be dead or the files are old. The last doctor to leave
removes the folder.
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
"""Seconds without a write after which other doctors remove a doctor's files."""
_OWN = re.compile(r"(.+)\.(sign|lock|news|work)")
_RACE = re.compile(r"race-(.+)-with-(.+)\.\d+")
_TRIES = 20


class Place:
    """The doctors' folder in one directory, used by one doctor."""

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
        """Create an empty file in the folder, and the folder if necessary; returns the descriptor."""
        for _ in range(_TRIES):
            self._make_folder()
            try:
                return os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            except FileNotFoundError:
                continue  # another doctor left and removed the folder
        raise OSError(errno.ENOENT, "is removed as often as it is created", self.path)

    def _make_folder(self) -> None:
        try:
            os.mkdir(self.path, 0o700)
        except FileExistsError:
            pass
        found = os.lstat(self.path)
        if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid():
            raise UsageError(f"{self.path}: not your folder; ask its owner to remove it, or examine another directory")
        self._entered = True

    def doctors(self) -> list[str]:
        """The doctors with a sign here, this one included."""
        return [name.removesuffix(".sign") for name in self._names() if name.endswith(".sign")]

    def _names(self) -> list[str]:
        try:
            return sorted(os.listdir(self.path))
        except FileNotFoundError:
            return []

    # --- cleaning up ----------------------------------------------------------------------------------

    def sweep(self, me: Identity, now: float) -> None:
        """Remove the files of doctors that are dead. `now` is the current time by the clock of the file server."""
        names = self._names()
        owners = {match[1] for match in map(_OWN.fullmatch, names) if match} - {self.doctor}
        dead = {owner for owner in owners if self._is_dead(owner, names, me, now)}
        for name in names:
            race = _RACE.fullmatch(name)
            if race and not {race[1], race[2]} & (owners - dead | {self.doctor}):
                durable.unlink_quietly(os.path.join(self.path, name))
        for owner in dead:
            self._remove(owner)

    def _is_dead(self, owner: str, names: list[str], me: Identity, now: float) -> bool:
        path = next(self._path(name) for name in names if name.startswith(owner + "."))
        for suffix in (".sign", ".lock"):
            if owner + suffix in names:
                path = self._path(owner + suffix)
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

    def remove_races(self, partner: str) -> None:
        """Remove the names for which this doctor and another one raced."""
        for name in self._names():
            race = _RACE.fullmatch(name)
            if race and {race[1], race[2]} == {self.doctor, partner}:
                durable.unlink_quietly(self._path(name))

    def remove_own(self) -> None:
        """Remove the files of this doctor."""
        if self._entered:
            self._remove(self.doctor)

    def remove_if_empty(self) -> None:
        """Remove the folder if it is empty."""
        if self._entered:
            try:
                os.rmdir(self.path)
            except OSError:
                pass


def _runs_here(document: dict[str, object], me: Identity) -> bool | None:
    """Whether a doctor's process runs; None if it is on another node, or if this is unknown."""
    node = document.get("host"), document.get("boot"), document.get("namespace")
    pid, start = document.get("pid"), document.get("pid_start")
    if node != (me.host, me.boot, me.pid_namespace) or not all(node):
        return None
    return procfs.runs(pid, start) if isinstance(pid, int) and isinstance(start, str) else None
