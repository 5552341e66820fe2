"""Reading untrusted files: limits of bytes, of lines, of values; types and ranges of members."""

from __future__ import annotations

import errno
import json
import os
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from taskfarmer.errors import Damaged
from taskfarmer.formats import limits, members
from taskfarmer.formats.intervals import each_interval, parse_intervals
from taskfarmer.formats.results import result_words
from taskfarmer.formats.sealed import sealed, unsealed
from taskfarmer.formats.tasks import parse_task
from taskfarmer.ledger.document import from_document, to_document
from taskfarmer.ledger.farmfile import Farm, load
from taskfarmer.ledger.state import Entry, Segment, State, problems
from taskfarmer.storage import reading
from taskfarmer.storage.layout import Workdir


def test_a_file_is_read_up_to_its_limit_and_not_beyond(tmp_path: Path) -> None:
    path = str(tmp_path / "file")
    for size in (0, 1, 100, 1 << 16, (1 << 16) + 1, 3 << 20):
        (tmp_path / "file").write_bytes(bytes(size))
        assert reading.read(path, size) == bytes(size)
        if size:
            with pytest.raises(OSError, match="longer than") as error:
                reading.read(path, size - 1)
            assert (error.value.errno, error.value.filename) == (errno.EOVERFLOW, path)


def test_a_file_that_is_not_regular_is_not_read_to_its_end(tmp_path: Path) -> None:
    (tmp_path / "zero").symlink_to("/dev/zero")
    with pytest.raises(OSError, match="not a regular file") as error:
        reading.read(str(tmp_path / "zero"))
    assert error.value.errno == errno.EINVAL
    os.mkfifo(tmp_path / "fifo")
    assert reading.read(str(tmp_path / "fifo")) == b""
    with pytest.raises(IsADirectoryError):
        reading.read(str(tmp_path))


def test_a_file_of_the_kernel_that_has_no_size_is_read() -> None:
    assert b"VmPeak" in reading.read("/proc/self/status")


@given(st.binary(max_size=300), st.integers(1, 40))
def test_lines_are_those_of_the_file(data: bytes, longest: int) -> None:
    data = data.replace(b"a", b"\n")
    reader, writer = os.pipe()
    os.write(writer, data)
    os.close(writer)
    found = list(reading.lines(reader, longest))
    os.close(reader)
    every = [line + b"\n" for line in data.split(b"\n")[:-1]] + ([data.split(b"\n")[-1]] if data[-1:] != b"\n" else [])
    every = [line for line in every if line]
    wanted = []
    for line in every:
        wanted.append(line[:longest])
        if len(line) > longest:
            break
    assert found == wanted


def test_a_line_without_end_is_cut(tmp_path: Path) -> None:
    with open(tmp_path / "sparse", "wb") as file:
        file.write(b"first\n")
        file.truncate(1 << 40)
    with reading.opened(str(tmp_path / "sparse")) as fd:
        assert [*reading.lines(fd, 4096)] == [b"first\n", bytes(4096)]


@pytest.mark.parametrize(
    "body",
    [
        b'{"x":' + b"[" * 200_000 + b"]" * 200_000 + b"}",
        b'{"x":' + b"9" * 5000 + b"}",
        b'{"x":[' + b"0," * limits.VALUES + b"0]}",
        b'{"x":}',
        b'{"x":"\xff"}',
        b"[1}",
    ],
)
def test_a_valid_checksum_does_not_make_a_document(body: bytes) -> None:
    assert unsealed(b'%s,"crc":"%08x"}\n' % (body[:-1], zlib.crc32(body))) is None


def test_a_task_with_endlessly_nested_options_is_refused() -> None:
    for command in (b'{"command":' + b"[" * 200_000, b'{"command":1}', b'{"command":"x"', b'{"command":"\\ud800"}'):
        with pytest.raises(ValueError):
            parse_task(b"0 " + command + b"\n")


@pytest.mark.parametrize("word", [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11])
@pytest.mark.parametrize("value", [b"", b"x", b"9" * 30, b"nan", b"1e5", b"\xff", b"1_0", b" "])
def test_a_result_with_wrong_words_is_refused(word: int, value: bytes) -> None:
    words = b"7 1 0 1.0 2.0 finished 0 0 0.1 0.2 100 files".split(b" ")
    if (word == 11 and value not in (b"", b"\xff", b" ")) or (word == 5 and value.isalpha()):
        return  # these may be any words
    words[word] = value
    body = b" ".join(words)
    assert result_words(b"%s %08x" % (body, zlib.crc32(body))) is None


def test_intervals_have_limits() -> None:
    for text in ("0~" + "_" * 10_000, "0~" + "A" * 10_000, "0:" + "9" * 5000, "x", "0:1@x"):
        with pytest.raises(ValueError):
            parse_intervals(text)
    assert sum(one.count for one in each_interval("0:1 0:2 0:5+7")) == 9


