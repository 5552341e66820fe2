"""A scheduler's client runs in the background: its answer is complete or missing, and no process remains."""

from __future__ import annotations

import os
import resource
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from support.farming import children, eventually
from taskfarmer.launch import query
from taskfarmer.launch.query import Question
from taskfarmer.storage import locks


def asked(text: str) -> Question:
    return Question(["bash", "-c", text])


def answer_of(one: Question) -> str:
    def known() -> list[str]:
        text = one.answer()
        return [] if text is None else [text]

    (text,) = eventually(known, "the client has ended")
    return str(text)


@pytest.fixture(autouse=True)
def no_client_is_left(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    started: list[int] = []
    real = os.posix_spawnp

    def spawn(*words: Any, **more: Any) -> int:
        started.append(real(*words, **more))
        return started[-1]

    monkeypatch.setattr(os, "posix_spawnp", spawn)
    before = len(os.listdir("/proc/self/fd"))
    yield
    # this process may also adopt orphans of other tests
    assert not {*started} & {*children(os.getpid())}
    assert len(os.listdir("/proc/self/fd")) == before


def test_an_answer_is_known_when_the_client_has_exited() -> None:
    assert answer_of(asked("echo RUNNING; exec >&-; sleep 0.3")) == "RUNNING"


def test_an_answer_may_be_longer_than_a_pipe() -> None:
    assert answer_of(asked("yes 0123456789 | head -n 30000")) == "\n".join(["0123456789"] * 30000)


@pytest.mark.parametrize("how", ["echo half an answer; exit 1", "echo half; kill -9 $$", "exec /no/such/program"])
def test_a_client_that_fails_has_given_no_answer(how: str) -> None:
    assert answer_of(asked(how)) == ""


def test_a_client_that_is_not_installed_has_given_no_answer() -> None:
    assert answer_of(Question(["no-such-client"])) == ""


def test_a_client_that_hangs_is_killed_and_has_given_no_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(query, "PATIENCE", 0.3)
    assert answer_of(asked("echo RUNNING; exec sleep 600")) == ""


def test_a_client_does_not_inherit_the_alive_lock_of_its_farmer(tmp_path: Path) -> None:
    path = tmp_path / "alive"
    fd = os.open(path, os.O_RDWR | os.O_CREAT)
    assert locks.hold_alive(fd)
    one = asked(f"touch {tmp_path}/runs; exec sleep 600")
    eventually((tmp_path / "runs").exists, "the client runs")
    os.close(fd)
    assert locks.alive_is_free(str(path))
    one.deadline = 0.0
    assert answer_of(one) == ""


def test_descriptors_are_found_without_proc_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fd = os.open(tmp_path / "alive", os.O_RDWR | os.O_CREAT)
    os.set_inheritable(fd, True)
    listed: Callable[[str], list[str]] = os.listdir

    def without_proc(path: str) -> list[str]:
        if path.startswith("/proc/"):
            raise FileNotFoundError(2, "No such file or directory", path)
        return listed(path)

    monkeypatch.setattr(os, "listdir", without_proc)
    found = query._inherited()
    monkeypatch.undo()
    os.close(fd)
    assert fd in found


def test_a_farmer_without_a_free_descriptor_gets_no_answer_and_continues() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    free = os.dup(0)
    os.close(free)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (free, hard))
        answer = asked("echo RUNNING").answer()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert answer == ""
    assert os.dup(0) == free
    os.close(free)
