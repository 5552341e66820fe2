"""A user's folder, and the two commands in real processes."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

TOP = Path(__file__).parents[2]

PROGRAMS = {
    "pytaskfarmer.py": [sys.executable, str(TOP / "pytaskfarmer.py")],
    "taskfarmer": [sys.executable, "-m", "taskfarmer"],
}


@dataclass(frozen=True)
class Done:
    """A command that has exited, and the paths of its task list and farm."""

    status: int
    stdout: bytes
    stderr: str
    list: Path
    workdir: Path

    @property
    def out(self) -> str:
        return self.stdout.decode("utf-8", "surrogateescape")

    @property
    def error_line(self) -> str:
        """The only line on stderr; there must be at most one."""
        assert self.stderr.count("\n") == 1, self.stderr
        assert "Traceback" not in self.stderr
        return self.stderr.rstrip("\n")

    def view(self, name: str) -> list[str]:
        return (self.workdir / name).read_text(encoding="utf-8", errors="surrogateescape").splitlines()


class House:
    """A user's folder with a task list, in which tests run commands."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.list = folder / "list.txt"
        self.workdir = folder / "list.txt_workdir"
        self.environ = {name: value for name, value in os.environ.items() if name not in _NOT_OURS}
        self.environ |= {"HOME": str(folder / "home"), "PYTHONPATH": str(TOP)}
        (folder / "home").mkdir()

    def write(self, text: str | bytes) -> None:
        self.list.write_bytes(text if isinstance(text, bytes) else text.encode())

    def command(self, program: str, *args: object, **options: object) -> Done:
        """Run one of the two commands with these arguments until it exits."""
        return self.process([*PROGRAMS[program], *map(str, args)], **options)  # type: ignore[arg-type]

    def process(
        self, words: Sequence[str], environ: Mapping[str, str] | None = None, input: bytes | None = None
    ) -> Done:
        done = subprocess.run(
            words,
            cwd=self.folder,
            env={**self.environ, **(environ or {})},
            input=input,
            stdin=None if input is not None else subprocess.DEVNULL,
            capture_output=True,
            timeout=120,
            check=False,
        )
        return Done(done.returncode, done.stdout, done.stderr.decode("utf-8", "replace"), self.list, self.workdir)

    def verb(self, *args: object) -> Done:
        """Run `taskfarmer VERB ...`."""
        return self.command("taskfarmer", *args)


_NOT_OURS = ("SCRATCH", "TASKFARMER_CONFIG_DIR")
