"""A last line without newline may be half of a line that a program is still writing, and half a line never runs."""

from __future__ import annotations

import os
import signal
import time

import pytest

from support.farming import eventually
from support.farms import Farm
from taskfarmer.intake import QUIET

AGAIN = 75
WARNING = "the last line has no newline"


def still_written(farm: Farm) -> None:
    """Set the list's modification time to now, as if a program had just written to it."""
    os.utime(farm.list)


def wait_while_written(farm: Farm, *ids: int) -> None:
    """Wait until these tasks have run, while the list is touched repeatedly."""
    logs = [farm.workdir / "logs" / f"log_{number}" for number in ids]

    def done() -> bool:
        still_written(farm)
        return all(log.exists() for log in logs)

    eventually(done, lambda: f"tasks {ids} run; {[farmer.said for farmer in farm.farmers]}", every=0.1)


@pytest.mark.parametrize("end", [b"\n", b"\r\n"])
def test_half_a_line_waits_for_its_other_half_while_the_rest_runs(farm: Farm, end: bytes) -> None:
    farm.list.write_bytes(b"echo 0" + end + b"echo 1" + end + b"echo chick")
    farmer = farm.start("-q", "-n", 2)
    wait_while_written(farm, 0, 1)
    farm.append(b"en" + end + b"echo 3" + end)
    assert farmer.wait() == 0
    assert [farm.log(number) for number in range(4)] == ["0\n", "1\n", "chicken\n", "3\n"]
    assert farmer.said.count(WARNING) == 1
    assert farm.run().wait() == 0
    assert len(farm.check().lines) == 4


def test_only_the_missing_newline_makes_a_line_incomplete(farm: Farm) -> None:
    """CRLF was cut in two: the command is complete, but the line is not."""
    farm.list.write_bytes(b"echo 0\r\necho 1\r")
    farmer = farm.start("-n", 1)
    wait_while_written(farm, 0)
    farm.append(b"\necho 2\r\n")
    assert farmer.wait() == 0
    assert farm.places() == ([], [0, 1, 2], [])
    farm.check()


def test_half_a_reserved_line_is_not_refused(farm: Farm) -> None:
    farm.list.write_bytes(b"echo 0\n#TASKFARMER --ti")
    farmer = farm.start("-n", 1)
    assert farmer.wait() == 0
    farm.append(b"me 1m\necho 1\n")
    assert farm.run().wait() == 0
    assert farm.places() == ([], [0, 1], [])


def test_a_single_line_without_newline_runs_only_when_the_list_is_no_longer_written(farm: Farm) -> None:
    """Farmers that start together, and one that waits for the whole farm, decide alike."""
    farm.list.write_bytes(b"echo $PROC_NUMBER")
    begin = time.monotonic()
    farmers = [farm.start("-q", "-n", 2, *more) for more in ((), (), ("--wait",))]
    assert [farmer.wait() for farmer in farmers] == [0, 0, 0]
    assert time.monotonic() - begin >= QUIET
    assert f"not changed for {QUIET:.0f} s" in farmers[0].said
    assert farm.places() == ([], [0], [])
    assert len(farm.check().lines) == 1
    # all of it is imported: no farmer waits again
    still_written(farm)
    farmer = farm.run("-n", 2)
    assert farmer.wait() == 0
    assert WARNING not in farmer.said


def test_the_last_line_of_a_list_that_was_written_long_ago_runs_at_once(farm: Farm) -> None:
    farm.list.write_bytes(b"echo 0\r\necho 1\r")
    farm.age_list()
    farmer = farm.run("-n", 2)
    assert farmer.wait() == 0
    assert WARNING not in farmer.said
    assert len(farm.check().state["segments"]) == 1
    assert farm.places() == ([], [0, 1], [])


@pytest.mark.parametrize(("options", "number"), [((), signal.SIGTERM), (("--wait",), signal.SIGINT)])
def test_a_farmer_that_is_stopped_while_it_waits_for_the_last_line_does_not_report_success(
    farm: Farm, options: tuple[str, ...], number: int
) -> None:
    farm.list.write_bytes(b"echo 1")
    farmer = farm.start("-n", 1, *options)

    def waits() -> bool:
        still_written(farm)
        return WARNING in farmer.said

    eventually(waits, lambda: farmer.said, every=0.1)
    farmer.signal(number)
    assert farmer.wait() == AGAIN
    assert "the last lines of the task list are not in the farm yet: run the same command again" in farmer.said
    assert farm.places() == ([], [], [])
    farm.append("1\n")
    assert farm.run().wait() == 0
    assert farm.log(0) == "11\n"


