"""A script goes to its scheduler. What the scheduler refuses leaves nothing behind."""

from __future__ import annotations

import os
import pwd
import time
from collections.abc import Mapping
from dataclasses import replace

from taskfarmer.errors import StorageError, UsageError
from taskfarmer.launch.client import Answer, call
from taskfarmer.launch.records import StoredScript, Submission
from taskfarmer.launch.request import Request
from taskfarmer.launch.schedulers import Scheduler
from taskfarmer.storage.layout import Workdir

PATIENCE = 60.0


def submit(
    workdir: Workdir, request: Request, scheduler: Scheduler, environ: Mapping[str, str], patience: float = PATIENCE
) -> tuple[Submission, str]:
    """Keep the script in the farm and submit it; what is known of the job, and what the scheduler said besides.

    UsageError in the scheduler's words where it refuses or does not answer within `patience` seconds.
    """
    now = time.time()
    keeping = StoredScript(workdir, scheduler.script(request), now)
    command = scheduler.submission(request, keeping.script)
    intent = Submission(keeping.name, scheduler.name, "", "", now, _user(), os.getcwd(), tuple(command))
    try:
        keeping.note(intent)
        answer = call(command, environ, patience)
    except OSError as error:
        keeping.forget()
        raise UsageError(f"{error.filename or command[0]}: {error.strerror}; nothing was submitted") from error
    number = scheduler.number(answer.out)
    if answer.status is None and number is None:
        raise UsageError(
            f"{command[0]} did not answer within {patience:g} s and was ended; {_said(answer)}. The job may have been "
            f"submitted nevertheless: look with {scheduler.asker} before you submit again; the script is "
            f"{keeping.script}"
        )
    if answer.status and number is None:
        keeping.forget()
        raise UsageError(f"{scheduler.title} refuses the job: {answer.words or f'exit status {answer.status}'}")
    if number is None:
        keeping.forget()
        raise UsageError(
            f"{command[0]} named no job; {_said(answer)}. Look with {scheduler.asker} whether there is one"
        )
    done = replace(intent, job=number[0], cluster=number[1])
    try:
        keeping.note(done)
    except OSError as error:
        raise StorageError(
            f"{error.filename}: {error.strerror}; job {done.job} was submitted, and `taskfarmer jobs` will not know it"
        ) from error
    return done, answer.err


def _said(answer: Answer) -> str:
    return f"it said: {answer.words}" if answer.words else "it said nothing"


def _user() -> str:
    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        return str(os.getuid())
