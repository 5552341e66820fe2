"""Segments: imported tasks are read by their position, byte for byte, and a corrupt task is never run."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from taskfarmer.errors import Damaged, StorageError
from taskfarmer.formats.tasks import parse_task
from taskfarmer.ledger.segments import MOST_OPEN, SegmentReader, SegmentWriter
from taskfarmer.ledger.state import Segment
from taskfarmer.storage.layout import Workdir


@pytest.fixture
def workdir(tmp_path: Path) -> Workdir:
    (tmp_path / "tasks").mkdir()
    return Workdir.at(str(tmp_path))


def written(workdir: Workdir, commands: list[bytes], first: int = 0, batch: int = 1000) -> Segment:
    writer = SegmentWriter(workdir, first)
    for start in range(0, len(commands), batch):
        writer.add(commands[start : start + batch])
    return Segment(writer.close(), first, len(commands))


def test_a_hundred_thousand_tasks_are_found_by_position_with_one_read_each(workdir: Workdir) -> None:
    commands = [b"run --number %d" % number for number in range(100_000)]
    segment = written(workdir, commands, first=500, batch=777)
    reader = SegmentReader(workdir)
    assert [command for _, command in reader.tasks(segment, 0, 100_000)] == commands
    for start, count in ((0, 1), (63, 2), (64, 64), (12_345, 700), (99_999, 1), (99_936, 64), (5, 0)):
        lines = reader.lines(segment, start, count)
        assert [parse_task(line) for line in lines] == [
            (500 + place, commands[place]) for place in range(start, start + count)
        ]
    reader.close()


def test_every_kind_of_command_is_read_unchanged(workdir: Workdir) -> None:
    commands = [
        b"plain",
        b"\xff\xfe no UTF-8 \x80",
        b"two\nlines",
        b"a\rreturn",
        b'{"command": "looks like ours"}',
        b"{ braces; }",
        b"tab\tand  spaces ",
        b"form\x0cfeed \x0b \x1c \x85 \xc2\x85 \xe2\x80\xa8",
        b"x" * 3_000_000,
        "Grüße 🚜".encode(),
        b"\0nul",
    ] * 30
    segment = written(workdir, commands)
    reader = SegmentReader(workdir)
    assert [parse_task(line) for line in reader.lines(segment, 0, len(commands))] == list(enumerate(commands))
    assert [parse_task(line)[1] for line in reader.lines(segment, 7, 1)] == [commands[7]]
    reader.close()


def test_a_segment_without_tasks_is_valid(workdir: Workdir) -> None:
    segment = written(workdir, [])
    assert SegmentReader(workdir).lines(segment, 0, 0) == []


def test_a_corrupt_task_is_an_error_that_names_the_file_and_others_are_read(workdir: Workdir) -> None:
    segment = written(workdir, [b"echo %d" % number for number in range(200)])
    path = Path(workdir.segment(segment.file))
    path.write_bytes(path.read_bytes().replace(b"echo 70\n", b"rm   70\n"))
    reader = SegmentReader(workdir)
    assert len(reader.lines(segment, 0, 64)) == 64
    assert len(reader.lines(segment, 128, 72)) == 72
    with pytest.raises(Damaged, match=path.name):
        reader.lines(segment, 127, 1)
    reader.close()


def test_a_truncated_segment_is_an_error(workdir: Workdir) -> None:
    segment = written(workdir, [b"echo %d" % number for number in range(200)])
    path = Path(workdir.segment(segment.file))
    path.write_bytes(path.read_bytes()[:-1])
    reader = SegmentReader(workdir)
    assert len(reader.lines(segment, 0, 128)) == 128
    with pytest.raises(Damaged, match="192"):
        reader.lines(segment, 199, 1)
    reader.close()


@pytest.mark.parametrize("harm", ["a bit", "short", "empty", "gone", "another's"])
def test_a_corrupt_index_is_an_error_that_names_it(workdir: Workdir, harm: str) -> None:
    segment = written(workdir, [b"true"] * 200)
    path = Path(workdir.segment_index(segment.file))
    data = bytearray(path.read_bytes())
    if harm == "gone":
        path.unlink()
    elif harm == "another's":
        path.write_bytes(Path(workdir.segment_index(written(workdir, [b"true"] * 10).file)).read_bytes())
    else:
        data[30] ^= 1
        path.write_bytes({"a bit": data, "short": data[:50], "empty": b""}[harm])
    with pytest.raises((Damaged, StorageError), match=path.name):
        SegmentReader(workdir).lines(segment, 0, 1)


def test_a_discarded_segment_leaves_no_files(workdir: Workdir) -> None:
    writer = SegmentWriter(workdir, 0)
    writer.add([b"true"] * 100)
    writer.discard()
    assert list(Path(workdir.tasks).iterdir()) == []


def test_a_list_that_grew_often_needs_no_additional_open_files(workdir: Workdir) -> None:
    segments = [written(workdir, [b"echo %d" % number], first=number) for number in range(100)]
    reader = SegmentReader(workdir)
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(2):
        for number, segment in enumerate(segments):
            assert reader.lines(segment, 0, 1) == [b"%d echo %d\n" % (number, number)]
    assert len(os.listdir("/proc/self/fd")) <= before + MOST_OPEN
    reader.close()
    assert len(os.listdir("/proc/self/fd")) == before