STATE = State(
    "c" * 16,
    7,
    ("host-1-0a1b2c3d", 3),
    "000001-0a1b2c3d",
    4,
    (Segment("0a1b2c3d4e5f", 0, 100, 50, 900, "e" * 64), Segment("1a1b2c3d4e5f", 100, 5, 0, 950, "f" * 64, True)),
    "0:7@2",
    {"host-1-0a1b2c3d": Entry(3, "0:9", "host-1-0a1b2c3d-r1", 500, 2)},
    {"host-2-0a1b2c3d": 70},
    0,
    40,
    8,
    12.5,
    48,
    {3: 2},
)
ODD = (None, True, -1, 10**30, -0.5, float("nan"), float("inf"), "", "../x", "a\0b", "\ud800", [], [1], {}, {"a": "b"})


def changed(document: dict[str, Any], path: tuple[Any, ...], value: Any) -> dict[str, Any]:
    copy: Any = json.loads(json.dumps(document))
    place = copy
    for step in path[:-1]:
        place = place[step]
    place[path[-1]] = value
    return copy  # type: ignore[no-any-return]


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    found = [path] if path else []
    for name, more in value.items() if isinstance(value, dict) else enumerate(value if isinstance(value, list) else ()):
        found += places(more, (*path, name))
    return found


def test_an_intact_revision_has_no_problems() -> None:
    document = to_document(STATE)
    assert from_document(json.loads(json.dumps(document))) == STATE
    assert [one for one in problems(STATE) if "tasks, but" not in one] == []


@pytest.mark.parametrize("value", ODD, ids=repr)
def test_a_revision_with_an_odd_value_anywhere_is_a_state_or_a_value_error(value: object) -> None:
    document = to_document(STATE)
    for path in places(document):
        odd = changed(document, path, value)
        try:
            state = from_document(odd)
        except ValueError:
            continue
        try:
            assert isinstance(problems(state), list)
            assert to_document(state)
        except ValueError:
            assert isinstance(value, str), path


@pytest.mark.parametrize("member", [name for name in to_document(STATE) if name not in ("format", "times")])
def test_a_missing_member_of_a_revision_is_named(member: str) -> None:
    document = to_document(STATE)
    del document[member]
    with pytest.raises(ValueError, match=f"^member `{member}` is missing$"):
        from_document(document)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("farmers", "host-1-0a1b2c3d", 2), "500"),
        (("farmers", "host-1-0a1b2c3d", 0), -3),
        (("farmers", "host-1-0a1b2c3d", 3), 2.0),
        (("farmers", "host-1-0a1b2c3d", 4), "../../x"),
        (("departed", "host-2-0a1b2c3d"), None),
        (("segments", 0, "next"), "50"),
        (("segments", 0, "tasks"), 10**15),
        (("segments", 1, "file"), "/etc/passwd"),
        (("epoch",), "../../tmp"),
        (("seconds",), "12"),
        (("times",), [1, -5]),
        (("by",), ["x"]),
    ],
)
def test_a_member_of_another_type_or_range_is_named(path: tuple[Any, ...], value: Any) -> None:
    odd = changed(to_document(STATE), path, value)
    with pytest.raises(ValueError, match=rf"member `{path[0]}|{path[0]}\["):
        from_document(odd)


@pytest.mark.parametrize("member", [name for name in Farm._fields if name not in ("format", "logs", "shared_group")])
def test_every_member_of_a_farm_refuses_an_odd_value(member: str, tmp_path: Path) -> None:
    farm = Farm("c" * 16, "/list", "default", {}, None, 300.0, 1000, 1.0)
    for value in ODD:
        (tmp_path / "farm.json").write_bytes(sealed({**farm._asdict(), member: value}))
        try:
            load(Workdir.at(str(tmp_path)))
        except Damaged as error:
            assert f"member `{member}`" in str(error)
            return
    raise AssertionError(f"{member} may have any value")


@pytest.mark.parametrize("value", [*ODD, "x" * 100_000, [[1]] * 1000, 10**400], ids=lambda _: "")
def test_the_shown_part_of_a_value_is_short(value: object) -> None:
    assert len(members.shown(value)) < 100


@pytest.mark.parametrize(
    ("rule", "right", "wrong"),
    [
        (members.is_whole, (0, 5, members.MOST), (True, -1, 1.0, "1", None, members.MOST + 1)),
        (members.is_number, (0, 1.5), (True, -1, float("nan"), float("inf"), "1", 10**400)),
        (members.is_name, ("a", "host-1", "ä", ".x"), ("", ".", "..", "a/b", "a\0", "\ud800", 5, "x" * 256)),
        (members.is_text, ("", "a/b", "\udcff"), ("a\0", "\ud800", None, b"x", "x" * (members.LONGEST + 1))),
        (members.is_texts, ({}, {"a": "b"}), ([], {"a": 1}, {"a": "\0"}, None)),
    ],
)
def test_types_and_ranges(rule: Callable[[Any], bool], right: tuple[Any, ...], wrong: tuple[Any, ...]) -> None:
    assert [one for one in right if not rule(one)] == []
    assert [one for one in wrong if rule(one)] == []
