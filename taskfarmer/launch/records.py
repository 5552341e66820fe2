"""Records of submissions in the farm: `jobs/submitted/<name>.sh` is the script, `<name>.json` the record.

The record is written before the submission without a job number, and again afterwards with it. A crash in between
leaves a record without a number: then it is unknown whether the job exists.
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

_ELSEWHERE = "choose another work directory with -w DIR"
_LATEST = 1e11
"""The latest time that can be formatted as a date, in epoch seconds."""


@dataclass(frozen=True)
class Submission:
    """A submitted script. `job` is empty if the scheduler did not return a number.

    `submitted` is in epoch seconds, `directory` is the working directory of the job, `command` the command line of
    the submission.
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
    """A job script stored in the farm. `script` is its path; `discard` removes all files and folders made for it."""

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
            self.discard()
            raise UsageError(
                f"{error.filename or workdir.submitted}: {error.strerror}; cannot store the job script in the work "
                f"directory; nothing was submitted; {remedy(error, _ELSEWHERE, _ELSEWHERE)}"
            ) from error

    def save_record(self, submission: Submission) -> None:
        durable.replace(self.workdir.submission(self.name), sealed(asdict(submission)), self.workdir.shared)

    def discard(self) -> None:
        durable.unlink_quietly(self.script)
        durable.unlink_quietly(self.workdir.submission(self.name))
        for path in reversed(self._made):
            try:
                os.rmdir(path)
            except OSError:
                break  # another process put a file there


def submissions(workdir: Workdir) -> list[Submission]:
    """The submissions for this farm, oldest first; skips records that cannot be read."""
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
