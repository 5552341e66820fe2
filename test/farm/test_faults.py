"""Faults of the system under a running farmer: a full disk, logs that cannot be written, its own files replaced."""

from __future__ import annotations

import errno
import os
import re
import shutil
import signal
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from farming import eventually, need
from farms import TEST, Farm

TROUBLE = 74


@pytest.fixture
def small_disk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A file system of 2 MiB and 400 files."""
    point = tmp_path_factory.mktemp("disk")
    need(os.getuid() == 0, "mounting a small file system needs root")
    made = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=2m,nr_inodes=400", "tmpfs", str(point)], capture_output=True, text=True
    )
    need(made.returncode == 0, f"no tmpfs can be mounted: {made.stderr.strip()}")
    try:
        yield point
    finally:
        subprocess.run(["umount", "-l", str(point)], check=True)


@contextmanager
def full(disk: Path) -> Iterator[None]:
    """Fill a file system, and keep it full inside the block: whatever is freed is taken at once."""
    over = threading.Event()
    filled = threading.Event()

    def fill() -> None:
        with open(disk / "filling", "ab", buffering=0) as file:
            while not over.is_set():
                try:
                    file.write(bytes(4096))
                except OSError as error:
                    assert error.errno == errno.ENOSPC
                    filled.set()
                    over.wait(0.001)

    thread = threading.Thread(target=fill)
    thread.start()
    try:
        assert filled.wait(30)
        yield
    finally:
        over.set()
        thread.join()
        (disk / "filling").unlink()


def waiting(farm: Farm, name: str = "go") -> str:
    """A task that runs until the file `name` is there."""
    return farm.begun(f"while ! [ -e {farm.folder}/{name} ]; do sleep 0.02; done")


def test_on_a_full_disk_running_tasks_go_on_and_are_recorded_once_there_is_room(farm: Farm, small_disk: Path) -> None:
    farm.workdir = small_disk / "farm"
    farm.write(waiting(farm), waiting(farm, "later"), *[farm.begun("true")] * 40)
    farmer = farm.start("-n", 2, "-w", farm.workdir)
    farm.wait_for_tasks(0, 1)
    with full(small_disk):
        (farm.folder / "go").touch()
        farmer.says("running tasks go on, no new ones are started")
        begun = set(os.listdir(farm.started))
        (farm.folder / "later").touch()
        eventually(lambda: farmer.said.count("\n") and not _tasks(farm), "the running tasks end")
        # it tries again, and starts nothing
        with pytest.raises(AssertionError):
            eventually(lambda: set(os.listdir(farm.started)) != begun, "another task runs", seconds=2)
        assert not farmer.ended
    assert farmer.wait() == 0, farmer.said
    assert "results can be recorded again" in farmer.said
    farm.no_survivors()
    report = farm.check()
    assert report.finished == set(range(42))
    assert {line.attempt for line in report.lines if line.task in (0, 1)} == {1}


def _tasks(farm: Farm) -> list[int]:
    found = []
    for pid in farm.processes():
        try:
            if b"PROC_NUMBER=" in Path(f"/proc/{pid}/environ").read_bytes():
                found.append(pid)
        except OSError:
            continue
    return found


def test_on_a_disk_that_stays_full_the_farmer_says_how_much_it_could_not_record(farm: Farm, small_disk: Path) -> None:
    farm.workdir = small_disk / "farm"
    farm.write(*[waiting(farm)] * 3, farm.begun("sleep 1000"), *["true"] * 30)
    farmer = farm.start("-n", 4, "-w", farm.workdir, "--grace", 1)
    farm.wait_for_tasks(0, 1, 2, 3)
    with full(small_disk):
        (farm.folder / "go").touch()
        farmer.says("running tasks go on, no new ones are started")
        farmer.signal(signal.SIGUSR1)
        assert farmer.wait() == TROUBLE
        farm.no_survivors()
    # the signal may come before the last of the three has seen that it may end
    ended = re.search(r"this farmer: (\d) finished", farmer.said)
    assert ended and f"not recorded: {ended[1]} result" in farmer.said, farmer.said
    (farm.started / "3").unlink()
    second = farm.start("-n", 4, "-w", farm.workdir, "--grace", 1)
    farm.wait_for_tasks(3)
    eventually(lambda: len(os.listdir(farm.started)) >= 4, "the rest runs")
    second.signal(signal.SIGUSR1)
    assert second.wait() == 75, second.said
    report = farm.check()
    assert report.unprocessed >= {3}
    assert not report.held


def test_a_full_disk_from_the_start_on_makes_no_farm_and_says_so(farm: Farm, small_disk: Path) -> None:
    farm.write("true")
    with full(small_disk):
        farmer = farm.run("-w", small_disk / "farm")
        assert farmer.wait() in (2, TROUBLE)
        assert "No space left on device" in farmer.said
        assert "Traceback" not in farmer.said
    assert farm.run("-w", small_disk / "farm").wait() == 0


def test_a_file_system_without_room_for_logs_does_not_make_failed_tasks(farm: Farm, small_disk: Path) -> None:
    farm.write(waiting(farm), *["echo a line"] * 60)
    farmer = farm.start("-n", 2, "--logs-dir", small_disk / "logs")
    farm.wait_for_tasks(0)
    names = [small_disk / f"file-{number}" for number in range(1000)]
    with pytest.raises(OSError, match="No space left"):
        for name in names:
            name.touch()
    (farm.folder / "go").touch()
    farmer.says("cannot be opened")
    farmer.says("No space left on device")
    for name in names:
        name.unlink(missing_ok=True)
    assert farmer.wait() == 0, farmer.said
    assert farm.check().finished == set(range(61))


@pytest.mark.parametrize("kind", ["a directory", "a FIFO", "a dangling link", "not writable"])
def test_a_log_that_cannot_be_opened_is_the_farmers_trouble(farm: Farm, kind: str) -> None:
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


def test_logs_that_may_not_be_written_are_the_farmers_trouble(farm: Farm, as_a_user: list[str]) -> None:
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
    """An upgrade while tasks run must kill nobody: nothing is imported after the first task starts."""
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
        farm.begun("true" if end == "by itself" else stay),
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


def test_a_work_directory_that_is_deleted_ends_the_farmer_and_its_tasks(farm: Farm) -> None:
    farm.write(*[farm.begun("sleep 1000")] * 3)
    farmer = farm.start("-n", 3, "--grace", 1, "--lease", 4)
    farm.wait_for_tasks(0, 1, 2)
    farm.workdir.rename(farm.folder / "gone")
    shutil.rmtree(farm.folder / "gone")
    assert farmer.wait() == TROUBLE
    farm.no_survivors()
    assert not farm.workdir.exists()
    assert "deleted" in farmer.said


def test_a_work_directory_that_is_made_anew_is_not_written_into_by_the_old_farmer(farm: Farm) -> None:
    farm.write(*[farm.begun("sleep 1000")] * 3)
    farmer = farm.start("-n", 3, "--grace", 1, "--lease", 4)
    farm.wait_for_tasks(0, 1, 2)
    shutil.rmtree(farm.workdir)
    farm.list.write_text("true\n")
    assert farm.run("-n", 1).wait() == 0
    assert farmer.wait() == TROUBLE
    farm.no_survivors()
    assert farm.places() == ([], [0], [])
    assert farm.check().finished == {0}


def test_a_failing_disk_names_the_file_and_stops_nothing_that_runs(farm: Farm, strace: list[str]) -> None:
    """strace answers some of the farmer's fsync with EIO, from the first one of its result file on."""
    farm.write("true")
    calls = farm.folder / "calls"
    farm.run(before=["strace", "-qq", "-y", "-o", str(calls), "-e", "trace=fsync"])
    lines = calls.read_text().splitlines()
    first = next(number for number, line in enumerate(lines, 1) if f"{farm.workdir}/results/" in line)
    shutil.rmtree(farm.workdir)
    farm.write(*[farm.begun("sleep 0.2; true")] * 12)
    fails = ["-e", "trace=fsync", "-e", f"inject=fsync:error=EIO:when={first}..{first + 4}"]
    farmer = farm.run("-n", 2, before=[*strace, *fails])
    assert farmer.wait() == 0, farmer.said
    assert f"{farm.workdir}/results/" in farmer.said
    assert "Input/output error" in farmer.said
    assert "results can be recorded again" in farmer.said
    report = farm.check()
    assert report.finished == set(range(12))
    assert {line.attempt for line in report.lines} == {1}


def test_on_a_full_disk_tasks_that_would_fail_of_it_wait_for_room(farm: Farm, small_disk: Path) -> None:
    """The first two write into a full disk and fail; the others, which are held already, are not begun."""
    farm.workdir = small_disk / "farm"
    output = "head -c 10000 /dev/zero"
    farm.write(*["true"] * 30, *[f"{waiting(farm)}; {output}"] * 2, *[farm.begun(output)] * 30)
    farmer = farm.start("-n", 2, "-w", farm.workdir)
    farm.wait_for_tasks(30, 31)
    with full(small_disk):
        (farm.folder / "go").touch()
        farmer.says("no task is started until this is over")
        eventually(lambda: not _tasks(farm), "nothing runs any more")
    assert farmer.wait() == 1, farmer.said
    report = farm.check()
    assert {30, 31} <= report.failed
    assert len(report.failed) <= 4, farmer.said
    assert len(report.finished) + len(report.failed) == 62
