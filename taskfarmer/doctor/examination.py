"""The examination of a directory."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

from taskfarmer.doctor import probes
from taskfarmer.doctor.findings import Findings, OneNode
from taskfarmer.doctor.meeting import Meeting
from taskfarmer.doctor.place import Place
from taskfarmer.doctor.signs import LockedFile, PeerState, initial_state
from taskfarmer.errors import UsageError, hit_a_limit, remedy
from taskfarmer.ledger import farmfile
from taskfarmer.peers.identity import new_identity, short_name
from taskfarmer.storage import durable
from taskfarmer.storage.layout import Workdir
from taskfarmer.storage.mountchecks import MountedPath
from taskfarmer.storage.mounts import mount_of

_ELSEWHERE = "choose a directory that you can write to"


def lock_directory(directory: str, scratch: str | None, uid: int) -> str:
    """The directory that contains, or would contain, the lock of a farm in this directory.

    An existing farm records it. Otherwise it is the user's folder in scratch space, or the directory itself.
    """
    workdir = Workdir.at(directory)
    farm = farmfile.load(workdir) if os.path.isdir(directory) else None
    if farm is not None:
        return os.path.dirname(farm.lock) if farm.lock else workdir.path
    if not scratch or not os.path.isdir(scratch):
        return workdir.path
    folder = os.path.join(os.path.abspath(scratch), f".taskfarmer-{uid}")
    return folder if os.path.isdir(folder) else os.path.abspath(scratch)


def examine(directory: str, locks: str, version: str, nodes: int = 1, wait: float = 10.0) -> Findings:
    """Examine a directory and the one for locks, together with doctors on `nodes` - 1 other nodes.

    UsageError if the directory cannot be used at all. No files remain afterwards.
    """
    path, lock_path = os.path.abspath(directory), os.path.abspath(locks)
    with _present(path, lock_path, version) as doctor:
        try:
            here = _examine_alone(doctor)
            meeting = Meeting(doctor.place, doctor.lock_place, doctor.state, doctor.sign)
            peers = meeting.run(nodes, wait) if nodes > 1 else []
        except OSError as error:
            what = "this directory cannot hold a farm"
            if hit_a_limit(error):
                what = f"cannot examine the file system; {remedy(error, '')}"
            raise UsageError(f"{error.filename or path}: {error.strerror}; {what}") from error
    return Findings(
        doctor.state.doctor,
        doctor.state.host,
        MountedPath(path, mount_of(path)),
        MountedPath(lock_path, mount_of(lock_path)),
        here,
        nodes,
        wait if nodes > 1 else 0.0,
        tuple(sorted(peers, key=lambda peer: (peer.host, peer.doctor))),
    )


@dataclass
class _Doctor:
    place: Place
    lock_place: Place | None
    state: PeerState
    sign: LockedFile
    lock: LockedFile | None
    lock_trouble: str | None


@contextmanager
def _present(path: str, lock_path: str, version: str) -> Iterator[_Doctor]:
    """Make a doctor's sign and locks in the directory, and remove them at the end."""
    me = replace(new_identity(0, version, {}), farmer="")
    me = replace(me, farmer=f"{durable.random_name()}-{short_name(me.host)}-{me.pid}")
    place = Place(path, me.farmer)
    lock_place = Place(lock_path, me.farmer) if lock_path != path else None
    state = initial_state(me)
    opened: list[LockedFile] = []
    try:
        sign = _sign(place, state)
        opened.append(sign)
        lock, trouble = _lock(lock_place, state)
        opened += [lock] if lock else []
        state = replace(state, holds=sign.holds, holds_farm_lock=lock is not None and lock.holds)
        place.sweep(me, sign.stamp)
        if lock_place is not None and lock is not None:
            lock_place.sweep(me, lock.stamp)
        yield _Doctor(place, lock_place if lock else None, state, sign, lock, trouble)
    finally:
        places = [place] if lock_place is None else [place, lock_place]
        for one in places:
            # before the locks are released: otherwise another doctor could find a free lock and consider it broken
            one.remove_own()
        for file in opened:
            file.close()
        for one in places:
            # after closing the files: NFS and FUSE rename an open file instead of removing it
            one.remove_if_empty()


def _sign(place: Place, state: PeerState) -> LockedFile:
    try:
        try:
            is_directory = stat.S_ISDIR(os.stat(place.directory).st_mode)
        except FileNotFoundError:
            is_directory = False
        if not is_directory:
            what = "not a directory" if os.path.lexists(place.directory) else "no such directory"
            raise UsageError(f"{place.directory}: {what}; choose the directory that farmers will share")
        sign = LockedFile(place, place.sign(place.doctor))
        sign.write(state)
        os.mkdir(place.work)
    except OSError as error:
        raise UsageError(
            f"{place.directory}: cannot create a file in it ({error.strerror}); {remedy(error, _ELSEWHERE, _ELSEWHERE)}"
        ) from error
    return sign


def _lock(place: Place | None, state: PeerState) -> tuple[LockedFile | None, str | None]:
    if place is None:
        return None, None
    try:
        lock = LockedFile(place, place.lock(place.doctor))
        lock.write(state)
        os.mkdir(place.work)
    except OSError as error:
        return None, error.strerror or str(error)
    except UsageError as error:
        return None, str(error)
    return lock, None


def _examine_alone(doctor: _Doctor) -> OneNode:
    folder = doctor.place.work
    sync, directory_sync = probes.syncs(folder)
    lock_folder = doctor.lock_place.work if doctor.lock_place is not None else folder
    usable = doctor.lock_trouble is None
    return OneNode(
        probes.links(folder),
        probes.renames(folder),
        sync,
        directory_sync,
        probes.commits(folder),
        probes.exclusion(folder),
        probes.exclusion(lock_folder) if usable else None,
        probes.lock_cycles(lock_folder) if usable else None,
        doctor.lock_trouble,
        probes.server_clock(folder),
    )
