"""Task lists saved by editors of other systems, and parts of a list that are read separately."""

from __future__ import annotations

import codecs
import hashlib
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest

from taskfarmer.errors import TaskListError
from taskfarmer.runners.shell import shell, shell_argv
from taskfarmer.tasks import ListTaskList
from taskfarmer.tasks import source as source_module
from taskfarmer.tasks.source import SourceReader, line_of_task

MARK = codecs.BOM_UTF8


def read(data: bytes, **options: Any) -> tuple[list[bytes], SourceReader]:
    reader = SourceReader(BytesIO(data), "list.txt", **options)
    return [task for batch in reader for task in batch], reader


# --- byte order marks ------------------------------------------------------------------------------


@pytest.mark.parametrize("chunk", [1, 3, 5, source_module.CHUNK])
@pytest.mark.parametrize(
    "text",
    [b"a\nb\n", b"a", b"# a comment\nb\n", b"\na\n", b"#TASKFARMER --time 1m\na\n", b"a\r\n# b\r\nc\r\n", b"", b"\n"],
)
def test_a_byte_order_mark_changes_no_task(text: bytes, chunk: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(source_module, "CHUNK", chunk)
    tasks, reader = read(MARK + text)
    assert tasks == read(text)[0]
    assert reader.sha.digest() == hashlib.sha256((MARK + text)[: reader.consumed]).digest()
    assert reader.consumed in (0, len(MARK + text))


def test_a_byte_order_mark_in_the_middle_is_part_of_its_task() -> None:
    assert read(b"a\n" + MARK + b"b\n")[0] == [b"a", MARK + b"b"]
    assert read(b"a\n" + MARK + b"b\n", offset=2)[0] == [MARK + b"b"]


def test_lines_after_a_byte_order_mark_keep_their_numbers(tmp_path: Path) -> None:
    path = tmp_path / "list"
    path.write_bytes(MARK + b"# a comment\na\n\nb\n")
    assert [line_of_task(str(path), task) for task in range(2)] == [2, 4]
    assert ListTaskList(str(path), "").tasks == ["a", "b"]


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-be", "utf-32"])
def test_a_list_in_another_encoding_of_unicode_is_refused(encoding: str) -> None:
    text = "\ufeff" * (encoding == "utf-16-be") + "echo a\necho b\n"
    with pytest.raises(TaskListError, match=r"^list\.txt: (the encoding is UTF-16: save|line 1: contains a NUL)"):
        read(text.encode(encoding))


# --- parts of a list -------------------------------------------------------------------------------


def test_the_rest_of_a_list_is_read_when_it_is_complete() -> None:
    tasks, reader = read(b"a\nb", whole_lines_only=True)
    assert (tasks, reader.rest, reader.rest_is_task, reader.consumed) == ([b"a"], b"b", True, 2)
    assert [*reader.last_line()] == [[b"b"]]
    assert (reader.consumed, reader.open_end, reader.rest) == (3, True, b"")


@pytest.mark.parametrize("rest", [b"", b"# a", b" \t", b"\r", b"#TASKFARMER --ti"])
def test_a_rest_without_a_task_gives_no_task(rest: bytes) -> None:
    assert not read(b"a\n" + rest, whole_lines_only=True)[1].rest_is_task


def test_zeros_in_a_rest_that_is_complete_are_refused() -> None:
    _, reader = read(b"a\nb\0", whole_lines_only=True)
    for refuse in (reader.refuse_binary_rest, lambda: [*reader.last_line()]):
        with pytest.raises(TaskListError, match="line 2: contains a NUL"):
            refuse()


@pytest.mark.parametrize("chunk", [1, 3, source_module.CHUNK])
def test_a_list_is_read_up_to_the_given_end(chunk: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(source_module, "CHUNK", chunk)
    assert read(b"a\nb\nhalf", end=4)[0] == [b"a", b"b"]
    assert read(b"a\nb\nhalf", end=2, offset=2)[0] == []
    assert read(b"a\nb\nhalf", end=0)[0] == []


# --- the shell -------------------------------------------------------------------------------------


def test_a_command_is_never_an_option_of_the_shell() -> None:
    assert shell_argv("-x; y") == [shell(), "-c", "--", "-x; y"]


def test_bash_is_searched_on_path_if_it_is_not_in_bin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    here, there, folder = (tmp_path / name for name in ("here", "there", "folder"))
    for place in (here, there, folder / "bash"):
        place.mkdir(parents=True)
    (here / "bash").write_text("not a program\n")
    (there / "bash").write_text("#!/bin/sh\n")
    (there / "bash").chmod(0o755)
    monkeypatch.setattr("taskfarmer.runners.shell.BASH", str(tmp_path / "bin" / "bash"))
    monkeypatch.chdir(there)
    found = shell.__wrapped__
    monkeypatch.setenv("PATH", f":.:{here}:{folder}:{there}")
    assert found() == f"{there}/bash"
    monkeypatch.setenv("PATH", f":.:{here}:{folder}")
    assert found() == "/bin/sh"
    monkeypatch.delenv("PATH")
    assert found() == "/bin/sh"
