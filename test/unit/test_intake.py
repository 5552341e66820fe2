"""When the last line of a list is complete, and what the intake of a list remembers if the file system fails."""

from __future__ import annotations

import errno
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from farming import need

from taskfarmer import durable
from taskfarmer.errors import ListUnavailable, StorageError, TaskListError
from taskfarmer.intake import QUIET, Intake, comparison, importer, lastline
from taskfarmer.intake.lastline import OLD, LastLine
from taskfarmer.ledger import Ledger
from taskfarmer.settings import Settings, silent
from taskfarmer.tasks import source

# --- the last line ---------------------------------------------------------------------------------


class Clock:
    """Replaces the clocks of lastline.py and intake.py. It starts shortly after the machine."""

    def __init__(self) -> None:
        self.now = 1.0

    def monotonic(self) -> float:
        return self.now

    def time(self) -> float:
        return time.time()

    def sleep(self, seconds: float) -> None:
        self.now += seconds


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    one = Clock()
    monkeypatch.setattr(lastline, "time", one)
    monkeypatch.setattr("taskfarmer.intake.intake.time", one)
    return one


@pytest.fixture
def other_disk(tmp_path: Path) -> Iterator[Path]:
    """A folder on another file system than `tmp_path`."""
    need(os.path.isdir("/dev/shm") and os.stat("/dev/shm").st_dev != tmp_path.stat().st_dev, "no second file system")
    folder = Path(tempfile.mkdtemp(dir="/dev/shm"))
    yield folder
    shutil.rmtree(folder)


def written(path: Path) -> Path:
    path.write_bytes(b"true")
    return path


def aged(path: Path, seconds: float) -> Any:
    """The status of a file as if it was written so many seconds ago, and not changed since then."""
    found = path.stat()
    then = found.st_mtime - seconds
    names = ("st_dev", "st_ino", "st_mode", "st_size")
    times = {"st_mtime": then, "st_ctime": then, "st_mtime_ns": int(then * 1e9)}
    return SimpleNamespace(**{name: getattr(found, name) for name in names}, **times)


