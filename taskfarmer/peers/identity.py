"""The identity of a farmer: `farmers/<id>.json`, written when it starts and never removed."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass, field, fields
from typing import Any

from taskfarmer import procfs
from taskfarmer.formats import members
from taskfarmer.formats.sealed import unsealed
from taskfarmer.peers import scheduled
from taskfarmer.storage import durable
from taskfarmer.storage.layout import Workdir

_LATEST = 1e11
"""The largest number of seconds since the epoch that can be written as a date."""


@dataclass(frozen=True)
class Identity:
    """The identity of a farmer. `boot`, `pid_namespace` and `pid_start` make the pid unique on its node."""

    farmer: str
    host: str
    boot: str
    pid: int
    pid_start: str
    pid_namespace: int
    slots: int
    started: float
    version: str
    job: dict[str, str] = field(default_factory=dict)

    @property
    def job_name(self) -> str | None:
        """The scheduler's ID of our job, with an array element as `123_4`; None outside of a job."""
        return scheduled.job_name(self.job)

    @property
    def runs(self) -> bool | None:
        """Whether the process of a farmer in our pid namespace runs; None if unknown."""
        return procfs.runs(self.pid, self.pid_start)

    def shares_processes_with(self, other: Identity) -> bool:
        """Whether a pid denotes the same process for both: their host, boot and pid namespace are the same.

        Virtual machines resumed from one snapshot have the same boot ID, and every kernel gives its first pid namespace
        the same number, so only the host name distinguishes them.
        """
        mine, theirs = self._node, other._node
        return mine == theirs and all(mine)

    def is_in_container_beside(self, other: Identity) -> bool:
        """Whether both run on one kernel, in different pid namespaces."""
        (_, mine, here), (_, theirs, there) = self._node, other._node
        return mine == theirs != "" and here != there and bool(here and there)

    @property
    def _node(self) -> tuple[str, str, int]:
        return self.host, self.boot, self.pid_namespace


def _text(path: str) -> str:
    try:
        return durable.read(path).decode("ascii", "replace").strip()
    except OSError:
        return ""


def _namespace() -> int:
    try:
        return os.stat("/proc/self/ns/pid").st_ino
    except OSError:
        return 0


def short_name(host: str) -> str:
    """A host's name for use in farmer IDs and file names."""
    return "".join(letter if letter.isalnum() else "-" for letter in host.split(".")[0])[:32] or "host"


def new_identity(slots: int, version: str, job: dict[str, str]) -> Identity:
    """The identity of this process as a new farmer."""
    host, pid = os.uname().nodename, os.getpid()
    return Identity(
        farmer=f"{short_name(host)}-{pid}-{durable.random_name()}",
        host=host,
        boot=_text("/proc/sys/kernel/random/boot_id"),
        pid=pid,
        pid_start=procfs.start_of(pid) or "",
        pid_namespace=_namespace(),
        slots=slots,
        started=time.time(),
        version=version,
        job=job,
    )


def load_identity(workdir: Workdir, farmer: str) -> Identity | None:
    """The identity of a farmer; None if its file is missing, corrupt or invalid."""
    try:
        document: dict[str, Any] = unsealed(durable.read(workdir.identity(farmer))) or {}
        # a later version may have more members
        found = {one.name: document[one.name] for one in fields(Identity) if one.name in document}
        return Identity(**found) if all(_may_be(name, value) for name, value in found.items()) else None
    except (OSError, TypeError):
        return None


def _may_be(name: str, value: object) -> bool:
    """Whether a member of an identity has a valid type and value."""
    if name in ("pid", "pid_namespace", "slots"):
        return members.is_whole(value)
    if name == "job":
        return members.is_texts(value)
    return members.is_number(value, most=_LATEST) if name == "started" else members.is_text(value)
