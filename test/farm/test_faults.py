"""Faults of the system under a running farmer: logs that cannot be written, its installation replaced."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess

import pytest

from support.farming import eventually, need
from support.farms import TEST, Farm

TROUBLE = 74


def waiting(farm: Farm, name: str = "go") -> str:
    """A task that runs until the file `name` exists."""
    return farm.marked(f"while ! [ -e {farm.folder}/{name} ]; do sleep 0.02; done")


@pytest.mark.parametrize("kind", ["a directory", "a FIFO", "a dangling link", "not writable"])
def test_a_log_that_cannot_be_opened_is_an_error_of_the_farmer_and_not_of_the_task(farm: Farm, kind: str) -> None:
    farm.write(waiting(farm), *["echo output"] * 5)
    farmer = farm.start("-n", 1)
    farm.wait_for_tasks(0)
    log = farm.workdir / "logs" / "log_3"
    if kind == "a directory":
        log.mkdir()
    elif kind == "a FIFO":
        os.mkfifo(log)
    elif kind == "a dangling link":
        log.symlink_to("/no/such/folder/log")
    else:
        need(os.getuid() == 0, "a file that root cannot write needs chattr")
        log.touch()
        made = subprocess.run(["chattr", "+i", str(log)], capture_output=True)
        need(made.returncode == 0, "chattr does not work here")
    try:
        (farm.folder / "go").touch()
        farmer.says("log_3")
        farmer.says("cannot be opened")
        assert not farmer.ended
    finally:
        if kind == "not writable":
            subprocess.run(["chattr", "-i", str(log)], check=True)
    log.rmdir() if kind == "a directory" else log.unlink()
    assert farmer.wait() == 0, farmer.said
    assert farm.places() == ([], list(range(6)), [])
    assert farm.log(3) == "output\n"
    farm.check()


def test_a_farmer_that_waits_for_a_log_can_be_stopped(farm: Farm) -> None:
    farm.write(waiting(farm), *["echo output"] * 5)
    farmer = farm.start("-n", 1, "--grace", 1)
    farm.wait_for_tasks(0)
    (farm.workdir / "logs" / "log_1").mkdir()
    (farm.folder / "go").touch()
    farmer.says("cannot be opened")
    farmer.signal(signal.SIGTERM)
    assert farmer.wait() == 75, farmer.said
    toprocess, finished, failed = farm.places()
    assert 1 in toprocess and 0 in finished and failed == []
    farm.check()


def test_logs_without_write_permission_are_an_error_of_the_farmer_and_not_of_the_task(
    farm: Farm, as_a_user: list[str]
) -> None:
    farm.write(waiting(farm), *["echo output"] * 5)
    farmer = farm.start("-n", 1, before=as_a_user)
    farm.wait_for_tasks(0)
    (farm.workdir / "logs").chmod(0o555)
    (farm.folder / "go").touch()
    farmer.says("cannot be opened")
    assert not farmer.ended
    (farm.workdir / "logs").chmod(0o755)
    assert farmer.wait() == 0, farmer.said
    assert farm.places() == ([], list(range(6)), [])


RUNNER = """
import subprocess

class Mine:
    def run(self, taskid, command, logfh):
        self.process = subprocess.Popen(["/bin/bash", "-c", command], stdout=logfh, stderr=logfh)
        return self.process.wait()

    def terminate(self):
        self.process.terminate()
