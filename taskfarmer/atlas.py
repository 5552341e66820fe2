"""Task list handlers for the software of the ATLAS experiment: the lines of the list are input files, not commands.

Both make one command for each input file or, with `maxEventsPerJob`, one for each range of its events. The output is
written where the task runs, as AthenaMP wants it, and copied to `<work directory>/output` once the job succeeded. To
split, the number of events must be known: that takes PyROOT, which opens every input file at the import of the list.
AthenaMP (`athenaopt = all:--nprocs=64`, `nprocs = 64`, or the variable ATHENA_PROC_NUMBER) needs less memory for the
same work where it can be used.
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
    """A list of input files, and the directory that the outputs are copied to."""

    def __init__(self, path: str, workdir: str, output: str, maxEventsPerJob: str | float | None) -> None:
        super().__init__(path, workdir)
        self.output = output
        self.outdir = os.path.realpath(f"{workdir}/output")
        self._events_per_job = _events_per_job(maxEventsPerJob)
        # a farm is there when its list is taken in; where it is not, somebody only asks what would run
        if os.path.isdir(workdir):
            os.makedirs(self.outdir, exist_ok=True)

    def _ranges(self, file: str) -> Iterator[tuple[int, int]]:
        """Give the ranges of events of a file: how many to skip, how many to take at most."""
        assert self._events_per_job is not None
        for job in range(math.ceil(_count_events(file) / self._events_per_job)):
            yield job * self._events_per_job, self._events_per_job


class TransformTaskList(_InputFiles):
    """Runs an ATLAS transform, such as Reco_tf.py, on input files.

    transform: its name. input, output: the types of the files, such as HITS and RDO. maxEventsPerJob: split the inputs.
    Every other option is passed on as `--option 'value'`.
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
        """Return the command of one task out of the options that are its own."""
        copy = ["&&", "rsync", "-avr", str(kwargs[f"output{self.output}File"]), self.outdir]
        return " ".join([*self.cmd, *_plain(kwargs), *copy])

    def _add(self, file: str, outfile: str, **events: int) -> None:
        files = {f"input{self.input}File": file, f"output{self.output}File": outfile}
        self.tasks.append(self.buildcommand(**files, **events))


class AthenaTaskList(_InputFiles):
    """Runs athena with job options that take their inputs from `--filesInput`.

    jobOptions: the file of job options. output: the name of the file that the job writes; the copy of task 3 is named
    `<output>.3`. maxEventsPerJob: split the inputs. Every other option is passed on as `--option 'value'`.
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
        """Return the command of one task out of its ID, which names its output, and the options that are its own."""
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
        events = float(value)  # "1e4" too, as before
    except ValueError:
        events = math.nan
    # PyTaskFarmer took fractions as well, and then left out events: 5 in jobs of 2.5 were 0-1 and 2-3.
    if not (1 <= events < math.inf and events.is_integer()):
        raise TaskListError(
            f"maxEventsPerJob = {value} is no number of events: write a whole number from 1 on, or leave it out"
        )
    return int(events)


def _count_events(file: str) -> int:
    root = _pyroot()
    try:
        handle = root.TFile.Open(file)
        if not handle:  # older ROOT gives a null pointer where newer raises OSError
            raise OSError("ROOT cannot open it")
        try:
            return int(handle.Get("CollectionTree").GetEntries())
        finally:
            handle.Close()
    except (OSError, AttributeError, ReferenceError) as error:
        raise TaskListError(
            f"{file}: its events cannot be counted: {error}: "
            "check the file and its CollectionTree, or leave out maxEventsPerJob"
        ) from error


def _pyroot() -> Any:
    # Any exception, not ImportError alone: a ROOT that was set up halfway fails in other ways too.
    try:
        return importlib.import_module("ROOT")
    except Exception as error:
        raise TaskListError(
            f"maxEventsPerJob is set, but PyROOT, which counts the events, cannot be imported ({error}): "
            "set up ROOT in this environment, or leave out maxEventsPerJob"
        ) from error
