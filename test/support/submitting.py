"""A user that runs `taskfarmer submit` on a machine with a scheduler."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from support.farming import TEST
from support.fields import ClusterField

JOB = re.compile(r"^submitted to (?:Slurm|Grid Engine): job (\d+)", re.MULTILINE)


class Submitter(ClusterField):
    """A folder in which the user submits jobs, as on the login node of a cluster with these variables."""

    def __init__(self, folder: Path, environment: Mapping[str, str]) -> None:
        super().__init__(folder)
        self.environment = {**environment, **self.variables, "PYTHONPATH": str(TEST.parent)}

    def verb(self, *words: object, **variables: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "taskfarmer", *map(str, words)],
            cwd=self.folder,
            env={**self.environment, **variables},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )

    def submit(self, *options: object, **variables: str) -> int:
        """Submit a job; its ID."""
        done = self.verb("submit", self.list.name, *options, **variables)
        assert done.returncode == 0, done.stderr
        match = JOB.search(done.stdout)
        assert match is not None, done.stdout
        return int(match[1])

    def jobs(self) -> list[dict[str, Any]]:
        done = self.verb("jobs", self.workdir, "--json")
        assert done.returncode == 0, done.stderr
        document = json.loads(done.stdout)
        assert document["schema_version"] == 1
        assert document["warnings"] == []
        found: list[dict[str, Any]] = document["jobs"]
        return found

    def scripts(self) -> list[Path]:
        return sorted(self.workdir.glob("jobs/submitted/*.sh"))