def test_a_farmer_that_waits_for_the_last_line_ends_at_its_timeout(farm: Farm) -> None:
    farm.list.write_bytes(b"true")
    farmer = farm.run("-n", 1, "--timeout", 1)
    assert farmer.wait() == AGAIN
    assert "--timeout" in farmer.said and "not in the farm yet" in farmer.said
    assert farm.places() == ([], [], [])
    farm.check()


def test_lines_added_to_a_running_list_wait_for_their_newline(farm: Farm) -> None:
    farm.write("echo 0", f"while ! [ -e {farm.folder}/go ]; do sleep 0.02; done")
    farmer = farm.start("-n", 2)
    wait_while_written(farm, 0)
    farm.append("echo 2\necho 3")
    wait_while_written(farm, 2)
    farm.append(" and more\n")
    eventually(lambda: (farm.workdir / "logs" / "log_3").exists(), "the last one runs")
    (farm.folder / "go").touch()
    assert farmer.wait() == 0
    assert farm.log(3) == "3 and more\n"
    farm.check()


# --- handlers --------------------------------------------------------------------------------------

HANDLERS = """
from taskfarmer.tasks import ListTaskList, TaskList


class Lines(ListTaskList):
    def __getitem__(self, taskid):
        return "echo " + self.tasks[taskid]


class Opens(ListTaskList):
    def __init__(self, path, workdir):
        super().__init__(path, workdir)
        with open(path) as stream:
            self.tasks = ["echo " + line.strip() for line in stream]


class Whole(TaskList):
    def __init__(self, path, workdir):
        with open(path) as stream:
            self.lines = stream.read().split()

    def __len__(self):
        return len(self.lines)

    def __getitem__(self, taskid):
        return "echo " + self.lines[taskid]
"""


@pytest.mark.parametrize("kind", ["Lines", "Opens", "Whole"])
def test_no_handler_makes_half_a_line_a_task(farm: Farm, kind: str) -> None:
    """A handler that reads lines through ListTaskList gets the others at once; one that opens the list must wait."""
    (farm.folder / "handlers.py").write_text(HANDLERS)
    (farm.folder / "handlers.ini").write_text(f"[mine]\nTaskList = handlers.{kind}\n")
    farm.list.write_bytes(b"one\ntw")
    farmer = farm.start("-n", 1, "-t", "mine")
    if kind == "Lines":
        wait_while_written(farm, 0)
    else:
        farmer.says(WARNING)
        assert not [*(farm.workdir / "logs").iterdir()]
    farm.append(b"elve\nthree\n")
    assert farmer.wait() == 0
    assert [farm.log(number) for number in range(3)] == ["one\n", "twelve\n", "three\n"]
    farm.check()
    if kind != "Whole":
        farm.append(b"fo")
        farmer = farm.start("-n", 1, "-t", "mine")
        farmer.says(WARNING)
        farm.append(b"ur\n")
        assert farmer.wait() == 0
        assert farm.log(3) == "four\n"
    assert farm.run("-t", "mine").wait() == 0
    farm.check()


def test_a_handler_that_opens_the_list_itself_gets_it_when_it_is_no_longer_written(farm: Farm) -> None:
    (farm.folder / "handlers.py").write_text(HANDLERS)
    (farm.folder / "handlers.ini").write_text("[mine]\nTaskList = handlers.Whole\n")
    farm.list.write_bytes(b"one two")
    farmer = farm.run("-n", 1, "-t", "mine")
    assert farmer.wait() == 0
    assert farm.places() == ([], [0, 1], [])
    assert WARNING in farmer.said
    farm.check()


CHANGES = """
from taskfarmer.tasks import TaskList


class Changes(TaskList):
    # It reads the list while another program is still writing it.

    def __init__(self, path, workdir):
        with open(path) as stream:
            self.lines = stream.read().split()
        if len(self.lines) < 3:
            with open(path, "a") as stream:
                stream.write("more\\n")

    def __len__(self):
        return len(self.lines)

    def __getitem__(self, taskid):
        return "echo " + self.lines[taskid]
"""


def test_a_list_that_changes_while_a_handler_reads_it_is_refused(farm: Farm) -> None:
    (farm.folder / "handlers.py").write_text(CHANGES)
    (farm.folder / "handlers.ini").write_text("[mine]\nTaskList = handlers.Changes\n")
    farm.list.write_bytes(b"one\ntwo\n")
    farmer = farm.run("-t", "mine")
    assert farmer.wait() == 2
    assert "changed while it was read: start again when it is complete" in farmer.said
    assert not (farm.workdir / "farm.json").exists()
    assert farm.run("-t", "mine").wait() == 0
    assert farm.places() == ([], [0, 1, 2], [])
    farm.check()
