"""The lines of packed logs and of their index."""

from __future__ import annotations

from array import array
from pathlib import Path

import click
import pytest

from taskfarmer.cli.types import Size
from taskfarmer.formats import packs
from taskfarmer.formats.packs import Part, Runs
from taskfarmer.inspect import logs
from taskfarmer.worker.output.limit import kept, missing, shorten

PART = Part(17, 2, 3, 0, 0xDEADBEEF, ((76, 4), (200, 1 << 40)))


@pytest.mark.parametrize("what", [PART, Part(0, 1, 0, 9, 0, ()), Runs(5, 1, "node-1-00000000-3.2")], ids=str)
def test_a_line_of_an_index_survives_writing_and_parsing(what: Part | Runs) -> None:
    line = packs.part_line(what) if isinstance(what, Part) else packs.runs_line(what)
    assert packs.parse_line(line[:-1]) == what


def test_an_incomplete_line_is_refused() -> None:
    line = packs.part_line(PART)[:-1]
    for place in range(len(line)):
        assert packs.parse_line(line[:place]) is None
        assert packs.parse_line(line[:place] + bytes([line[place] ^ 1]) + line[place + 1 :]) is None
    assert packs.parse_line(line + line) is None


def test_a_line_has_the_documented_format() -> None:
    assert packs.part_line(PART) == b"part 17 2 3 0 deadbeef 76+4,200+1099511627776 de50ead9\n"
    assert packs.runs_line(Runs(5, 1, "a-0")) == b"runs 5 1 a-0 4dc5f4af\n"


def test_a_head_line_contains_the_length_of_its_piece() -> None:
    first, second = packs.head(7, 1, 3 << 8, 12, "now"), packs.next_head(7, 1, 5)
    assert first == b"=== taskfarmer: task 7, attempt 1, exit 3, 12 bytes, now ===\n"
    assert packs.parse_head(first + b"more") == (7, 1, 12, len(first))
    assert packs.parse_head(second) == (7, 1, 5, len(second))
    assert len(packs.next_head(0, 1, 1)) >= packs.SHORTEST_HEAD
    assert len(packs.head(10**18, 10**9, 255 << 8, 10**18, "2026-01-01 00:00:00")) <= packs.LONGEST_HEAD


def test_pieces_without_an_index_are_found_by_their_head_lines(tmp_path: Path) -> None:
    data = b""
    for task, text in enumerate((b"one\n", b"=== taskfarmer: task 9, attempt 1, exit 0, 3 bytes ===\nab\n", b"no end")):
        data += packs.head(task, 1, 0, len(text), "now") + text + (b"" if text.endswith(b"\n") else b"\n")
    torn = data + packs.head(3, 1, 0, 1000, "now") + b"only this\n"
    (tmp_path / "pack").write_bytes(torn + packs.head(4, 1, 0, 4, "now") + b"four")
    found = logs._untold(str(tmp_path / "pack"), array("Q"), array("Q"))
    whole = (tmp_path / "pack").read_bytes()
    texts = {task: b"".join(whole[start : start + size] for start, size in pieces) for task, _, pieces in found}
    assert texts == {
        0: b"one\n",
        1: b"=== taskfarmer: task 9, attempt 1, exit 0, 3 bytes ===\nab\n",
        2: b"no end",
        3: b"only this\n",
        4: b"four",
    }


@pytest.mark.parametrize("start", [0, 5])
@pytest.mark.parametrize("size", [0, 1999, 2000, 2001, 2060, 2070, 100_000, 5_000_000])
def test_a_file_is_cut_to_its_head_and_tail(tmp_path: Path, start: int, size: int) -> None:
    before = bytes(start) + bytes(number % 251 for number in range(size))
    path = tmp_path / "log"
    path.write_bytes(before)
    with open(path, "r+b") as file:
        shorten(file.fileno(), start, 2000)
    whole, cut = path.read_bytes(), size - 2000
    expected = before[: start + 1000] + missing(cut) + before[-1000:] if cut > len(missing(cut)) else before
    assert whole == expected
    ranges = list(kept(start, start + size, 2000))
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
