"""If several attempts use the same `log_<ID>`, in forced orders, the output of each is complete in the end."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from taskfarmer.formats.packs import attempt_header
from taskfarmer.inspect import logs
from taskfarmer.worker.batch import Batch
from taskfarmer.worker.context import NotStarted, SlotContext
from taskfarmer.worker.output import folder
from taskfarmer.worker.output.folder import LogFolder
from taskfarmer.worker.slot import Slot

FARM, OTHER = "0123456789abcdef", "fedcba9876543210"


def place_in(folder: Path) -> SlotContext:
    folder.mkdir()
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    return SlotContext(0, "f-1-00000000", "host", str(folder.parent), str(folder), fd, farm=FARM)


@pytest.fixture
def place(tmp_path: Path) -> SlotContext:
    return place_in(tmp_path / "logs")


def written(folder: LogFolder, attempt: int, text: bytes) -> int:
    """Open the log of task 7 as an attempt does, and write into it."""
    fd = folder.open_log(7, attempt)
    os.write(fd, text)
    return fd


def log(place: SlotContext) -> bytes:
    return (Path(place.logs) / "log_7").read_bytes()


def names(place: SlotContext) -> list[str]:
    return sorted(os.listdir(place.logs))


def before_call(monkeypatch: pytest.MonkeyPatch, name: str, action: Callable[[], object]) -> None:
    """Call `action` just before the next call of a function of `os`, as if the attempt slept there."""
    call, waiting = getattr(os, name), [action]

    def called(*args: object, **options: object) -> object:
        if waiting:
            waiting.pop()()
        return call(*args, **options)

    monkeypatch.setattr(os, name, called)


def test_only_later_attempts_have_a_header(place: SlotContext) -> None:
    folder = LogFolder(place)
    written(folder, 1, b"one")
    written(folder, 2, b"two\n")
    written(folder, 3, b"three\n")
    lines = log(place).split(b"\n")
    assert [lines[0], lines[2], lines[4]] == [b"one", b"two", b"three"]
    assert lines[1].startswith(b"=== taskfarmer: attempt 2 on host, ")
    assert lines[3].endswith(b", task 7, farm 0123456789abcdef ===")
    assert names(place) == ["log_7"]


def test_an_earlier_attempt_that_still_runs_cannot_write_into_a_later_ones_log(place: SlotContext) -> None:
    early = written(LogFolder(place), 1, b"begins\n")
    written(LogFolder(place), 2, b"result\n")
    before = log(place)
    os.write(early, b"still there\n")
    assert log(place) == before
    assert before.startswith(b"begins\n=== ") and before.endswith(b"===\nresult\n")


def test_a_late_first_attempt_is_appended(place: SlotContext) -> None:
    written(LogFolder(place), 2, b"result\n")
    before = log(place)
    written(LogFolder(place), 1, b"late\n")
    assert log(place).startswith(before + b"=== taskfarmer: attempt 1 on host, ")
    assert log(place).endswith(b"===\nlate\n")


def test_a_late_attempt_does_not_take_over_the_log_of_a_later_one(place: SlotContext) -> None:
    later = written(LogFolder(place), 3, b"begins\n")
    written(LogFolder(place), 2, b"late\n")
    os.write(later, b"result\n")
    assert log(place).endswith(b"===\nlate\nresult\n")


@pytest.mark.parametrize("call", ["rename", "link", "unlink"])
def test_a_later_attempt_loses_no_output_if_an_earlier_one_sleeps_during_its_takeover(
    place: SlotContext, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    written(LogFolder(place), 1, b"first\n")
    later: list[int] = []
    before_call(monkeypatch, call, lambda: later.append(written(LogFolder(place), 3, b"begins\n")))
    written(LogFolder(place), 2, b"late\n")
    os.write(later[0], b"result\n")
    found = b"".join((Path(place.logs) / name).read_bytes() for name in names(place))
    assert all(text in found for text in (b"first\n", b"attempt 3 on host", b"begins\n", b"result\n"))
    assert b"result\n" in log(place)


def test_a_log_that_grows_while_it_is_taken_over_is_appended_to(
    place: SlotContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    early = written(LogFolder(place), 1, b"begins\n")
    before_call(monkeypatch, "rename", lambda: os.write(early, b"goes on\n"))
    written(LogFolder(place), 2, b"result\n")
    assert log(place).startswith(b"begins\ngoes on\n=== taskfarmer: attempt 2 ")
    assert log(place).endswith(b"===\nresult\n")
    assert names(place) == ["log_7"]


def test_an_attempt_that_appends_notices_that_the_log_was_taken_over(
    place: SlotContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    written(LogFolder(place), 1, b"first\n")
    # here it searches for a line feed
    before_call(monkeypatch, "fstat", lambda: written(LogFolder(place), 2, b"second\n"))
    written(LogFolder(place), 1, b"appended\n")
    assert all(text in log(place) for text in (b"first\n", b"second\n", b"appended\n"))


def test_a_large_log_is_appended_to(place: SlotContext, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(folder, "COPY_LIMIT", 100)
    early = written(LogFolder(place), 1, b"x" * 101)
    written(LogFolder(place), 2, b"two\n")
    os.write(early, b"early\n")
    assert log(place).startswith(b"x" * 101 + b"\n=== taskfarmer: attempt 2 ")
    assert log(place).endswith(b"===\ntwo\nearly\n")


def test_a_log_with_output_of_another_farm_is_appended_to(place: SlotContext) -> None:
    other = written(LogFolder(place._replace(farm=OTHER, all_headers=True)), 1, b"other\n")
    written(LogFolder(place), 2, b"ours\n")
    os.write(other, b"more of the other\n")
    assert log(place).endswith(b"===\nours\nmore of the other\n")


def test_no_log_is_taken_over_in_a_directory_that_several_farms_use(place: SlotContext) -> None:
    shared = place._replace(own_logs=False)
    early = written(LogFolder(shared), 1, b"one\n")
    written(LogFolder(shared), 2, b"two\n")
    os.write(early, b"early\n")
    assert log(place).endswith(b"===\ntwo\nearly\n")


def test_a_log_that_a_crash_left_under_its_other_name_is_found_and_kept(place: SlotContext) -> None:
    workdir = logs.Workdir.at(place.workdir)
    (Path(place.logs) / "log_7.2").write_bytes(b"first\n")
    (found,) = logs.LogStore(workdir, FARM).find({7})[7]
    assert b"".join(found.blocks()) == b"first\n"
    written(LogFolder(place), 1, b"now\n")
    written(LogFolder(place), 2, b"two\n")  # the name for the earlier log is in use
    assert (Path(place.logs) / "log_7.2").read_bytes() == b"first\n"
    assert log(place).startswith(b"now\n=== ")


def test_a_full_disk_changes_no_log(place: SlotContext, monkeypatch: pytest.MonkeyPatch) -> None:
    written(LogFolder(place), 1, b"first\n")

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(folder.durable, "write_all", full)
    with pytest.raises(NotStarted, match="log_7: No space left on device"):
        LogFolder(place).open_log(7, 2)
    assert (names(place), log(place)) == (["log_7"], b"first\n")


def test_a_log_is_appended_to_if_links_are_not_possible(place: SlotContext, monkeypatch: pytest.MonkeyPatch) -> None:
    written(LogFolder(place), 1, b"first\n")

    def refused(*_: object) -> None:
        raise OSError(1, "Operation not permitted")

    monkeypatch.setattr(folder.durable, "add_name", refused)
    written(LogFolder(place), 2, b"second\n")
    assert names(place) == ["log_7"]
    assert log(place).startswith(b"first\n=== ") and log(place).endswith(b"===\nsecond\n")


def test_the_parts_of_a_farm_are_found_at_any_block_boundary() -> None:
    def head(farm: str, task: int, attempt: int) -> bytes:
        return attempt_header(farm, task, attempt, "host", "2026-11-30 04:00:00")

    shown = head(FARM, 8, 1)  # output of a task
    text = b"before\n" + head(FARM, 7, 1) + b"a" + head(OTHER, 7, 1) + b"b\n" + head(FARM, 7, 2) + shown + b"c"
    for first, expected in (
        (False, b"a" + head(FARM, 7, 2) + shown + b"c"),
        (True, b"before\n" + head(FARM, 7, 1) + b"a" + head(FARM, 7, 2) + shown + b"c"),
    ):
        for place in range(1, len(text)):
            blocks = iter((text[:place], text[place:]))
            assert b"".join(logs.sections_of_farm(blocks, 7, FARM.encode(), first)) == expected


def test_a_batch_that_waited_for_most_of_the_lease_is_not_started(place: SlotContext) -> None:
    slot = Slot(place._replace(lease=10.0), memoryview(bytearray(64)))
    slot.queue.append(Batch(0, 1, 1, [b"0 true", b"1 true"], 10.0))
    assert slot.start_next(0.0) is not None
    slot.queue[0].fresh_until -= 10.0
    assert slot.start_next(0.0) is None
    assert slot.remove_unstarted() == [(1, 1)]
