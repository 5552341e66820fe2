"""If log directories are removed while a farmer runs, tasks go on, and the output of later tasks is kept."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from support.farms import Farm

MODES = (("files",), ("files", "--log-limit", "64k"), ("failed",), ("packed",))


def output(farm: Farm, task: int) -> bytes:
    words = [sys.executable, "-m", "taskfarmer", "logs", str(farm.workdir), str(task)]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    return subprocess.run(words, env=environment, stdin=subprocess.DEVNULL, capture_output=True, timeout=60).stdout


@pytest.mark.parametrize("made_again", [False, True], ids=["removed", "removed and made again"])
@pytest.mark.parametrize("mode", MODES, ids=" ".join)
def test_tasks_go_on_when_their_logs_are_removed(farm: Farm, mode: tuple[str, ...], made_again: bool) -> None:
    wait = f"while ! [ -e {farm.folder}/go ]; do sleep 0.02; done"
    farm.write(
        "echo first; exit 1", farm.marked(f"echo runs; {wait}; exit 1"), *["echo after $PROC_NUMBER; exit 1"] * 8
    )
    farmer = farm.start("-n", 1, "--logs", *mode)
    farm.wait_for_tasks(1)
    shutil.rmtree(farm.workdir / "logs")
    if made_again:
        (farm.workdir / "logs").mkdir()
    (farm.folder / "go").touch()
    assert farmer.wait() == 1, farmer.said
    assert "warning" not in farmer.said
    farm.check()
    for task in range(2, 10):
        assert output(farm, task) == b"after %d\n" % task
    if mode != ("files",):  # in that mode the log of the running task is lost
        assert output(farm, 1) == b"runs\n"


@pytest.mark.parametrize("name", ["running", "packed"])
@pytest.mark.parametrize("mode", MODES[1:], ids=" ".join)
def test_tasks_go_on_when_a_subdirectory_is_removed(farm: Farm, mode: tuple[str, ...], name: str) -> None:
    wait = f"while ! [ -e {farm.folder}/go ]; do sleep 0.02; done"
    farm.write(
        "echo first; exit 1", farm.marked(f"echo runs; {wait}; exit 1"), *["echo after $PROC_NUMBER; exit 1"] * 8
    )
    farmer = farm.start("-n", 1, "--logs", *mode)
    farm.wait_for_tasks(1)
    shutil.rmtree(farm.workdir / "logs" / name, ignore_errors=True)  # depending on the mode, it may not exist yet
    (farm.folder / "go").touch()
    assert farmer.wait() == 1, farmer.said
    assert "warning" not in farmer.said
    assert output(farm, 1) == b"runs\n"
    for task in range(2, 10):
        assert output(farm, task) == b"after %d\n" % task


def test_a_custom_runner_goes_on_when_logs_are_removed(farm: Farm) -> None:
    (farm.folder / "myrunners.py").write_text(
        "import shutil\n"
        "class Talks:\n"
        "    def run(self, taskid, command, logfh):\n"
        "        logfh.write(f'runner {taskid}\\n')\n"
        f"        if taskid == 1: shutil.rmtree('{farm.workdir}/logs')\n"
        "        return 0\n"
    )
    (farm.folder / "runners.ini").write_text("[talks]\nRunner = myrunners.Talks\n")
    farm.write("x", "y", "z")
    farmer = farm.run("-n", 1, "-r", "talks")
    assert farmer.process.returncode == 0, farmer.said
    assert output(farm, 2) == b"runner 2\n"


def test_a_file_in_place_of_the_logs_directory_is_reported(farm: Farm) -> None:
    wait = f"while ! [ -e {farm.folder}/go ]; do sleep 0.02; done"
    farm.write(farm.marked(wait), "echo after")
    farmer = farm.start("-n", 1)
    farm.wait_for_tasks(0)
    shutil.rmtree(farm.workdir / "logs")
    (farm.workdir / "logs").touch()
    (farm.folder / "go").touch()
    farmer.says("logs/log_1: Not a directory; the log cannot be opened")
    (farm.workdir / "logs").unlink()
    assert farmer.wait() == 0, farmer.said
    assert output(farm, 1) == b"after\n"
