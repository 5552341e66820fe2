"""Lists with unusual first bytes, and nodes with an unusual location of bash or of the farmer."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from support.farming import need
from support.farms import Farm

USAGE = 2


def program(path: Path, text: str) -> None:
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)


def test_a_list_that_a_windows_editor_saved_runs(farm: Farm) -> None:
    farm.list.write_bytes(b"\xef\xbb\xbf# a comment\r\n#TASKFARMER --time 1s\r\necho 0\r\necho 1\r\n")
    assert farm.run().wait() == 0
    assert farm.places() == ([], [0, 1], [])
    assert farm.log(0) == "0\n"
    # an editor that removes or adds the byte order mark changes no task
    farm.list.write_bytes(farm.list.read_bytes()[3:] + b"echo 2\r\n")
    assert farm.run().wait() == 0
    farm.list.write_bytes(b"\xef\xbb\xbf" + farm.list.read_bytes() + b"echo 3\r\n")
    assert farm.run().wait() == 0
    assert farm.places() == ([], [0, 1, 2, 3], [])
    farm.check()


def test_a_list_in_utf_16_is_refused_and_no_farm_is_created(farm: Farm) -> None:
    farm.list.write_bytes("echo 0\r\necho 1\r\n".encode("utf-16"))
    farmer = farm.run()
    assert farmer.wait() == USAGE
    assert "UTF-16: save the file as UTF-8" in farmer.said
    assert not farm.workdir.exists()


SHIFTER = 'while [ "$1" != -- ]; do shift; done; shift; exec "$@"'


@pytest.mark.parametrize("runner", ["default", "container", "set up", "with a container program"])
def test_a_line_that_begins_with_a_dash_is_a_command(farm: Farm, runner: str) -> None:
    """Plain, for a shell, and too long for an argument: bash interprets none of them as options."""
    tools = farm.folder / "tools"
    tools.mkdir()
    program(tools / "-c", "echo ran $#")
    program(tools / "shifter", SHIFTER)
    shutil.copy(Path(__file__).parents[2] / "examples" / "slurm" / "container.py", farm.folder)
    (farm.folder / "mine.ini").write_text(
        "[container]\nRunner = taskfarmer.runners.ShifterRunner\nimage = debian\n"
        "[set up]\nRunner = taskfarmer.runners.ShifterRunner\nimage = debian\nsetup = -c one\n  -c\n"
        "[with a container program]\nRunner = container.ContainerRunner\nstart = shifter --\n"
    )
    farm.environment = {"PATH": f"{tools}:{os.environ['PATH']}"}
    lines = ["-c", "-c one; true", "-x 1; -c"]
    if runner == "default":
        lines.append(f"-c {'long ' * 30_000}| sed 's/3/many/'")
    farm.write(*lines)
    assert farm.run("-n", 1, "-r", runner).wait() == 0
    setup = "ran 1\nran 0\n" if runner == "set up" else ""
    assert farm.log(0) == f"{setup}ran 0\n"
    assert farm.log(1) == f"{setup}ran 1\n"
    assert "-x: command not found\n" in farm.log(2) and farm.log(2).endswith("ran 0\n")
    if runner == "default":
        assert farm.log(3) == "ran many0000\n"


def test_tasks_run_in_bash_if_it_is_only_on_path(farm: Farm) -> None:
    """As on NixOS. In a private mount namespace an empty file hides the bash of this system."""
    need(os.getuid() == 0, "mounts need root")
    hide = ["unshare", "--mount", "sh", "-c", 'mount --bind "$1" /bin/bash && shift && exec "$@"', "sh"]
    tools = farm.folder / "tools"
    tools.mkdir()
    shutil.copy("/bin/bash", tools / "bash")
    (farm.folder / "empty").touch()
    before = [*hide, str(farm.folder / "empty")]
    need(subprocess.run([*before, "true"], capture_output=True).returncode == 0, "no mount namespaces here")
    farm.environment = {"PATH": f"{os.environ['PATH']}:{tools}"}
    farm.write("[[ $BASH == */tools/bash ]] && echo {1..3}")
    farmer = farm.run("-n", 1, before=before)
    assert farmer.wait() == 0, farmer.said
    assert farm.log(0) == "1 2 3\n"


@pytest.mark.parametrize("verb", ["run", "status", "submit --dry-run"])
def test_a_verb_run_in_a_deleted_directory_reports_that(farm: Farm, verb: str) -> None:
    (farm.folder / "gone").mkdir()
    before = ["sh", "-c", 'cd "$1" && rmdir "$1" && shift && exec "$@"', "sh", str(farm.folder / "gone")]
    farmer = farm.start(words=[sys.executable, "-m", "taskfarmer", *verb.split(), "list"], before=before)
    assert farmer.wait() == USAGE
    assert "the current directory was deleted; change to an existing one" in farmer.said
    assert len([line for line in farmer.said.splitlines() if "taskfarmer" in line]) == 1


def test_a_list_with_an_absolute_path_runs_from_a_deleted_directory(farm: Farm) -> None:
    (farm.folder / "gone").mkdir()
    before = ["sh", "-c", 'cd "$1" && rmdir "$1" && shift && exec "$@"', "sh", str(farm.folder / "gone")]
    farm.write("echo 0")
    assert farm.run(before=before).wait() == 0
    assert farm.log(0).endswith("0\n")
