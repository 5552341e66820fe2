"""`--logs packed` and `failed`: the exact output of tasks is found, also if they or their farmer were killed."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from support.disks import DISKS, full
from support.farming import eventually, kill_at_once
from support.farms import Farm, Farmer
from support.operations import operations
from support.pieces import check_packs

RUNNER = """
import subprocess

class Talks:
    def run(self, taskid, command, logfh):
        logfh.write(f'runner {taskid}\\n')
        if command == 'close':
            logfh.close()
            return 1
        logfh.flush()
        return subprocess.call(command, shell=True, stdout=logfh, stderr=logfh)
"""
BIG = f"{sys.executable} -c \"import sys; [sys.stdout.write(f'{{i}} of $PROC_NUMBER\\\\n') for i in range(300000)]\""


def big(task: int) -> bytes:
    return b"".join(b"%d of %d\n" % (i, task) for i in range(300000))


def logs(farm: Farm, *arguments: object) -> subprocess.CompletedProcess[bytes]:
    words = [sys.executable, "-m", "taskfarmer", "logs", str(farm.workdir), *map(str, arguments)]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    return subprocess.run(words, env=environment, stdin=subprocess.DEVNULL, capture_output=True, timeout=60)


def output(farm: Farm, task: int) -> bytes:
    done = logs(farm, task)
    assert done.returncode == 0, done.stderr
    return done.stdout


def packed(farm: Farm) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (farm.workdir / "logs" / "packed").glob("*")}


def runs(farm: Farm, task: int) -> bool:
    """Whether the packed file contains the scratch file of a task's first attempt."""
    return any(b"task %d, attempt 1, running, 0 bytes, slot " % task in data for data in packed(farm).values())


def plugged(farm: Farm) -> None:
    (farm.folder / "myrunners.py").write_text(RUNNER)
    (farm.folder / "runners.ini").write_text("[talks]\nRunner = myrunners.Talks\n")


def kill(farmer: Farmer) -> None:
    """Kill a farmer, its workers and their tasks, so fast that none of them can react."""
    kill_at_once(farmer.pid)
    farmer.wait()


def test_the_output_of_each_task_is_found_in_one_readable_file(farm: Farm) -> None:
    farm.write(
        "echo hello", "true", "printf 'no end'", "echo bad >&2; exit 3", "no-such-command", "printenv TASKFARMER_LOG"
    )
    assert farm.run("-n", 1, "--logs", "packed").wait() == 1
    assert [output(farm, task) for task in range(4)] == [b"hello\n", b"", b"no end", b"bad\n"]
    assert b"not found" in output(farm, 4) or b"No such file" in output(farm, 4)
    assert output(farm, 5).startswith(f"{farm.workdir}/logs/running/".encode())
    assert os.listdir(farm.workdir / "logs" / "running") == []
    (text,) = packed(farm).values()
    assert re.search(rb"^=== taskfarmer: task 2, attempt 1, exit 0, 6 bytes, .* ===\nno end\n=== ", text, re.MULTILINE)
    check_packs(farm.workdir / "logs")
    assert {line.log for line in farm.check().lines} == {"packed"}


def test_a_task_that_truncates_its_output_does_not_damage_others(farm: Farm) -> None:
    lines = ("echo x > /dev/stderr; echo {} >> /dev/stdout", "echo lost; : > /dev/stdout; echo {}", "echo {}")
    farm.write(*[lines[task % 3].format(f"mark-{task}") for task in range(60)])
    assert farm.run("-n", 2, "--logs", "packed").wait() == 0
    for task in range(60):
        assert (farm.workdir / "logs" / f"log_{task}").exists() is False
    found = logs(farm, "--grep", "^mark-")
    assert sorted(found.stdout.split()) == sorted(b"%d:mark-%d" % (task, task) for task in range(60))
    check_packs(farm.workdir / "logs")


def test_large_outputs_of_two_concurrent_workers_are_found_exactly(farm: Farm) -> None:
    farm.write(*[BIG] * 6)
    assert farm.run("-n", 2, "--logs", "packed").wait() == 0
    for task in range(6):
        assert output(farm, task) == big(task)
    check_packs(farm.workdir / "logs")


