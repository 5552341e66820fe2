"""The runner for Shifter, the container system of NERSC: each task runs in a separate container.

The options are those of PyTaskFarmer. The setup and the task become one command for the bash in the container. The task
runs only if every line of the setup succeeded, and in the same shell, so `source` and `export` in the setup affect it.
"""

from __future__ import annotations

import os
import re
import subprocess
from functools import cached_property, lru_cache

from taskfarmer.runners.base import CommandRunner
from taskfarmer.runners.programs import Programs
from taskfarmer.runners.script import ARGUMENT_LIMIT, is_too_long
from taskfarmer.runners.shell import shell

# Text with these characters is more than commands joined by `&&`, so it needs braces around it.
_SEVERAL = re.compile(r"[;|\n]|(?<!&)&(?!&)").search

# People often write `&&` or `;` at the end of a setup line; the lines are joined anyway.
_ENDING = re.compile(r"(?:\s*(?:&&|;))+$")


class ShifterRunner(CommandRunner):
    """Runs a task as `shifter --image=IMAGE ... -- /bin/bash -c -- "SETUP && TASK"`.

    image: name of the Shifter image.
    setup: commands that run before each task, on one or more lines.
    volumes, modules: Shifter volumes and modules, separated by blanks.
    tempdir: `True` to run each task in a new temporary directory, which is removed afterwards.
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
        self.tempdir = parse_bool("tempdir", tempdir)
        # Do this before workers and tasks start: later no module may be imported and no other shell started.
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
        """Return the shifter command line; create the temporary directory."""
        text = with_setup(self.setup, command)
        if is_too_long(text):
            # The container may not see files of the host, so an argument is the only way.
            raise ValueError(
                f"the command and its setup have {len(os.fsencode(text))} bytes, but only {ARGUMENT_LIMIT - 1} "
                "can be passed into a container: put them into a script and run that"
            )
        argv = [self._programs.find("shifter") or "shifter", f"--image={self.image}"]
        if self.tempdir:
            argv.append(f"--workdir={self._directory(taskid)}")
        argv += [f"--volume={volume}" for volume in self.volumes]
        argv += [f"--module={module}" for module in self.modules]
        return [*argv, "--", "/bin/bash", "-c", "--", text]

    def environment(self, taskid: int) -> dict[str, str]:
        """Unset BASH_ENV: it names a file of the host that the image may not have."""
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


def parse_bool(key: str, value: bool | str) -> bool:
    """Return the bool that an INI value stands for (`yes`, `False`, `1`, ...). Raise ValueError for other values."""
    word = str(value).strip().lower()
    if word in ("true", "yes", "on", "1"):
        return True
    if word in ("false", "no", "off", "0"):
        return False
    raise ValueError(f"{key} = {value} is not a boolean: write True or False")


def with_setup(setup: str, task: str) -> str:
    """Return text for `bash -c` that runs `task` if every command of `setup` succeeds: `SETUP && TASK`."""
    parts = commands(setup)
    if not parts:
        return task
    # In `SETUP && a; b` the `b` would run even if the setup fails, hence the braces. The closing brace is on a separate
    # line, because a comment could hide it.
    before = [f"{{ {_closed(part)}\n}}" if _SEVERAL(part) or "#" in part else part for part in parts]
    if _SEVERAL(task):
        task = f"{{\n{_closed(task)}\n}}"
    return " && ".join([*before, task])


@lru_cache(maxsize=8)
def commands(setup: str) -> tuple[str, ...]:
    """Return the commands of a setup: its lines, but the lines of a compound command (`if` to `fi`) as one.

    Blank lines and lines that start with `#` between commands are ignored.
    """
    lines = [line.strip() for line in setup.split("\n")]
    several = sum(1 for line in lines if line and not line.startswith("#")) > 1
    found: list[str] = []
    unfinished = ""
    for line in lines:
        if not unfinished and (not line or line.startswith("#")):
            continue
        unfinished = f"{unfinished}\n{line}" if unfinished else line
        if not several or _is_complete(unfinished):
            found.append(unfinished)
            unfinished = ""
    found.append(unfinished)
    ended = (_ENDING.sub("", command) for command in found)
    return tuple(command for command in ended if command)


def _is_complete(text: str) -> bool:
    """Whether `text` is a complete command. Only bash knows: `bash -n` parses it and runs nothing."""
    if _closed(text) != text:
        return False
    answer = subprocess.run(
        [shell(), "-n", "-c", "--", text], stdin=subprocess.DEVNULL, capture_output=True, check=False
    )
    # bash reports an unterminated here-document as a warning, with status 0.
    return answer.returncode == 0 and not answer.stderr


def _closed(text: str) -> str:
    """Return `text` such that a newline terminates it: double a last backslash, which would quote the newline."""
    backslashes = len(text) - len(text.rstrip("\\"))
    return text + "\\" if backslashes % 2 else text
