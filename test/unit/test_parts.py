"""Packed logs: their head lines, and how pieces are found."""

from __future__ import annotations

from pathlib import Path

import click
import pytest

from taskfarmer.cli.types import Size
from taskfarmer.formats import packs
from taskfarmer.inspect import logs
from taskfarmer.storage.layout import Workdir
from taskfarmer.worker.output.limit import cut_line, cut_out_middle, kept_spans


def test_a_head_line_has_the_length_of_its_piece() -> None:
    first, second = packs.first_head(7, 1, 3 << 8, (12, 12), "now"), packs.next_head(7, 1, 5)
    assert first == b"=== taskfarmer: task 7, attempt 1, exit 3, 12 bytes, now ===\n"
    assert packs.parse_head(first + b"more") == (7, 1, 12, 12, len(first), None)
    assert packs.parse_head(second) == (7, 1, 5, 5, len(second), None)
    of_several = packs.first_head(7, 1, 9, (12, 17), "now")
    assert of_several == b"=== taskfarmer: task 7, attempt 1, signal 9, 12 of 17 bytes, now ===\n"
    assert packs.parse_head(of_several) == (7, 1, 12, 17, len(of_several), None)
    longest = packs.first_head(10**18 - 1, 10**9 - 1, 255 << 8, (10**18 - 2, 10**18 - 1), "2026-01-01 00:00:00")
    assert packs.parse_head(longest) and len(longest) < packs.LONGEST_HEAD


def test_a_head_line_of_a_running_attempt_has_its_scratch_file() -> None:
    head = packs.running_head(7, 1, 3, 2)
    assert head == b"=== taskfarmer: task 7, attempt 1, running, 0 bytes, slot 3, file 2 ===\n"
    assert packs.parse_head(head) == (7, 1, 0, 0, len(head), (3, 2))


@pytest.mark.parametrize(
    "line", [b"", b"=== taskfarmer: task 7, attempt 1, exit 3, 12", b"x" + packs.next_head(7, 1, 5)]
)
def test_an_incomplete_head_line_is_not_parsed(line: bytes) -> None:
    assert packs.parse_head(line) is None
    for number in range(len(packs.running_head(7, 1, 3, 2))):
        assert packs.parse_head(packs.running_head(7, 1, 3, 2)[:number]) is None


def found_in(tmp_path: Path, data: bytes) -> dict[int, bytes]:
    """The output of each task in a packed file."""
    (tmp_path / "farmers").mkdir()
    (tmp_path / "logs" / "packed").mkdir(parents=True)
    (tmp_path / "farmers" / "node-1-00000000.json").touch()
    (tmp_path / "logs" / "packed" / "node-1-00000000").write_bytes(data)
    store = logs.LogStore(Workdir.at(str(tmp_path)), "0" * 16)
    found = {log.task_id: b"".join(log.blocks()) for log in store.all(100)}
    assert found == {task: b"".join(*(log.blocks() for log in some)) for task, some in store.find(set(found)).items()}
    return found


def piece(task: int, text: bytes, size: int | None = None) -> bytes:
    head = packs.first_head(task, 1, 0, (len(text) if size is None else size,) * 2, "now")
    return head + text + (b"" if text.endswith(b"\n") else b"\n")


PRINTED = b"=== taskfarmer: task 9, attempt 1, exit 0, 3 bytes ===\nab\n"
"""A head line that a task wrote."""


def test_pieces_are_found_from_head_line_to_head_line(tmp_path: Path) -> None:
    data = piece(0, b"one\n") + piece(1, PRINTED) + piece(2, b"no end") + piece(5, b"") + piece(6, b"\n\n")
    torn = data + piece(3, b"only this\n", 1000)
    assert found_in(tmp_path, torn + piece(4, b"four")[:-1]) == {
        0: b"one\n",
        1: PRINTED,
        2: b"no end",
        6: b"\n\n",
        3: b"only this\n",
        4: b"four",
    }


def test_a_piece_that_follows_a_torn_one_in_its_last_line_is_found(tmp_path: Path) -> None:
    data = packs.first_head(0, 1, 0, (30, 30), "now") + b"torn" + piece(1, b"one\n")
    data += packs.running_head(2, 1, 0, 1)[:40] + piece(3, b"three\n")
    assert found_in(tmp_path, data) == {0: b"torn", 1: b"one\n", 3: b"three\n"}


def test_pieces_of_several_parts_may_stand_between_each_other(tmp_path: Path) -> None:
    data = (
        packs.first_head(0, 1, 0, (4, 8), "now") + b"1st " + b"\n" + packs.first_head(1, 1, 0, (2, 4), "now") + b"a\n"
    )
    data += piece(2, b"all\n") + packs.next_head(0, 1, 4) + b"2nd\n" + packs.next_head(1, 1, 2) + b"b\n"
    assert found_in(tmp_path, data) == {0: b"1st 2nd\n", 1: b"a\nb\n", 2: b"all\n"}


def test_many_torn_pieces_are_read_once(tmp_path: Path) -> None:
    data = b"".join(packs.first_head(task % 100, 1, 0, (10**6, 10**6), "now") for task in range(20_000)) + piece(
        0, b"x\n"
    )
    assert found_in(tmp_path, data)[0] == b"x\n"


def test_a_hole_after_the_last_piece_is_not_its_output(tmp_path: Path) -> None:
    assert found_in(tmp_path, piece(0, b"one\n") + bytes(100_000)) == {0: b"one\n"}


@pytest.mark.parametrize("start", [0, 5])
@pytest.mark.parametrize("size", [0, 1999, 2000, 2001, 2060, 2070, 100_000, 5_000_000])
def test_a_file_is_cut_to_its_head_and_tail(tmp_path: Path, start: int, size: int) -> None:
    before = bytes(start) + bytes(number % 251 for number in range(size))
    path = tmp_path / "log"
    path.write_bytes(before)
    with open(path, "r+b") as file:
        cut_out_middle(file.fileno(), start, 2000)
    whole, cut = path.read_bytes(), size - 2000
    expected = before[: start + 1000] + cut_line(cut) + before[-1000:] if cut > len(cut_line(cut)) else before
    assert whole == expected
    ranges = list(kept_spans(start, start + size, 2000))
    assert b"".join(one if isinstance(one, bytes) else before[slice(*one)] for one in ranges) == expected[start:]


@pytest.mark.parametrize(
    ("text", "size"),
    [("0", 0), ("2000", 2000), ("64k", 65536), ("64K", 65536), ("1M", 1 << 20), ("1MiB", 1 << 20), ("1MB", 10**6)],
)
def test_sizes_have_the_units_of_slurm_and_gnu_tools(text: str, size: int) -> None:
    assert Size().convert(text, None, None) == size


@pytest.mark.parametrize("text", ["", "k", "1.5M", "-1", "10X", "10", "٣k"])
def test_an_invalid_size_is_refused(text: str) -> None:
    with pytest.raises(click.BadParameter):
        Size().convert(text, None, None)
