"""`--logs none`: the output of tasks is discarded, and no file is opened for them."""

from __future__ import annotations

import os

from support.farms import Farm
from support.operations import operations

RUNNERS = """
class Talks:
    def run(self, taskid, command, logfh):
        logfh.write('talk\\n')
        logfh.flush()
        open(f'{command}/{taskid}', 'w').write(f'{logfh.name} {os.readlink(f"/proc/self/fd/{logfh.fileno()}")}')
        return 0

class Closes:
    def run(self, taskid, command, logfh):
        logfh.write('talk\\n')
        logfh.close()
        return 0

class Silent:
    def run(self, taskid, command, logfh):
        return 0

import os
"""
INI = "".join(f"[{name.lower()}]\nRunner = myrunners.{name}\n" for name in ("Talks", "Closes", "Silent"))


def test_tasks_write_to_dev_null_and_get_it_as_their_log(farm: Farm) -> None:
    farm.write(
        f"readlink /proc/$$/fd/1 /proc/$$/fd/2 > {farm.folder}/fds; echo $TASKFARMER_LOG >> {farm.folder}/fds",
        "echo much; echo more >&2",
        "echo x > /dev/stderr; exit 3",
        "no-such-command",
    )
    assert farm.run("-n", 2, "--logs", "none").wait() == 1
    assert (farm.folder / "fds").read_text().split() == ["/dev/null"] * 3
    assert os.listdir(farm.workdir / "logs") == []
    assert {line.log for line in farm.check().lines} == {"none"}


def test_a_later_farmer_may_store_logs_again(farm: Farm) -> None:
    farm.write("echo first")
    assert farm.run("--logs", "none").wait() == 0
    farm.append("echo second\n")
    assert farm.run().wait() == 0
    assert os.listdir(farm.workdir / "logs") == ["log_1"]
    assert {line.task: line.log for line in farm.check().lines} == {0: "none", 1: "files"}


def plugged(farm: Farm) -> None:
    (farm.folder / "myrunners.py").write_text(RUNNERS)
    (farm.folder / "runners.ini").write_text(INI)


def test_a_custom_runner_gets_a_text_file_of_dev_null(farm: Farm) -> None:
    plugged(farm)
    (farm.folder / "saw").mkdir()
    farm.write(*[str(farm.folder / "saw")] * 5)
    farmer = farm.run("-r", "talks", "-n", 2, "--logs", "none")
    assert farmer.wait() == 0, farmer.said
    saw = {path.read_text().split()[1] for path in (farm.folder / "saw").iterdir()}
    assert saw == {"/dev/null"}
    assert os.listdir(farm.workdir / "logs") == []


def test_a_runner_that_closes_its_log_gets_a_new_one(farm: Farm) -> None:
    plugged(farm)
    farm.write(*["x"] * 20)
    farmer = farm.run("-r", "closes", "-n", 1, "--logs", "none")
    assert farmer.wait() == 0, farmer.said
    assert farm.places() == ([], list(range(20)), [])


def test_no_file_is_touched_for_a_task(farm: Farm, counting: str) -> None:
    plugged(farm)
    assert operations(farm, counting, "/bin/true", "--logs", "none") < 0.1
    runner = "-r", "silent", "--config", farm.folder / "runners.ini"
    assert operations(farm, counting, "x", "--logs", "none", *runner) < 0.1
