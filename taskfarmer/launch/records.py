"""What was submitted, kept in the farm: `jobs/submitted/<name>.sh`, and `<name>.json` that says what came of it.

The record is written before the scheduler is asked, without the number of a job, and anew with it. What is
killed in between leaves a record without: then nobody knows whether there is a job.
"""

from __future__ import annotations

import os
import time
from dataclasses import asdict, dataclass

from taskfarmer.errors import UsageError, hit_a_limit, remedy
from taskfarmer.formats import limits, members
from taskfarmer.formats.sealed import sealed, unsealed
from taskfarmer.storage import durable
from taskfarmer.storage.layout import Workdir

_ELSEWHERE = "name another one with -w DIR"
_LATEST = 1e11
"""Seconds since the epoch that can still be written as a date."""


@dataclass(frozen=True)
class Submission:
    """A script that was given to a scheduler. `job` is empty where the scheduler did not say the number.

    `submitted` is in epoch seconds; `directory` is where the job runs, `command` what the scheduler was
    called with.
    """

    name: str
    scheduler: str
    job: str
    cluster: str
    submitted: float
    user: str
    directory: str
    command: tuple[str, ...]


class StoredScript:
    """A script on its way: `script` is its path, `forget` takes back all that was made for it."""

    def __init__(self, workdir: Workdir, text: str, submitted: float) -> None:
        self.workdir = workdir
        self.name = time.strftime("%Y%m%d-%H%M%S", time.localtime(submitted)) + f"-{durable.random_name()}"
        self.script = workdir.submitted_script(self.name)
        folders = [workdir.path, workdir.jobs, workdir.submitted]
        self._made = [path for path in folders if not os.path.isdir(path)]
        try:
            os.makedirs(os.path.dirname(workdir.path), durable.FOLDER_MODE, exist_ok=True)
            for path in self._made:
                durable.make_directory(path, workdir.shared)
            durable.prepare(self.script, os.fsencode(text), workdir.shared)
        except OSError as error:
            self.forget()
            raise UsageError(
                f"{error.filename or workdir.submitted}: {error.strerror}; the script cannot be kept in the work "
                f"directory, and nothing was submitted; {remedy(error, _ELSEWHERE, _ELSEWHERE)}"
            ) from error

    def note(self, submission: Submission) -> None:
        durable.replace(self.workdir.submission(self.name), sealed(asdict(submission)), self.workdir.shared)

    def forget(self) -> None:
        durable.unlink_quietly(self.script)
        durable.unlink_quietly(self.workdir.submission(self.name))
        for path in reversed(self._made):
            try:
                os.rmdir(path)
            except OSError:
                break  # somebody else has put something there


def submissions(workdir: Workdir) -> list[Submission]:
    """All that was submitted for this farm, the oldest first; what cannot be read is left out."""
    try:
        names = sorted(os.listdir(workdir.submitted))
    except OSError as error:
        if hit_a_limit(error):
            raise
        return []
    found = (_read(workdir, name.removesuffix(".json")) for name in names if name.endswith(".json"))
    return [one for one in found if one is not None]


def _read(workdir: Workdir, name: str) -> Submission | None:
    try:
        document = unsealed(durable.read(workdir.submission(name)))
    except OSError as error:
        if hit_a_limit(error):
            raise
        return None
    command, submitted = (document or {}).get("command"), (document or {}).get("submitted")
    if document is None or not isinstance(command, list) or not members.is_number(submitted, most=_LATEST):
        return None
    texts = {key: document.get(key) for key in ("scheduler", "job", "cluster", "user", "directory")}
    if not all(members.is_text(text, limits.DOCUMENT) for text in (*texts.values(), *command)):
        return None
    if len(str(texts["job"])) > limits.DIGITS:
        return None
    return Submission(name=name, submitted=submitted, command=tuple(command), **texts)  # type: ignore[arg-type]
