"""The files that remain if a write fails half-way."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from taskfarmer.errors import NotAFarm, StorageError
from taskfarmer.storage import durable, linkproof


def fails(number: int) -> object:
    def call(*args: object, **more: object) -> None:
        raise OSError(number, os.strerror(number))

    return call


def test_a_prepared_file_that_cannot_be_synced_is_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "fsync", fails(errno.EIO))
    with pytest.raises(OSError, match="Input/output"):
        durable.prepare(str(tmp_path / "file"), b"data")
    assert list(tmp_path.iterdir()) == []


def test_a_partial_write_on_a_full_disk_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.write
    calls = []

    def write(fd: int, data: memoryview) -> int:
        calls.append(len(data))
        if len(calls) > 1:
            raise OSError(errno.ENOSPC, "No space left on device")
        return real(fd, data[:3])

    monkeypatch.setattr(os, "write", write)
    with pytest.raises(OSError, match="No space"):
        durable.prepare(str(tmp_path / "file"), b"abcdef")
    assert calls == [6, 3]
    assert list(tmp_path.iterdir()) == []


def test_the_first_of_two_files_published_under_one_name_keeps_it(tmp_path: Path) -> None:
    for name in ("one", "two"):
        durable.prepare(str(tmp_path / name), name.encode())
    assert durable.publish(str(tmp_path / "one"), str(tmp_path / "target")) is None
    lost = durable.publish(str(tmp_path / "two"), str(tmp_path / "target"))
    assert lost is not None and lost.errno == errno.EEXIST
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("target", "one")]


def test_a_replaced_file_is_the_old_one_or_the_new_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "file"
    durable.replace(str(path), b"old")
    monkeypatch.setattr(os, "rename", fails(errno.EDQUOT))
    with pytest.raises(OSError, match="quota"):
        durable.replace(str(path), b"new")
    assert [(one.name, one.read_bytes()) for one in tmp_path.iterdir()] == [("file", b"old")]


def test_a_journal_that_failed_once_accepts_no_more_lines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    journal = durable.Journal(str(tmp_path / "journal"))
    assert journal.append([b"first\n"]) == 6
    with monkeypatch.context() as broken:
        broken.setattr(os, "fsync", fails(errno.EIO))
        with pytest.raises(OSError, match="Input/output"):
            journal.append([b"second\n"])
    with pytest.raises(StorageError, match="new journal"):
        journal.append([b"third\n"])
    assert journal.size == 6
    journal.close()


def test_a_second_journal_of_the_same_name_is_refused(tmp_path: Path) -> None:
    durable.Journal(str(tmp_path / "journal")).close()
    with pytest.raises(FileExistsError):
        durable.Journal(str(tmp_path / "journal"))


def test_an_operation_on_a_stale_handle_is_retried(monkeypatch: pytest.MonkeyPatch) -> None:
    answers = [OSError(errno.ESTALE, "stale"), OSError(errno.EINTR, "interrupted")]

    def action() -> str:
        if answers:
            raise answers.pop()
        return "done"

    assert durable.retry_stale(action) == "done"
    with pytest.raises(OSError, match="No such"):
        durable.retry_stale(fails(errno.ENOENT))  # type: ignore[arg-type]


def test_a_file_system_without_hard_links_is_refused_with_an_explanation(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "link", fails(errno.EPERM))
    with pytest.raises(NotAFarm, match=r"no hard links.*-w DIR"):
        linkproof.prove_links(str(tmp_path))
    assert list(tmp_path.iterdir()) == []


def test_a_file_system_whose_link_replaces_files_is_refused_with_an_explanation(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.link

    def link(source: str, target: str) -> None:
        if os.path.exists(target):
            os.unlink(target)
        real(source, target)

    monkeypatch.setattr(os, "link", link)
    with pytest.raises(NotAFarm, match="replaces files"):
        linkproof.prove_links(str(tmp_path))
    assert list(tmp_path.iterdir()) == []


def test_a_file_system_without_link_counts_is_accepted_if_its_links_exclude(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.stat

    def stat(path: object, **more: object) -> object:
        found = real(path, **more)  # type: ignore[call-overload]
        return os.stat_result((*found[:3], 1, *found[4:]))  # as sshfs shows every file

    monkeypatch.setattr(os, "stat", stat)
    linkproof.prove_links(str(tmp_path))
    monkeypatch.setattr(os, "link", lambda source, target: None)
    with pytest.raises(NotAFarm, match=r"does not create a second name.*-w DIR"):
        linkproof.prove_links(str(tmp_path))
    monkeypatch.undo()
    assert list(tmp_path.iterdir()) == []


def test_the_check_of_links_leaves_no_files(tmp_path: Path) -> None:
    linkproof.prove_links(str(tmp_path))
    assert list(tmp_path.iterdir()) == []


def in_memory(path: Path, place: int) -> bool:
    """Whether the kernel has a part of a file in its page cache."""
    with open(path, "rb") as file:
        try:
            return os.preadv(file.fileno(), [bytearray(1)], place, os.RWF_NOWAIT) == 1
        except BlockingIOError:
            return False
        except OSError as error:
            pytest.skip(f"{path.parent}: {error.strerror}; this file system does not tell")


def test_a_large_journal_does_not_fill_the_page_cache(tmp_path: Path) -> None:
    control = tmp_path / "control"
    durable.prepare(str(control), bytes(1 << 22))
    assert in_memory(control, 0)
    with open(control, "rb") as file:
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    if in_memory(control, 0):
        pytest.skip(f"{tmp_path}: this file system is memory")
    journal = durable.Journal(str(tmp_path / "journal"))
    journal.append([b"little\n"])
    assert in_memory(tmp_path / "journal", 0)
    journal.append([bytes((1 << 22) - 1) + b"\n"])
    assert not in_memory(tmp_path / "journal", 0)
    assert not in_memory(tmp_path / "journal", 1 << 21)
    assert in_memory(tmp_path / "journal", journal.size - 1)
    journal.close()
