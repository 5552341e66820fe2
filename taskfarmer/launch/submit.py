"""Submits a job script. If the scheduler rejects it, no files remain."""

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
    workdir: Workdir, request: Request, scheduler: Scheduler, environ: Mapping[str, str], timeout: float = PATIENCE
) -> tuple[Submission, str]:
    """Store the script in the farm and submit it; returns the record and the scheduler's messages.

    UsageError with the scheduler's message if it rejects the job or does not answer within `timeout` seconds.
    """
    now = time.time()
    stored = StoredScript(workdir, scheduler.script(request), now)
    command = scheduler.command(request, stored.script)
    intent = Submission(stored.name, scheduler.name, "", "", now, _user(), os.getcwd(), tuple(command))
    try:
        stored.save_record(intent)
        answer = call(command, environ, timeout)
    except OSError as error:
        stored.discard()
        raise UsageError(f"{error.filename or command[0]}: {error.strerror}; nothing was submitted") from error
    number = scheduler.number(answer.out)
    if answer.status is None and number is None:
        raise UsageError(
            f"{command[0]} did not answer within {timeout:g} s and was killed; {_output(answer)}. The job may have "
            f"been submitted nevertheless: check with {scheduler.query_program} before you submit again; the script is "
            f"{stored.script}"
        )
    if answer.status and number is None:
        stored.discard()
        raise UsageError(f"{scheduler.title} rejected the job: {answer.line or f'exit status {answer.status}'}")
    if number is None:
        stored.discard()
        raise UsageError(
            f"{command[0]} did not return a job number; {_output(answer)}. Check with {scheduler.query_program} "
            "whether the job exists"
        )
    done = replace(intent, job=number[0], cluster=number[1])
    try:
        stored.save_record(done)
    except OSError as error:
        raise StorageError(
            f"{error.filename}: {error.strerror}; job {done.job} was submitted, but `taskfarmer jobs` will not list it"
        ) from error
    return done, answer.err


def _output(answer: Answer) -> str:
    return f"its output: {answer.line}" if answer.line else "it wrote no output"


def _user() -> str:
    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        return str(os.getuid())
