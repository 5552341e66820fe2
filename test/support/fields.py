"""A user's folder on a cluster: a task list, the commands on the PATH, and the results."""

from __future__ import annotations

import os
import sys
from collections import Counter
from contextlib import suppress
from pathlib import Path

import pytest

from support.checker import Report, check
from support.daemons import marked
from support.farming import TEST, Field, eventually, send

EXAMPLES = TEST.parent / "examples"
MARK = "TASKFARMER_TEST_FOLDER"
LEASE = "6"


class ClusterField(Field):
    """A folder from which jobs are submitted; all processes of these jobs carry a mark."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        programs = folder / "bin"
        programs.mkdir()
        self.stand_in("pytaskfarmer.py", f'exec {sys.executable} {TEST.parent}/pytaskfarmer.py "$@"')
        self.variables = {"PATH": f"{programs}:{os.environ['PATH']}", MARK: str(folder)}

    def stand_in(self, name: str, text: str) -> None:
        """Put a program on the PATH of the jobs."""
        path = self.folder / "bin" / name
        path.write_text(f"#!/bin/bash\n{text}\n")
        path.chmod(0o755)

    def tasks(self, count: int, seconds: float = 0.2, then: str = "true") -> None:
        """Write a list of tasks that each append their attempt to `ran/ID`, and take a while."""
        self.count = count
        self.appending(count, f"sleep {seconds}; {then}")

    def make_farm(self) -> None:
        """Create the farm beforehand, so that farmers notice a dead node after a few seconds; this starts no task."""
        options = ("--lease", LEASE, "--timeout", 1, "--min-time-left", 60)
        assert self.run(*options).process.returncode == 75
        assert self.runs() == {}

    def processes(self) -> list[int]:
        return marked(f"{MARK}={self.folder}")

    def wait_for_runs(self, count: int) -> None:
        """Wait until this many tasks have started."""
        eventually(lambda: len(self.runs()) >= count, lambda: f"{count} tasks start; {self.said()}", 90, 0.05)

    def said(self) -> str:
        """The output of the jobs."""
        found = [*self.folder.glob("*.out"), *self.folder.glob("*.o[0-9]*")]
        return "\n".join(path.read_text(errors="replace") for path in found)

    def nothing_runs(self) -> None:
        eventually(lambda: not self.processes(), f"no process is left: {self.left()}", 20)

    def left(self) -> list[bytes]:
        found = []
        for pid in self.processes():
            with suppress(OSError):  # it has exited meanwhile
                found.append(Path(f"/proc/{pid}/cmdline").read_bytes())
        return found

    def judge(self, once: bool = True, views: bool = True) -> Report:
        """Assert that each task is finished and recorded once; if nothing was killed (`once`) it also ran once."""
        self.nothing_runs()
        report = check(self.workdir, views)
        assert report.problems == [], self.said()
        assert report.failed == set(), (report.failed, self.said())
        assert report.finished == set(range(self.count)), self.said()
        runs = self.runs()
        assert set(runs) == report.finished
        repeated = {task: times for task, times in runs.items() if times > 1}
        assert not (once and repeated), repeated
        return report

    def unfinished(self) -> bool:
        report = check(self.workdir)
        return len(report.finished) < self.count

    def hosts(self) -> Counter[str]:
        """How many results the farmers of each node have recorded."""
        return Counter(line.journal.split("-")[0] for line in check(self.workdir).lines)

    def close(self) -> None:
        super().close()
        for pid in self.processes():
            send(pid, 9)
        self.nothing_runs()


def chosen(request: pytest.FixtureRequest) -> list[str]:
    """The parameters `what` of the selected tests in this file."""
    calls = [item.callspec for item in request.session.items if item.path == request.path and hasattr(item, "callspec")]
    return [call.params["what"] for call in calls if "what" in call.params]