def test_the_output_of_killed_farmers_is_found(farm: Farm) -> None:
    farm.write(*["echo short $PROC_NUMBER"] * 40, farm.marked("echo running; sleep 1000"), farm.marked("sleep 1000"))
    farmer = farm.start("-n", 2, "--logs", "packed")
    farm.wait_for_tasks(40, 41)
    eventually(lambda: runs(farm, 40), "the packed file records what runs")
    assert output(farm, 40) == b"running\n"  # it runs
    kill(farmer)
    assert output(farm, 40) == b"running\n"
    for task in (0, 1, 20, 38, 39):
        assert output(farm, task) == b"short %d\n" % task


def test_corrupt_and_torn_pieces_do_not_hide_others(farm: Farm) -> None:
    farm.write(*[f"echo {'x' * 300} $PROC_NUMBER"] * 30)
    assert farm.run("-n", 1, "--logs", "packed").wait() == 0
    (path,) = (farm.workdir / "logs" / "packed").iterdir()
    pieces = path.read_bytes().split(b"=== taskfarmer: ")[1:]
    pieces[3] = pieces[3].replace(b"task", b"tusk")
    pieces[7] = pieces[7][:-200]  # the next one follows in the same line
    pieces[12] = pieces[12][:30]
    path.write_bytes(b"".join(b"=== taskfarmer: " + piece for piece in pieces)[:-5])
    for task in (0, 2, 4, 6, 8, 11, 13, 28):
        assert output(farm, task) == f"{'x' * 300} {task}\n".encode(), task
    assert output(farm, 7) == b"x" * (300 + len(" 7\n") - 200)
    assert output(farm, 29) == b"x" * (300 + len(" 29\n") - 5)


def test_a_packed_file_that_cannot_be_read_is_named(farm: Farm) -> None:
    farm.write("echo hello")
    assert farm.run("--logs", "packed").wait() == 0
    (path,) = (farm.workdir / "logs" / "packed").iterdir()
    path.unlink()
    os.mkfifo(path)
    assert f"{path}: not a regular file; the output in it is not shown".encode() in logs(farm, 0).stderr


def test_an_incomplete_part_is_read_from_its_scratch_file(farm: Farm) -> None:
    """A worker was killed while it copied the output of a task."""
    wait = farm.marked(f"echo begins; {BIG}; echo ends; : > {farm.folder}/written; sleep 1000")
    farm.write(wait)
    farmer = farm.start("-n", 1, "--logs", "packed")
    eventually(lambda: (farm.folder / "written").exists() and runs(farm, 0), "its scratch file is recorded")
    kill(farmer)
    (path,) = (farm.workdir / "logs" / "packed").iterdir()
    size = (1 << 20) - 200
    with open(path, "ab") as file:
        file.write(b"=== taskfarmer: task 0, attempt 1, exit 0, %d of 9999999 bytes, now ===\n" % size + bytes(size))
    assert output(farm, 0) == b"begins\n" + big(0) + b"ends\n"


def test_attempts_are_printed_in_order_with_a_line_before_each(farm: Farm) -> None:
    farm.write("echo try $TASKFARMER_ATTEMPT; exit 1")
    modes = ("packed", "files", "packed")
    for number, mode in enumerate(modes):
        if number:
            words = [sys.executable, "-m", "taskfarmer", "retry", str(farm.workdir), "0"]
            subprocess.run(words, check=True, env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])})
        assert farm.run("--logs", mode).wait() == 1
    text = output(farm, 0)
    assert re.findall(rb"^try \d|attempt \d", text, re.MULTILINE) == [
        *(b"attempt 1", b"try 1"),
        *(b"attempt 2", b"try 2"),
        *(b"attempt 3", b"try 3"),
    ]


def test_only_logs_of_failed_tasks_are_kept(farm: Farm) -> None:
    farm.write("echo good", "echo bad; exit 1", "exit 2", "true", "echo stays; " + farm.marked("sleep 1000"))
    farmer = farm.start("-n", 2, "--logs", "failed")
    farm.wait_for_tasks(4)
    eventually(lambda: farm.workdir.joinpath("logs", "log_1").exists(), "the failed task has a log")
    farmer.signal(signal.SIGUSR1)
    assert farmer.wait() == 75
    assert sorted(path.name for path in (farm.workdir / "logs").iterdir() if path.is_file()) == ["log_1", "log_4"]
    assert farm.log(1) == "bad\n"
    assert farm.log(4).startswith("stays\n")  # released
    said = logs(farm, 0, 2).stderr
    assert b"only logs of failed tasks are kept" in said
    assert b"it wrote nothing" in said


