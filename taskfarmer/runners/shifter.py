"""The runner for Shifter, NERSC's containers: every task in a container of its own.

The options are PyTaskFarmer's. The setup and the task become one text for the container's bash, made so that the task
runs only if every line of the setup succeeded, and in the same shell: `source` and `export` reach the task.
"""

from __future__ import annotations

import os
import re
from functools import cached_property, lru_cache

from taskfarmer.runners.base import CommandRunner
from taskfarmer.runners.programs import Programs
from taskfarmer.runners.script import ARGUMENT_LIMIT, is_too_long
from taskfarmer.runners.shell import shell

# What makes a text more than commands joined by `&&`: it needs braces to be one command among others.
_SEVERAL = re.compile(r"[;|\n]|(?<!&)&(?!&)").search

# What people end a line of a setup with, and what joining the lines does anyway.
_ENDING = re.compile(r"(?:\s*(?:&&|;))+$")


class ShifterRunner(CommandRunner):
    """Runs a task as `shifter --image=IMAGE ... -- /bin/bash -c -- "SETUP && TASK"`.

    image: the image's name. setup: commands that come before each task, on one line or several. volumes, modules:
    bindings and modules of Shifter, separated by blanks. tempdir: give each task a fresh working directory, which is
    removed after it.
    """

    def __init__(
        self, image: str, setup: str = "", volumes: str = "", modules: str = "", tempdir: bool | str = False
    ) -> None:
        if not image.strip():
            raise ValueError("image is empty: name the Shifter image")
        self.image = image
        self.setup = setup
        self.volumes = volumes.split()
        self.modules = modules.split()
        self.tempdir = truth("tempdir", tempdir)
        # Before there are workers and tasks: then nothing is imported any more, and no other shell started.
        commands(setup)
        if self.tempdir:
            import shutil  # noqa: F401

    @cached_property
    def _programs(self) -> Programs:
        return Programs()

    @cached_property
    def _directories(self) -> dict[int, str]:
        return {}

    def argv(self, taskid: int, command: str) -> list[str]:
        """Return shifter with its options and the text for the container's bash; make the temporary directory."""
        text = with_setup(self.setup, command)
        if is_too_long(text):
            # A file of ours need not be visible in the container, so there is no other way in than an argument.
            raise ValueError(
                f"with its setup it has {len(os.fsencode(text))} bytes, more than the {ARGUMENT_LIMIT - 1} that can be "
                "passed into a container: put it into a script and run that"
            )
        argv = [self._programs.find("shifter") or "shifter", f"--image={self.image}"]
        if self.tempdir:
            argv.append(f"--workdir={self._directory(taskid)}")
        argv += [f"--volume={volume}" for volume in self.volumes]
        argv += [f"--module={module}" for module in self.modules]
        return [*argv, "--", "/bin/bash", "-c", "--", text]

    def environment(self, taskid: int) -> dict[str, str]:
        """Keep the container's bash from reading the start-up file of the host, which the image need not have."""
        return {"BASH_ENV": ""}

    def cleanup(self, taskid: int) -> None:
        """Remove the task's temporary directory."""
        directory = self._directories.pop(taskid, None)
        if directory is not None:
            import shutil

            shutil.rmtree(directory, ignore_errors=True)

    def _directory(self, taskid: int) -> str:
        self.cleanup(taskid)
        folder = os.environ.get("TMPDIR") or "/tmp"
        directory = f"{folder}/taskfarmer-{os.getpid()}-{os.urandom(8).hex()}"
        os.mkdir(directory, 0o700)
        self._directories[taskid] = directory
        return directory


def truth(key: str, value: bool | str) -> bool:
    """Return the meaning of an INI value that is yes or no; ValueError for anything else."""
    word = str(value).strip().lower()
    if word in ("true", "yes", "on", "1"):
        return True
    if word in ("false", "no", "off", "0"):
        return False
    raise ValueError(f"{key} = {value} is neither yes nor no: write True or False")


def with_setup(setup: str, task: str) -> str:
    """Return one text for `bash -c` that runs `task` if every command of `setup` succeeded: `SETUP && TASK`."""
    parts = commands(setup)
    if not parts:
        return task
    # Of `SETUP && a; b` the `b` would run whatever became of the setup. The closing brace has a line of its own, or a
    # comment would hide it.
    before = [f"{{ {_closed(part)}\n}}" if _SEVERAL(part) or "#" in part else part for part in parts]
    if _SEVERAL(task):
        task = f"{{\n{_closed(task)}\n}}"
    return " && ".join([*before, task])


@lru_cache(maxsize=8)
def commands(setup: str) -> tuple[str, ...]:
    """Return the commands of a setup: its lines, but those of one compound command (`if` to `fi`) together.

    Lines that are blank or begin with `#` are left out between commands.
    """
    lines = [line.strip() for line in setup.split("\n")]
    several = sum(1 for line in lines if line and not line.startswith("#")) > 1
    found: list[str] = []
    begun = ""
    for line in lines:
        if not begun and (not line or line.startswith("#")):
            continue
        begun = f"{begun}\n{line}" if begun else line
        if not several or _is_complete(begun):
            found.append(begun)
            begun = ""
    found.append(begun)
    ended = (_ENDING.sub("", command) for command in found)
    return tuple(command for command in ended if command)


def _is_complete(text: str) -> bool:
    """Ask bash, as only it knows: `bash -n` reads a text and runs nothing of it."""
    if _closed(text) != text:
        return False
    import subprocess

    answer = subprocess.run(
        [shell(), "-n", "-c", "--", text], stdin=subprocess.DEVNULL, capture_output=True, check=False
    )
    # A here-document without its end is a warning, with status 0.
    return answer.returncode == 0 and not answer.stderr


def _closed(text: str) -> str:
    """Return `text` such that a new line after it ends it: a last backslash, which bash keeps, would hide that one."""
    backslashes = len(text) - len(text.rstrip("\\"))
    return text + "\\" if backslashes % 2 else text
