"""The paths of a farm. No other module builds them."""

from __future__ import annotations

import os
import re
from typing import NamedTuple

from taskfarmer.formats import limits

_EPOCH = re.compile(r"([0-9]{6,18})-[0-9a-f]{8}")


class Workdir(NamedTuple):
    """The work directory of a farm. `path` is absolute, so `chdir` has no effect on it."""

    path: str
    logs_dir: str | None = None
    shared: bool = False
    """Whether the group may work on the farm, so that the modes of new files must not depend on the umask."""

    @classmethod
    def at(cls, path: str, logs_dir: str | None = None) -> Workdir:
        return cls(os.path.abspath(path), logs_dir and os.path.abspath(logs_dir))

    def _in(self, *names: str) -> str:
        return os.path.join(self.path, *names)

    @property
    def farm(self) -> str:
        return self._in("farm.json")

    @property
    def lock(self) -> str:
        return self._in("lock")

    @property
    def tasks(self) -> str:
        return self._in("tasks")

    def segment(self, name: str) -> str:
        return self._in("tasks", name)

    def segment_index(self, name: str) -> str:
        return self._in("tasks", name + ".index")

    def segment_source(self, name: str) -> str:
        return self._in("tasks", name + ".source")

    @property
    def ledger(self) -> str:
        return self._in("ledger")

    @property
    def head(self) -> str:
        return self._in("ledger", "HEAD")

    @property
    def turn(self) -> str:
        return self._in("ledger", "turn")

    def epoch(self, name: str) -> str:
        return self._in("ledger", name)

    def prepared(self, epoch: str) -> str:
        return self._in("ledger", epoch, "tmp")

    def revision(self, epoch: str, number: int) -> str:
        return self._in("ledger", epoch, str(number))

    @property
    def results(self) -> str:
        return self._in("results")

    def journal(self, name: str) -> str:
        return self._in("results", name)

    def closed_journal(self, name: str, size: int) -> str:
        return self._in("results", f"{name}.{size}")

    @property
    def farmers(self) -> str:
        return self._in("farmers")

    def identity(self, farmer: str) -> str:
        return self._in("farmers", farmer + ".json")

    def alive(self, farmer: str) -> str:
        return self._in("farmers", farmer + ".alive")

    def ballast(self, farmer: str) -> str:
        return self._in("farmers", farmer + ".ballast")

    def farewell(self, farmer: str) -> str:
        return self._in("farmers", farmer + ".farewell")

    @property
    def stop(self) -> str:
        return self._in("stop")

    @property
    def locks(self) -> str:
        return self._in("locks.json")

    @property
    def jobs(self) -> str:
        return self._in("jobs")

    def job(self, key: str) -> str:
        return self._in("jobs", key + ".json")

    def job_asked(self, key: str) -> str:
        return self._in("jobs", key + ".asked")

    @property
    def submitted(self) -> str:
        return self._in("jobs", "submitted")

    def submission(self, name: str) -> str:
        return self._in("jobs", "submitted", name + ".json")

    def submitted_script(self, name: str) -> str:
        return self._in("jobs", "submitted", name + ".sh")

    @property
    def toprocess(self) -> str:
        return self._in("toprocess")

    @property
    def finished(self) -> str:
        return self._in("finished")

    @property
    def failed(self) -> str:
        return self._in("failed")

    @property
    def timeline(self) -> str:
        return self._in("timeline.json")

    @property
    def views(self) -> str:
        return self._in("views.json")

    @property
    def logs(self) -> str:
        return self.logs_dir or self._in("logs")

    @property
    def has_own_logs(self) -> bool:
        """Whether the logs are inside the work directory, not in a directory that other farms may share."""
        return self.logs == self._in("logs")

    @property
    def log_owner(self) -> str:
        """With --logs-dir: contains the ID of the farm that used the directory first."""
        return os.path.join(self.logs, ".farm")

    def log(self, task_id: int) -> str:
        return os.path.join(self.logs, f"log_{task_id}")

    @property
    def running(self) -> str:
        """Scratch files of running tasks, with `--logs packed` and `failed`."""
        return os.path.join(self.logs, "running")

    def scratch(self, farmer: str, slot: int, count: int) -> str:
        return os.path.join(self.running, f"{farmer}-{slot}" + (f".{count}" if count > 1 else ""))

    @property
    def packed(self) -> str:
        return os.path.join(self.logs, "packed")

    def pack(self, farmer: str) -> str:
        return os.path.join(self.packed, farmer)

    def set_aside(self, farmer: str, task_id: int, attempt: int) -> str:
        """The output of an attempt that stays a separate file."""
        return os.path.join(self.packed, f"{farmer}.{task_id}.{attempt}")

    @property
    def folders(self) -> tuple[str, ...]:
        """The directories that are created with a farm, in this order."""
        return (self.tasks, self.ledger, self.results, self.farmers, self.logs)


def epoch_number(name: str) -> int | None:
    """The number in the name of an epoch; None if the name is not that of an epoch."""
    match = _EPOCH.fullmatch(name)
    return int(match[1]) if match else None


def is_revision(name: str) -> bool:
    """Whether a name in the directory of an epoch is that of a revision."""
    return name.isascii() and name.isdigit() and len(name) <= limits.DIGITS


def epoch_name(number: int, random: str) -> str:
    return f"{number:06d}-{random}"
