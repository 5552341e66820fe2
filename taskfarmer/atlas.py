"""Task list handlers for the software of the ATLAS experiment. The lines of the task list are input files.

Both handlers make one command for each input file or, with `maxEventsPerJob`, one for each range of its events. The
output is written to the current directory of the task, as AthenaMP requires, and copied to `<work directory>/output`
when the job has succeeded. To split files by events, PyROOT opens every input file during the import of the list.
Use AthenaMP if possible, because it needs less memory: set `athenaopt = all:--nprocs=64`, `nprocs = 64`, or the
environment variable ATHENA_PROC_NUMBER.
"""

from __future__ import annotations

import importlib
import math
import os
from collections.abc import Iterator
from typing import Any

from taskfarmer.errors import TaskListError
from taskfarmer.tasks import ListTaskList


class _InputFiles(ListTaskList):
    """A list of input files. The outputs are copied to `outdir`."""

    def __init__(self, path: str, workdir: str, output: str, maxEventsPerJob: str | float | None) -> None:
        super().__init__(path, workdir)
        self.output = output
        self.outdir = os.path.realpath(f"{workdir}/output")
        self._events_per_job = _events_per_job(maxEventsPerJob)
        # the work directory exists during an import, but not with --dry-run
        if os.path.isdir(workdir):
            os.makedirs(self.outdir, exist_ok=True)

    def _ranges(self, file: str) -> Iterator[tuple[int, int]]:
        """Yield the event ranges of a file as (number of events to skip, largest number of events)."""
        assert self._events_per_job is not None
        for job in range(math.ceil(_count_events(file) / self._events_per_job)):
            yield job * self._events_per_job, self._events_per_job


class TransformTaskList(_InputFiles):
    """Runs an ATLAS transform, such as Reco_tf.py, on input files.

    transform: name of the transform.
    input, output: types of the files, such as HITS and RDO.
    maxEventsPerJob: split each input into jobs of so many events.
    All other keys are passed to the transform as `--key 'value'`.
    """

    def __init__(
        self,
        path: str,
        workdir: str,
        transform: str,
        input: str,
        output: str,
        maxEventsPerJob: str | float | None = None,
        **kwargs: str,
    ) -> None:
        super().__init__(path, workdir, output, maxEventsPerJob)
        self.input = input
        self.cmd = [transform, *_quoted(kwargs)]
        files, self.tasks = self.tasks, []
        for number, file in enumerate(files):
            if self._events_per_job is None:
                self._add(file, f"{output}.{number}.root")
                continue
            for job, (skip, most) in enumerate(self._ranges(file)):
                self._add(file, f"{output}.{number}.{job}.root", skipEvents=skip, maxEvents=most)

    def buildcommand(self, **kwargs: str | int) -> str:
        """Return the command of one task. `kwargs` are the options that differ between tasks."""
        copy = ["&&", "rsync", "-avr", str(kwargs[f"output{self.output}File"]), self.outdir]
        return " ".join([*self.cmd, *_plain(kwargs), *copy])

    def _add(self, file: str, outfile: str, **events: int) -> None:
        files = {f"input{self.input}File": file, f"output{self.output}File": outfile}
        self.tasks.append(self.buildcommand(**files, **events))


class AthenaTaskList(_InputFiles):
    """Runs athena with job options that take their inputs from `--filesInput`.

    jobOptions: file of job options.
    output: name of the file that the job writes; the copy of task 3 is named `<output>.3`.
    maxEventsPerJob: split each input into jobs of so many events.
    All other keys are passed to athena as `--key 'value'`.
    """

    def __init__(
        self,
        path: str,
        workdir: str,
        jobOptions: str,
        output: str,
        maxEventsPerJob: str | float | None = None,
        **kwargs: str,
    ) -> None:
        super().__init__(path, workdir, output, maxEventsPerJob)
        self.args = kwargs
        self.jobOptions = jobOptions
        files, self.tasks = self.tasks, []
        for file in files:
            if self._events_per_job is None:
                self._add(filesInput=file)
                continue
            for skip, most in self._ranges(file):
                self._add(filesInput=file, skipEvents=skip, evtMax=most)

    def buildcommand(self, taskid: int, **kwargs: str | int) -> str:
        """Return the command of task `taskid`. `kwargs` are the options that differ between tasks."""
        athena = ["athena.py", *_quoted(self.args), *_plain(kwargs), self.jobOptions]
        copy = ["&&", "rsync", "-avr", self.output, f"{self.outdir}/{self.output}.{taskid}"]
        return " ".join(athena + copy)

    def _add(self, **options: str | int) -> None:
        self.tasks.append(self.buildcommand(len(self.tasks), **options))


def _quoted(options: dict[str, str]) -> list[str]:
    return [f"--{key} '{value}'" for key, value in options.items()]


def _plain(options: dict[str, str | int]) -> list[str]:
    return [f"--{key} {value}" for key, value in options.items()]


def _events_per_job(value: str | float | None) -> int | None:
    if value is None:
        return None
    try:
        events = float(value)  # PyTaskFarmer accepted "1e4" as well
    except ValueError:
        events = math.nan
    # PyTaskFarmer accepted fractions, but then omitted events: 5 events in jobs of 2.5 were split into 0-1 and 2-3.
    if not (1 <= events < math.inf and events.is_integer()):
        raise TaskListError(f"maxEventsPerJob = {value} is not a positive integer: correct it, or remove the key")
    return int(events)


def _count_events(file: str) -> int:
    root = _pyroot()
    try:
        handle = root.TFile.Open(file)
        if not handle:  # older ROOT returns a null pointer, newer ROOT raises OSError
            raise OSError("ROOT cannot open it")
        try:
            return int(handle.Get("CollectionTree").GetEntries())
        finally:
            handle.Close()
    except (OSError, AttributeError, ReferenceError) as error:
        raise TaskListError(
            f"{file}: cannot count the events: {error}: "
            "check the file and its CollectionTree, or remove maxEventsPerJob"
        ) from error


def _pyroot() -> Any:
    # Catch all exceptions: an incomplete ROOT environment raises other errors than ImportError.
    try:
        return importlib.import_module("ROOT")
    except Exception as error:
        raise TaskListError(
            f"maxEventsPerJob needs PyROOT to count the events, but it cannot be imported ({error}): "
            "set up ROOT in this environment, or remove maxEventsPerJob"
        ) from error