"""


@pytest.mark.parametrize("runner", ["default", "mine", "contained"])
@pytest.mark.parametrize("end", ["by itself", "SIGUSR1", "killed worker"])
def test_the_package_may_be_deleted_under_a_running_farmer(farm: Farm, runner: str, end: str) -> None:
    """An upgrade while tasks run must not break a farmer: it imports nothing after the first task starts."""
    package = farm.folder / "installed"
    shutil.copytree(TEST.parent / "taskfarmer", package / "taskfarmer", ignore=shutil.ignore_patterns("__pycache__"))
    (farm.folder / "mine.py").write_text(RUNNER)
    (farm.folder / "bin").mkdir()
    (farm.folder / "bin" / "shifter").write_text('#!/bin/bash\n[ "$1" = -- ] || exec "$0" "${@:2}"\nexec "${@:2}"\n')
    (farm.folder / "bin" / "shifter").chmod(0o755)
    (farm.folder / "runners.ini").write_text(
        "[mine]\nRunner = mine.Mine\n"
        "[contained]\nRunner = taskfarmer.runners.ShifterRunner\nimage = any\nsetup = true\n  x=1\ntempdir = True\n"
    )
    farm.environment = {"PATH": f"{farm.folder / 'bin'}:{os.environ['PATH']}", "PYTHONPATH": str(package)}
    stay = "[ $TASKFARMER_ATTEMPT = 1 ] || exit 0; sleep 1000"
    farm.write(
        waiting(farm),
        farm.marked("true" if end == "by itself" else stay),
        *["echo 'in a shell'", "printenv HOME", "no-such-program", ": " + "x" * 140_000] * 5,
    )
    farmer = farm.start("-n", 2, "-r", runner, "--config", farm.folder / "runners.ini", "--grace", 1)
    farm.wait_for_tasks(0, 1)
    shutil.rmtree(package)
    if end == "killed worker":
        workers = farmer.workers()
        os.kill(workers[-1], signal.SIGKILL)
    (farm.folder / "go").touch()
    if end == "SIGUSR1":
        eventually(lambda: (farm.workdir / "logs" / "log_21").exists(), "the others have run")
        farmer.signal(signal.SIGUSR1)
    status = farmer.wait()
    assert "Traceback" not in farmer.said and "Error" not in farmer.said, farmer.said
    assert status == (75 if end == "SIGUSR1" else 1), farmer.said
    farm.no_survivors()
    report = farm.check()
    assert report.failed >= {4, 8, 12, 16, 20}
    assert len(report.finished) >= 10


def test_a_farmer_whose_work_directory_is_deleted_stops_with_its_tasks(farm: Farm) -> None:
    farm.write(*[farm.marked("sleep 1000")] * 3)
    farmer = farm.start("-n", 3, "--grace", 1, "--lease", 4)
    farm.wait_for_tasks(0, 1, 2)
    farm.workdir.rename(farm.folder / "gone")
    shutil.rmtree(farm.folder / "gone")
    assert farmer.wait() == TROUBLE
    farm.no_survivors()
    assert not farm.workdir.exists()
    assert "deleted" in farmer.said


def test_the_old_farmer_does_not_write_into_a_recreated_work_directory(farm: Farm) -> None:
    farm.write(*[farm.marked("sleep 1000")] * 3)
    farmer = farm.start("-n", 3, "--grace", 1, "--lease", 4)
    farm.wait_for_tasks(0, 1, 2)
    shutil.rmtree(farm.workdir)
    farm.list.write_text("true\n")
    assert farm.run("-n", 1).wait() == 0
    assert farmer.wait() == TROUBLE
    farm.no_survivors()
    assert farm.places() == ([], [0], [])
    assert farm.check().finished == {0}


def test_a_disk_error_is_reported_with_the_file_and_running_tasks_continue(farm: Farm, strace: list[str]) -> None:
    """strace makes some of the farmer's fsync calls fail with EIO, starting with the first one of its result file."""
    farm.write("true")
    calls = farm.folder / "calls"
    farm.run(before=["strace", "-qq", "-y", "-o", str(calls), "-e", "trace=fsync", "-e", "signal=none"])
    lines = calls.read_text().splitlines()
    first = next(number for number, line in enumerate(lines, 1) if f"{farm.workdir}/results/" in line)
    shutil.rmtree(farm.workdir)
    farm.write(*[farm.marked("sleep 0.2; true")] * 12)
    fails = ["-e", "trace=fsync", "-e", f"inject=fsync:error=EIO:when={first}..{first + 4}"]
    farmer = farm.run("-n", 2, before=[*strace, *fails])
    assert farmer.wait() == 0, farmer.said
    assert f"{farm.workdir}/results/" in farmer.said
    assert "Input/output error" in farmer.said
    assert "results can be recorded again" in farmer.said
    report = farm.check()
    assert report.finished == set(range(12))
    assert {line.attempt for line in report.lines} == {1}


def test_tasks_that_cannot_be_read_at_first_wait_until_they_can_be_read(farm: Farm, strace: list[str]) -> None:
    farm.write(*["sleep 0.3"] * 30)
    assert farm.run("-n", 4, "--timeout", 1).wait() == 75
    (segment,) = (path for path in (farm.workdir / "tasks").iterdir() if not path.suffix)
    inject = ["-P", str(segment), "-e", "trace=pread64", "-e", "inject=pread64:error=EIO:when=2"]
    farmer = farm.run("-n", 2, before=[*strace, *inject])
    assert farmer.wait() == 0, farmer.said
    assert f"{segment}: Input/output error" in farmer.said and "running tasks continue" in farmer.said
    assert farm.check().finished == set(range(30))
