"""A file system that does not respond: the doctor reports that, and leaves no process that can be killed."""

from __future__ import annotations

import errno
import os
import signal
import time
from pathlib import Path

import pytest

from support.farming import children, eventually, is_running, send
from taskfarmer.doctor import apart, probes
from taskfarmer.doctor.apart import Channel, ForkedCall
from taskfarmer.doctor.examination import examine
from taskfarmer.errors import UsageError
from taskfarmer.storage import durable


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(apart, "PATIENCE", 0.3)


def sleeps(channel: Channel) -> None:
    time.sleep(600)


@pytest.mark.usefixtures("impatient")
def test_a_process_that_does_not_respond_is_reported_and_killed() -> None:
    before = set(children(os.getpid()))
    for ask in (ForkedCall.wait, ForkedCall.result):
        with pytest.raises(OSError, match="no answer") as caught, ForkedCall(sleeps) as process:
            ask(process)
        assert (caught.value.errno, caught.value.strerror) == (errno.ETIMEDOUT, "no answer for 0.3 s")
    assert set(children(os.getpid())) <= before


@pytest.mark.usefixtures("impatient")
def test_a_directory_that_does_not_respond_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probes, "_hold", lambda path, line: sleeps(line))
    with pytest.raises(UsageError) as caught:
        examine(str(tmp_path), str(tmp_path), "0")
    assert str(caught.value) == f"{tmp_path}: no answer for 0.3 s; this directory cannot hold a farm"


def test_no_racing_process_is_left_if_one_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails_or_sleeps(path: str, data: bytes) -> None:
        if path.endswith("-0"):
            raise OSError(errno.EIO, "Input/output error", path)
        time.sleep(600)

    before = set(children(os.getpid()))
    monkeypatch.setattr(durable, "prepare", fails_or_sleeps)
    with pytest.raises(OSError, match="Input/output error"):
        probes.links(str(tmp_path))
    assert set(children(os.getpid())) <= before


def test_a_process_that_survives_sigkill_is_left_behind(hung: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(apart, "PATIENCE", 2.0)
    before = set(children(os.getpid()))
    with pytest.raises(OSError, match="no answer"), ForkedCall(lambda line: hung.read_text()) as process:
        process.result()
    (stuck,) = set(children(os.getpid())) - before
    assert is_running(stuck)
    # the test started it, and it must have exited before the next test
    for server in before:
        send(server, signal.SIGCONT)
    eventually(lambda: not is_running(stuck), "the file system answers")
    os.waitpid(stuck, 0)