@pytest.mark.parametrize("options", [("failed",), ("packed",), ("files", "--log-limit", "64k")], ids=" ".join)
def test_output_in_a_scratch_file_belongs_to_its_last_task(farm: Farm, options: tuple[str, ...]) -> None:
    """The tasks before were announced, too."""
    grep = f'grep -qs "task $PROC_NUMBER, attempt 1, running" {farm.workdir}/logs/packed/*'
    wait = f"while ! {grep}; do sleep 0.02; done"
    farm.write(wait, f"echo good; {wait}", "echo stays; " + farm.marked("sleep 1000"))
    farmer = farm.start("-n", 1, "--logs", *options)
    farm.wait_for_tasks(2)
    eventually(lambda: runs(farm, 2), "the packed file records what runs")
    check_packs(farm.workdir / "logs")
    kill(farmer)
    assert output(farm, 2) == b"stays\n"
    assert [logs(farm, task).stdout for task in (0, 1)] == [b"", b"" if options == ("failed",) else b"good\n"]


def test_a_later_attempt_is_appended_if_only_failed_tasks_have_logs(farm: Farm) -> None:
    farm.write("echo try $TASKFARMER_ATTEMPT; exit 1")
    assert farm.run("--logs", "failed").wait() == 1
    words = [sys.executable, "-m", "taskfarmer", "retry", str(farm.workdir), "0"]
    subprocess.run(words, check=True, env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])})
    assert farm.run("--logs", "failed").wait() == 1
    assert re.fullmatch(r"try 1\n=== taskfarmer: attempt 2 on .* ===\ntry 2\n", farm.log(0))


@pytest.mark.parametrize("mode", ["packed", "failed", "files"])
def test_a_custom_runner_has_its_logs_in_every_mode(farm: Farm, mode: str) -> None:
    plugged(farm)
    farm.write("echo one", "close", "echo three; exit 3", "echo four")
    assert farm.run("-n", 1, "-r", "talks", "--logs", mode).wait() == 1
    found = [logs(farm, task).stdout for task in range(4)]
    good = [b"", b""] if mode == "failed" else [b"runner 0\none\n", b"runner 3\nfour\n"]
    assert [found[0], found[3]] == good
    assert found[1:3] == [b"runner 1\n", b"runner 2\nthree\n"]


@pytest.mark.parametrize("runner", ["default", "talks"])
def test_a_process_that_outlives_its_task_does_not_write_to_other_logs(farm: Farm, runner: str) -> None:
    plugged(farm)
    go = farm.folder / "go"
    farm.write(
        f"(while ! [ -e {go} ]; do sleep 0.02; done; echo late; : > {go}.seen) & echo early",
        "echo second",
        f"touch {go}; while ! [ -e {go}.seen ]; do sleep 0.02; done",
    )
    assert farm.run("-n", 1, "--logs", "packed", "-r", runner).wait() == 0
    assert output(farm, 0).endswith(b"early\nlate\n")
    assert output(farm, 1).endswith(b"second\n")
    assert b"late" not in output(farm, 2)


def test_the_output_of_a_task_whose_worker_was_killed_is_found(farm: Farm) -> None:
    farm.write("echo $TASKFARMER_ATTEMPT here; " + farm.marked("[ $TASKFARMER_ATTEMPT = 2 ] || sleep 1000"))
    farmer = farm.start("-n", 1, "--logs", "packed")
    farm.wait_for_tasks(0)
    eventually(lambda: runs(farm, 0), "the packed file records what runs")
    os.kill(farmer.workers()[0], signal.SIGKILL)
    assert farmer.wait() == 0, farmer.said
    assert re.findall(rb"^\d here", output(farm, 0), re.MULTILINE) == [b"1 here", b"2 here"]


