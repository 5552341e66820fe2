"""Whose turn it is to commit if locks are not shared: one farmer at a time, and dead farmers block none."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from support.farming import eventually
from taskfarmer.storage import turns
from taskfarmer.storage.turns import Turn

HOLDS = """
import sys, time
from taskfarmer.storage.turns import Turn
turn = Turn(sys.argv[1])
turn.lost()
with turn.taken("theirs", 15.0) as got:
    print(got, flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def path(tmp_path: Path) -> str:
    return str(tmp_path / "turn")


def careful(path: str) -> Turn:
    turn = Turn(path)
    turn.lost()
    return turn


def had(path: str, patience: float = 0.0, text: str = "ours") -> bool:
    with careful(path).taken(text, patience) as got:
        assert not got or os.readlink(path) == text
        return got


def test_one_farmer_at_a_time_has_the_turn_and_the_next_one_gets_it_afterwards(path: str) -> None:
    other = subprocess.Popen([sys.executable, "-c", HOLDS, path], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert other.stdin and other.stdout
    assert other.stdout.readline() == b"True\n"
    assert not had(path, 0.2)
    assert os.readlink(path) == "theirs"
    other.communicate()
    assert had(path, 20.0)
    assert not os.path.lexists(path)


def test_the_turn_of_a_dead_farmer_ends(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(turns, "STUCK_AFTER", 0.2)
    os.symlink("a dead one's", path)
    begin = time.monotonic()
    assert not had(path, 20.0)
    assert 0.2 <= time.monotonic() - begin < 10
    assert had(path)


def test_a_turn_that_changes_hands_is_awaited(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(turns, "STUCK_AFTER", 3.0)
    hands = subprocess.Popen(
        ["sh", "-c", 'for n in 1 2 3 4 5 6 7 8; do ln -sfn "$n" "$0"; sleep 0.5; done; rm "$0"', path]
    )
    eventually(lambda: os.path.lexists(path), "another farmer has it")
    assert had(path, 60.0)
    assert hands.wait(60) == 0


def test_a_turn_whose_reply_was_lost_is_ours(path: str) -> None:
    os.symlink("ours", path)
    assert had(path)
    assert not os.path.lexists(path)


def test_a_farmer_that_was_declared_dead_does_not_end_the_turn_of_another(
    path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(turns, "STUCK_AFTER", 0.0)
    with careful(path).taken("ours", 0.0) as got:
        assert got
        os.unlink(path)
        os.symlink("theirs", path)
    assert os.readlink(path) == "theirs"


@pytest.mark.parametrize("how", ["no directory", "a file in its place"])
def test_farmers_work_without_turns_if_the_file_cannot_be_created(
    tmp_path: Path, path: str, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    monkeypatch.setattr(turns, "STUCK_AFTER", 0.1)
    if how == "no directory":
        path = str(tmp_path / "nowhere" / "turn")
    else:
        Path(path).write_text("something else", encoding="ascii")
    begin = time.monotonic()
    assert not had(path, 20.0)
    assert time.monotonic() - begin < 10
