"""A directory of a group, with a task list; two members of the group, and a user outside of it."""

from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from support.farming import eventually, is_running, send
from support.users import ATTACKER, COMMAND, GROUP, VICTIM, Done, variables, words_as

MAKER = VICTIM
JOINER = 23456
OUTSIDER = ATTACKER
SHARED = stat.S_ISGID | stat.S_IRWXG


class Project:
    """`workdir` is the farm of `list`. The directory is prepared for the group with `mkdir; chgrp; chmod 2770`."""

    def __init__(self, folder: Path, options: Sequence[str]) -> None:
        self.folder = folder
        self.options = options
        self.list = folder / "list"
        self.workdir = folder / "list_workdir"
        self.started: list[subprocess.Popen[bytes]] = []
        folder.mkdir()
        os.chown(folder, MAKER, GROUP)
        folder.chmod(0o2775)
        self.write()

    def write(self, *commands: str) -> None:
        self.list.write_text("".join(f"{command}\n" for command in commands))
        self.list.chmod(0o664)

    def append(self, command: str) -> None:
        with open(self.list, "a") as file:
            file.write(f"{command}\n")

    def words(self, uid: int, *words: object) -> list[str]:
        groups = "--clear-groups" if uid == OUTSIDER else f"--groups={GROUP}"
        before = words_as(*self.options, uid=uid, groups=groups)
        return [*before, sys.executable, "-c", COMMAND, str(self.folder), *map(str, words)]

    def verb(self, uid: int, *words: object, umask: int = 0o077, **more: str) -> Done:
        """Run `taskfarmer ...` as that user."""
        done = subprocess.run(
            self.words(uid, *words),
            cwd="/",
            env=variables(self.folder, **more),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            umask=umask,
            timeout=60,
            check=False,
        )
        return Done(done.returncode, done.stdout, done.stderr)

    def run(self, uid: int, *options: object, umask: int = 0o077, **more: str) -> Done:
        return self.verb(uid, "run", self.list, *options, umask=umask, **more)

    def start(self, uid: int, *options: object) -> subprocess.Popen[bytes]:
        """Start a farmer with umask 077; its output goes to `said-<number>`."""
        with open(self.folder / f"said-{len(self.started)}", "wb") as log:
            process = subprocess.Popen(
                self.words(uid, "run", self.list, *options),
                cwd="/",
                env=variables(self.folder),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                umask=0o077,
            )
        self.started.append(process)
        return process

    def closed_to_the_group(self) -> set[str]:
        """Files of the farm that the group cannot read, or cannot write although several members have to."""
        written = {"finished", "failed", "toprocess", "timeline.json", "views.json", "HEAD", "lock"}
        wrong = set()
        for path in (self.workdir, *self.workdir.rglob("*")):
            found = path.lstat()
            bits = 0o060 if path.name in written or path.suffix == ".alive" or path.parent.name == "logs" else 0o040
            if found.st_gid != GROUP or found.st_mode & (SHARED if path.is_dir() else bits) not in (SHARED, bits):
                wrong.add(f"{path.relative_to(self.folder)} {found.st_mode:o} {found.st_gid}")
        return wrong

    def close(self) -> None:
        for process in self.started:
            if process.poll() is None:
                process.kill()
            process.wait(20)
        # find tasks and workers of a killed farmer by the variable that they all have
        mark = f"TASKFARMER_WORKDIR={self.workdir}\0".encode()
        for pid in (left := [int(name) for name in os.listdir("/proc") if name.isdigit() and _has(int(name), mark)]):
            send(pid, signal.SIGKILL)
        eventually(lambda: not any(is_running(pid) for pid in left), "the end of all processes")


def _has(pid: int, mark: bytes) -> bool:
    try:
        return mark in Path(f"/proc/{pid}/environ").read_bytes()
    except OSError:
        return False