def test_check_accepts_packed_logs(farm: Farm) -> None:
    farm.write("echo one", "exit 1")
    assert farm.run("--logs", "packed").wait() == 1
    words = [sys.executable, "-m", "taskfarmer", "check", str(farm.workdir)]
    done = subprocess.run(words, env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}, capture_output=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_group_that_shares_a_farm_reads_packed_logs(farm: Farm) -> None:
    farm.write("echo one")
    farmer = farm.run("--logs", "packed", "--shared-group", before=["sh", "-c", 'umask 077; exec "$@"', "sh"])
    assert farmer.wait() == 0, farmer.said
    logs = farm.workdir / "logs"
    assert {path.name: oct(path.stat().st_mode & 0o2070) for path in (logs / "packed", logs / "running")} == {
        "packed": "0o2070",
        "running": "0o2070",
    }
    assert all(path.stat().st_mode & 0o060 == 0o060 for path in (logs / "packed").iterdir())


@pytest.mark.parametrize("mode", ["files", "packed", "failed"])
def test_head_and_tail_are_kept_within_the_limit(farm: Farm, mode: str) -> None:
    farm.write("echo begins; head -c 500000 /dev/zero; echo ends; exit 1", "echo little; exit 1")
    assert farm.run("-n", 1, "--logs", mode, "--log-limit", "64k").wait() == 1
    text = output(farm, 0)
    assert 65536 <= len(text) <= 65536 + 100
    assert text.startswith(b"begins\n") and text.endswith(b"ends\n")
    (cut,) = re.findall(rb"^=== taskfarmer: (\d+) bytes were cut out here", text, re.MULTILINE)
    assert int(cut) == 500000 + len("begins\nends\n") - 65536
    assert output(farm, 1) == b"little\n"


def test_lines_are_searched_in_all_modes(farm: Farm) -> None:
    farm.write("echo alpha; echo beta", "echo gamma")
    assert farm.run("--logs", "packed").wait() == 0
    farm.append("echo alphabet\n")
    assert farm.run("--logs", "files").wait() == 0
    done = logs(farm, "--grep", "^al.h")
    assert done.returncode == 0
    assert sorted(done.stdout.splitlines()) == [b"0:alpha", b"2:alphabet"]
    assert logs(farm, "--grep", "^al.h", 2).stdout == b"2:alphabet\n"
    assert logs(farm, "--grep", "delta").returncode == 1
    assert logs(farm, "--grep", "(").returncode == 2


def test_logs_explains_that_no_logs_were_kept(farm: Farm) -> None:
    farm.write("echo gone")
    assert farm.run("--logs", "none").wait() == 0
    done = logs(farm, 0)
    assert done.returncode == 1
    assert b"its farmer ran with --logs none" in done.stderr


@pytest.mark.parametrize("mode", ["packed", "failed"])
def test_no_file_is_touched_for_a_task_that_writes_nothing(farm: Farm, counting: str, mode: str) -> None:
    assert operations(farm, counting, "/bin/true", "--logs", mode) < 0.1


def test_a_full_disk_loses_no_result_and_no_output(farm: Farm, tmp_path: Path) -> None:
    """If the packed file cannot grow, the output stays in the scratch file, which is on the disk already."""
    with DISKS["tmpfs"](tmp_path) as disk:
        farm.workdir = disk / "farm"
        wait = f"while ! [ -e {farm.folder}/go ]; do sleep 0.02; done"
        farm.write(*[farm.marked(f"head -c 100000 /dev/zero; {wait}")] * 2, *["echo more"] * 20)
        farmer = farm.start("-n", 2, "--logs", "packed", "-w", farm.workdir)
        farm.wait_for_tasks(0, 1)
        eventually(
            lambda: sum(path.stat().st_size for path in (farm.workdir / "logs" / "running").iterdir()) == 200000, ""
        )
        with full(disk):
            (farm.folder / "go").touch()
            eventually(lambda: len(list((farm.workdir / "logs" / "running").iterdir())) < 2, "the tasks end")
        assert farmer.wait() == 0, farmer.said
        assert farm.check().finished == set(range(22))
        for task in (0, 1):
            assert output(farm, task) == bytes(100000)
        assert output(farm, 21) == b"more\n"


def test_a_long_list_causes_one_warning_about_inodes(farm: Farm) -> None:
    farm.list.write_text("true\n" * 100_001)
    farmer = farm.start("-n", 1)
    farmer.says("100001 tasks create as many log files")
    farmer.signal(signal.SIGUSR1)
    farmer.wait()
    assert farmer.said.count("--logs packed") == 1