def test_a_list_is_old_a_minute_after_its_last_change_by_the_clock_of_its_file_system(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, fresh = written(tmp_path / "list"), str(written(tmp_path / "fresh"))
    for wrong in (-1e6, 0.0, 1e6):
        # what this node takes for the time does not matter
        monkeypatch.setattr(time, "time", lambda wrong=wrong: 1.7e9 + wrong)
        assert LastLine(str(path)).is_complete(aged(path, OLD + 5), 4, fresh)
        assert not LastLine(str(path)).is_complete(aged(path, OLD - 5), 4, fresh)
        assert not LastLine(str(path)).is_complete(aged(path, -OLD), 4, fresh)


def test_a_list_that_was_copied_with_its_time_is_as_old_as_its_time(tmp_path: Path) -> None:
    path = written(tmp_path / "list")
    os.utime(path, (0, path.stat().st_mtime - OLD - 5))
    assert LastLine(str(path)).is_complete(path.stat(), 4, str(tmp_path / "missing"))


def test_a_list_on_another_file_system_is_compared_with_the_clock_of_that_one(tmp_path: Path, other_disk: Path) -> None:
    path, fresh = written(other_disk / "list"), str(written(tmp_path / "fresh"))
    then = time.time() + 1e6
    os.utime(fresh, (then, then))
    assert LastLine(str(path)).is_complete(aged(path, OLD + 5), 4, fresh)
    assert not LastLine(str(path)).is_complete(aged(path, OLD - 5), 4, fresh)
    link = tmp_path / "link"
    link.symlink_to(path)
    assert LastLine(str(link)).is_complete(aged(path, OLD + 5), 4, fresh)
    assert os.listdir(other_disk) == ["list"]


def test_a_list_whose_age_cannot_be_known_waits(
    tmp_path: Path, other_disk: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, fresh = written(other_disk / "list"), str(written(tmp_path / "fresh"))

    def refuse(*_: object) -> int:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(durable, "fresh", refuse)
    last = LastLine(str(path))
    assert not last.is_complete(aged(path, 1e6), 4, fresh)
    assert last.pending
    clock.now = last.due
    assert last.is_complete(aged(path, 1e6), 4, fresh)


def test_a_young_list_is_complete_when_it_was_unchanged_for_ten_seconds(tmp_path: Path, clock: Clock) -> None:
    path, fresh = written(tmp_path / "list"), str(written(tmp_path / "fresh"))
    last = LastLine(str(path))
    assert not last.is_complete(path.stat(), 4, fresh)
    assert last.due >= clock.now + QUIET
    clock.now += QUIET - 0.1
    assert not last.is_complete(path.stat(), 4, fresh)
    os.utime(path)  # the same size at another time
    clock.now = last.due
    assert not last.is_complete(path.stat(), 4, fresh)
    path.write_bytes(b"true more")
    clock.now = last.due
    assert not last.is_complete(path.stat(), 9, fresh)
    clock.now = last.due
    assert last.is_complete(path.stat(), 9, fresh)
    assert not last.pending


def test_a_list_that_grew_while_it_was_read_is_never_complete(tmp_path: Path, clock: Clock) -> None:
    path, fresh = written(tmp_path / "list"), str(written(tmp_path / "fresh"))
    last = LastLine(str(path))
    assert not last.is_complete(aged(path, 1e6), 2, fresh)
    clock.now = last.due
    assert not last.is_complete(path.stat(), 4, fresh)


def test_a_pipe_that_was_read_to_its_end_is_complete(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    assert LastLine(str(tmp_path / "pipe")).is_complete(os.stat(tmp_path / "pipe"), 4, "")


# --- what failed is tried again --------------------------------------------------------------------


@pytest.fixture
def intake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Intake, Ledger]:
    """A farm with one task, as the farmer sees it that made it."""
    monkeypatch.delenv("SCRATCH", raising=False)
    (tmp_path / "list").write_bytes(b"true\n")
    one = Intake(Settings(str(tmp_path / "list")), silent())
    return one, Ledger(one.workdir, one.open(), "me")


def append(intake: Intake, text: bytes) -> None:
    with open(intake.path, "ab") as file:
        file.write(text)


def full(*_: object, **__: object) -> Any:
    raise OSError(errno.ENOSPC, "No space left on device", "somewhere")


def broken(*_: object, **__: object) -> Any:
    raise OSError(errno.EIO, "Input/output error", "somewhere")


class FailingOs:
    """The module `os`, but one call fails."""

    def __init__(self, call: str, error: Callable[..., Any]) -> None:
        self._failing = {call: error}

    def __getattr__(self, name: str) -> Any:
        return self._failing.get(name, getattr(os, name))


FAILURES: dict[str, tuple[Any, str, Any]] = {
    "a segment is made": (durable, "fresh", full),
    "a segment is synced": (durable, "sync", full),
    "an index is written": (durable, "prepare", full),
    "a revision gets its name": (durable, "publish", full),
    "the list is looked at": (source, "os", FailingOs("stat", broken)),
    "the list is opened": (source, "os", FailingOs("open", broken)),
    "the list is compared": (comparison, "digest", broken),
    "the list is read": (importer, "digest", broken),
}


@pytest.mark.parametrize("where", FAILURES)
@pytest.mark.parametrize("line", [b"echo new\n", b"echo new"])
def test_lines_that_could_not_be_taken_in_are_taken_in_later(
    intake: tuple[Intake, Ledger], clock: Clock, monkeypatch: pytest.MonkeyPatch, where: str, line: bytes
) -> None:
    one, ledger = intake
    append(one, line)
    if not line.endswith(b"\n"):
        assert one.check(ledger, running=True) == 0
        assert one.last_line.pending
        clock.now = one.last_line.due
    for _ in range(2):
        with monkeypatch.context() as patch:
            patch.setattr(*FAILURES[where])
            with pytest.raises((ListUnavailable, StorageError), match=r"No space|Input/output"):
                one.check(ledger, running=True)
        assert one.has_untaken
    assert one.check(ledger, running=True) == 1
    assert not one.has_untaken
    assert one.check(ledger, running=True) == 0
    assert [segment.tasks for segment in ledger.look().segments] == [1, 1]


def test_lines_that_came_while_the_list_was_out_of_reach_are_taken_in(
    intake: tuple[Intake, Ledger], monkeypatch: pytest.MonkeyPatch
) -> None:
    one, ledger = intake
    append(one, b"echo new\n")
    real = os.stat

    def stat(path: Any, **more: Any) -> os.stat_result:
        if path == one.path:
            raise OSError(errno.ESTALE, "Stale file handle", path)
        return real(path, **more)

    with monkeypatch.context() as patch:
        patch.setattr(os, "stat", stat)
        with pytest.raises(ListUnavailable, match="Stale file handle"):
            one.check(ledger, running=True)
    assert one.check(ledger, running=True) == 1


def test_a_list_that_went_and_came_back_is_looked_at(intake: tuple[Intake, Ledger], tmp_path: Path) -> None:
    one, ledger = intake
    os.rename(one.path, tmp_path / "away")
    assert one.check(ledger, running=True) == 0
    assert not one.has_untaken
    os.rename(tmp_path / "away", one.path)
    append(one, b"echo new\n")
    assert one.check(ledger, running=True) == 1


def test_lines_that_another_farmer_took_in_meanwhile_are_looked_at_again(
    intake: tuple[Intake, Ledger], monkeypatch: pytest.MonkeyPatch
) -> None:
    one, ledger = intake
    other = Intake(one.settings, silent())
    append(one, b"echo new\n")
    grow = ledger.grow

    def late(segment: Any) -> bool:
        monkeypatch.setattr(ledger, "grow", grow)
        assert other.check(Ledger(one.workdir, ledger.farm, "other")) == 1
        append(one, b"echo newer\n")
        return ledger.grow(segment)

    monkeypatch.setattr(ledger, "grow", late)
    assert one.check(ledger, running=True) == 0
    assert one.has_untaken
    assert one.check(ledger, running=True) == 1
    assert [segment.tasks for segment in ledger.look().segments] == [1, 1, 1]
    assert len(os.listdir(one.workdir.tasks)) == 6


def test_a_refused_list_is_refused_once_until_it_changes(intake: tuple[Intake, Ledger]) -> None:
    one, ledger = intake
    Path(one.path).write_bytes(b"false\n")
    for _ in range(2):
        with pytest.raises(TaskListError, match="line 1"):
            one.check(ledger, running=True)
        assert one.check(ledger, running=True) == 0
        assert not one.has_untaken
        os.utime(one.path, (0, 0))


@pytest.mark.parametrize("text", [b"echo 1\necho 22\necho 3\n", b"t"])
def test_a_list_that_is_exchanged_between_two_reads_gives_no_half_line(
    intake: tuple[Intake, Ledger], monkeypatch: pytest.MonkeyPatch, text: bytes
) -> None:
    one, ledger = intake
    append(one, b"echo new\n")
    write = one.importer.segment

    def exchanged(*arguments: Any, **more: Any) -> Any:
        Path(one.path).write_bytes(text)
        return write(*arguments, **more)

    monkeypatch.setattr(one.importer, "segment", exchanged)
    with pytest.raises(ListUnavailable, match="changes while it is read"):
        one.check(ledger, running=True)
    assert len(ledger.look().segments) == 1
    with pytest.raises(TaskListError, match=r"line 1|ends before task 0"):
        one.check(ledger, running=True)


def test_a_list_is_only_stat_when_nothing_changed(
    intake: tuple[Intake, Ledger], monkeypatch: pytest.MonkeyPatch
) -> None:
    one, ledger = intake
    monkeypatch.setattr(ledger, "look", broken)
    assert one.check(ledger, running=True) == 0
