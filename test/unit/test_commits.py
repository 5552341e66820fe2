"""The compare-and-swap: which commit wins, the effects of lost replies and stale views, removal of old revisions."""

from __future__ import annotations

import errno
import multiprocessing
import os
import random
import shutil
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import pytest

from taskfarmer.errors import Damaged, FarmGone, Forked, NotAFarm, StaleView, StorageError
from taskfarmer.farm.create import make, make_folders
from taskfarmer.formats.intervals import Interval, write_intervals
from taskfarmer.ledger import epochs
from taskfarmer.ledger import state as states
from taskfarmer.ledger.commits import Commits
from taskfarmer.ledger.document import to_document
from taskfarmer.ledger.farmfile import Farm, publish
from taskfarmer.ledger.state import Segment, State, problems
from taskfarmer.storage import durable
from taskfarmer.storage.layout import Workdir

FARM = "f" * 16


class NoLock:
    """A lock that does not exclude anything."""

    def held(self, patience: float = 5.0) -> AbstractContextManager[bool]:
        return nullcontext(True)


@pytest.fixture
def workdir(tmp_path: Path) -> Workdir:
    workdir = Workdir.at(str(tmp_path / "farm"))
    make_folders(workdir)
    assert make(workdir, Farm(FARM, "list", "default", {}, None, 600.0, 8, 0.0), Segment("none", 0, 10_000))
    return workdir


def commits_of(workdir: Workdir, epoch_length: int = 8, patience: float = 2.0) -> Commits:
    return Commits(workdir, FARM, NoLock(), epoch_length, patience)  # type: ignore[arg-type]


def taking(farmer: str, want: int = 1) -> Callable[[State], State]:
    def change(state: State) -> State:
        return states.claim(states.join(state, farmer, farmer, 1), farmer, want)

    return change


def finishing(farmer: str, seq: int) -> Callable[[State], State]:
    """Report the held tasks as finished, and claim three more; each adds a byte to the journal."""

    def change(state: State) -> State:
        state = states.join(state, farmer, farmer, 1)
        entry = state.farmers[farmer]
        done = tuple(states.parse_intervals(entry.claims))
        count = states.count_tasks(done)
        told = states.Settlement(farmer, entry.bytes + count, done, finished=count, seconds=float(seq))
        return states.claim(states.settle(state, farmer, told), farmer, 3)

    return change


def contend(path: str, farmer: str, rounds: int, lying: float) -> None:
    """A process that commits `rounds` times. It loses the share `lying` of the replies to `link`."""
    chance = random.Random(farmer)
    real = durable.publish

    def publish(prepared: str, target: str) -> OSError | None:
        answer = real(prepared, target)
        if chance.random() < lying:
            number = chance.choice((errno.EEXIST, errno.EIO))
            return OSError(number, os.strerror(number))
        return answer

    durable.publish = publish
    commits = commits_of(Workdir.at(path))
    for seq in range(1, rounds + 1):
        state = commits.commit(finishing(farmer, seq), farmer, seq)
        assert state.farmers[farmer].seq == seq
    Path(path).with_name(farmer).write_text(str(commits.lost), encoding="ascii")


@pytest.mark.parametrize("lying", [0.0, 0.5])
def test_processes_that_race_without_a_lock_make_one_history_and_lose_few(workdir: Workdir, lying: float) -> None:
    context = multiprocessing.get_context("fork")
    names = [f"farmer{number}" for number in range(4)]
    racers = [context.Process(target=contend, args=(workdir.path, name, 25, lying)) for name in names]
    for racer in racers:
        racer.start()
    for racer in racers:
        racer.join(60)
    assert [racer.exitcode for racer in racers] == [0] * 4
    state = commits_of(workdir).newest()
    assert state.revision == 100
    assert problems(state) == []
    assert (state.finished, state.held, state.segments[0].next) == (4 * 24 * 3, 12, 300)
    assert {entry.seq for entry in state.farmers.values()} == {25}
    assert len(os.listdir(workdir.ledger)) <= 4
    lost = [int(Path(workdir.path).with_name(name).read_text(encoding="ascii")) for name in names]
    assert lying or sum(lost) < 0.2 * 100


def turn_of(workdir: Workdir) -> str:
    return os.readlink(workdir.turn) if os.path.lexists(workdir.turn) else ""


def overtaken(workdir: Workdir, mine: Commits, seq: int) -> None:
    """A commit of ours is lost once, and retried."""
    others = iter((commits_of(workdir),))

    def change(state: State) -> State:
        for other in others:
            other.commit(taking("other"), "other", seq)
        return taking("a")(state)

    lost = mine.lost
    mine.commit(change, "a", seq)
    assert mine.lost == lost + 1


def turns_seen(workdir: Workdir, commits: Commits, first: int, last: int) -> list[str]:
    """The farmers that have the turn during these commits."""
    seen: list[str] = []

    def change(state: State) -> State:
        seen.append(turn_of(workdir))
        return taking("a")(state)

    for seq in range(first, last + 1):
        commits.commit(change, "a", seq)
    return seen


def test_a_farmer_that_lost_a_commit_takes_turns_for_some_time(
    workdir: Workdir, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("taskfarmer.storage.turns.CAREFUL", 3)
    mine = commits_of(workdir)
    assert turns_seen(workdir, mine, 1, 2) == ["", ""]
    overtaken(workdir, mine, 3)  # its second attempt is the first with the turn
    assert turns_seen(workdir, mine, 4, 7) == ["a.4.0", "a.5.0", "", ""]
    assert turn_of(workdir) == ""


def test_a_new_farmer_takes_turns_if_others_do(workdir: Workdir) -> None:
    os.symlink("somebody's", workdir.turn)
    newcomer = commits_of(workdir)
    newcomer.commit(taking("a"), "a", 1, patience=0.0)  # without the turn, because another farmer has it
    os.unlink(workdir.turn)
    assert turns_seen(workdir, newcomer, 2, 2) == ["a.2.0"]


def answering(number: int | None, linked: bool) -> Callable[[str, str], OSError | None]:
    """A `publish` that links or not, and reports an error or success independently of that."""
    real = durable.publish

    def publish(prepared: str, target: str) -> OSError | None:
        if linked:
            real(prepared, target)
        else:
            os.unlink(prepared)
        return OSError(number, os.strerror(number)) if number else None

    return publish


@pytest.mark.parametrize("number", [errno.EEXIST, errno.EIO, errno.ETIMEDOUT, errno.ENOENT])
def test_a_commit_whose_reply_is_lost_was_made_once(
    workdir: Workdir, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    commits = commits_of(workdir)
    with monkeypatch.context() as lying:
        lying.setattr(durable, "publish", answering(number, linked=True))
        state = commits.commit(taking("a"), "a", 1)
    assert (state.revision, state.farmers["a"].claims) == (1, "0:0")
    assert commits_of(workdir).newest() == state


@pytest.mark.parametrize("number", [errno.EIO, errno.ENOSPC])
def test_a_commit_that_was_not_made_is_an_error_and_leaves_no_files(
    workdir: Workdir, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    commits = commits_of(workdir)
    with monkeypatch.context() as lying:
        lying.setattr(durable, "publish", answering(number, linked=False))
        with pytest.raises(StorageError, match="outcome of the commit unknown"):
            commits.commit(taking("a"), "a", 1)
    state = commits.newest()
    assert state.revision == 0
    assert os.listdir(workdir.prepared(state.epoch)) == []


def test_a_link_that_replaces_another_revision_is_a_fork(workdir: Workdir, monkeypatch: pytest.MonkeyPatch) -> None:
    commits = commits_of(workdir)
    commits.newest()

    def publish(prepared: str, target: str) -> None:
        with monkeypatch.context() as honest:
            honest.setattr(durable, "publish", real)
            commits_of(workdir).commit(taking("b"), "b", 1)

    real = durable.publish
    monkeypatch.setattr(durable, "publish", publish)
    with pytest.raises(Forked, match="from b"):
        commits.commit(taking("a"), "a", 1)


def test_a_revision_that_is_not_visible_yet_is_awaited(workdir: Workdir, monkeypatch: pytest.MonkeyPatch) -> None:
    other = commits_of(workdir)
    mine = commits_of(workdir)
    mine.newest()
    other.commit(taking("b"), "b", 1)
    hidden = [6]
    real: Callable[..., Any] = durable.read

    def read(path: str) -> Any:
        if hidden[0] and (path.endswith(("/1", "HEAD"))):
            hidden[0] -= 1
            raise FileNotFoundError(errno.ENOENT, "not yet", path)
        return real(path)

    monkeypatch.setattr(durable, "read", read)
    monkeypatch.setattr(mine, "_from_listing", lambda: None)
    state = mine.commit(taking("a"), "a", 1)
    assert state.revision == 2
    assert (state.farmers["b"].claims, state.farmers["a"].claims) == ("0:0", "0:1")
    assert mine.lost == 1


def test_a_revision_older_than_one_that_was_seen_is_never_accepted(workdir: Workdir) -> None:
    commits = commits_of(workdir, epoch_length=100, patience=0.5)
    for seq in range(1, 5):
        state = commits.commit(taking("a"), "a", seq)
    for number in (3, 4):
        os.unlink(workdir.revision(state.epoch, number))
    assert commits.newest().revision == 4
    shutil.rmtree(workdir.epoch(state.epoch))
    with pytest.raises(StaleView, match="as new as one seen before"):
        commits.newest()


def test_a_farmer_that_slept_through_epochs_starts_from_scratch(workdir: Workdir) -> None:
    sleeper, other = commits_of(workdir), commits_of(workdir)
    asleep = sleeper.commit(taking("sleeper"), "sleeper", 1)
    for seq in range(1, 41):
        other.commit(taking("b"), "b", seq)
    assert not os.path.exists(workdir.epoch(asleep.epoch))
    assert sleeper.last_seen == asleep
    state = sleeper.commit(taking("sleeper"), "sleeper", 2)
    assert state.revision == 42
    assert state.farmers["sleeper"].claims == write_intervals([Interval(0, 0, 1), Interval(0, 41, 1)])


@pytest.mark.parametrize("gone", ["prepared files", "names too"])
def test_a_farmer_that_fell_asleep_before_its_link_cannot_fork_the_history(
    workdir: Workdir, monkeypatch: pytest.MonkeyPatch, gone: str
) -> None:
    sleeper, other = commits_of(workdir), commits_of(workdir)
    sleeper.newest()
    real = durable.publish
    slept: list[str] = []

    def publish(prepared: str, target: str) -> OSError | None:
        if slept:
            return real(prepared, target)
        slept.append(prepared)
        with monkeypatch.context() as patched:
            if gone == "prepared files":
                patched.setattr(os, "rmdir", refuse)
                patched.setattr(os, "unlink", keep_revisions)
            for seq in range(1, 31):
                other.commit(taking("b"), "b", seq)
        return real(prepared, target)

    unlink = os.unlink

    def refuse(path: str) -> None:
        raise OSError(errno.ENOTEMPTY, "it is not empty", path)

    def keep_revisions(path: str) -> None:
        if os.path.basename(path).isdigit():
            raise OSError(errno.EACCES, "kept", path)
        unlink(path)

    monkeypatch.setattr(durable, "publish", publish)
    state = sleeper.commit(taking("sleeper"), "sleeper", 1)
    assert state.revision == 31
    assert problems(state) == []
    assert state.farmers["sleeper"].claims == "0:30"
    assert other.newest() == state


def test_an_epoch_that_is_not_empty_is_left_to_the_next_sweep(workdir: Workdir) -> None:
    first = commits_of(workdir).newest().epoch
    stray = Path(workdir.epoch(first)) / "stray"
    stray.mkdir()
    commits = commits_of(workdir)
    for seq in range(1, 31):
        commits.commit(taking("a"), "a", seq)
    assert stray.exists()
    stray.rmdir()
    for seq in range(31, 50):
        commits.commit(taking("a"), "a", seq)
    assert not stray.parent.exists()


def test_an_epoch_whose_name_may_have_been_committed_is_not_dropped(
    workdir: Workdir, monkeypatch: pytest.MonkeyPatch
) -> None:
    commits = commits_of(workdir)
    for seq in range(1, 8):
        state = commits.commit(taking("a"), "a", seq)
    with monkeypatch.context() as lying:
        # the link succeeds, its reply is an error, and the revision is not visible for a while
        lying.setattr(durable, "publish", answering(errno.EIO, linked=True))
        lying.setattr(commits, "_load", lambda epoch, number: None)
        lying.setattr(commits, "_from_listing", lambda: None)
        lying.setattr(commits, "newest", lambda: state)
        with pytest.raises(StorageError):
            commits.commit(taking("a"), "a", 8)
    again = commits.commit(taking("a"), "a", 8)
    assert (again.revision, again.farmers["a"].claims) == (8, "0:0+8")
    assert commits.commit(taking("a"), "a", 9).revision == 9


def test_the_lengths_of_closed_journals_move_into_their_names(workdir: Workdir) -> None:
    commits = commits_of(workdir)
    for number in range(6):
        name = f"f{number}-0000000{number}"
        Path(workdir.journal(name)).write_bytes(b"x" * 10)
        commits.commit(finishing(name, 1), name, 1)
        commits.commit(finishing(name, 2), name, 2)
        commits.commit(lambda state, name=name: leave(state, name), name, 3)  # type: ignore[misc]
    state = commits.newest()
    names = sorted(os.listdir(workdir.results))
    closed = [int(name.rpartition(".")[2]) for name in names if "." in name]
    assert closed == [3] * len(closed) and closed
    assert state.closed_bytes == sum(closed)
    assert sum(state.departed.values()) + state.closed_bytes == 18


def leave(state: State, name: str) -> State:
    entry = state.farmers[name]
    held = tuple(states.parse_intervals(entry.claims))
    return states.leave(states.settle(state, name, states.Settlement(name, entry.bytes, returned=held)), name)


def test_a_recreated_farm_is_not_the_same_farm(workdir: Workdir) -> None:
    commits = commits_of(workdir)
    commits.newest()
    shutil.rmtree(workdir.path)
    with pytest.raises(FarmGone):
        commits.newest()
    make_folders(workdir)
    assert make(workdir, Farm("e" * 16, "list", "default", {}, None, 600.0, 8, 0.0), Segment("none", 0, 5))
    with pytest.raises(FarmGone):
        commits.commit(taking("a"), "a", 1)
    assert len(os.listdir(workdir.epoch(Commits(workdir, "e" * 16, NoLock(), 8).newest().epoch))) == 2  # type: ignore[arg-type]


def test_of_two_processes_that_create_a_farm_one_wins_and_the_other_removes_its_files(workdir: Workdir) -> None:
    assert not make(workdir, Farm("e" * 16, "list", "default", {}, None, 600.0, 8, 0.0), Segment("none", 0, 5))
    assert not publish(workdir, Farm("d" * 16, "list", "default", {}, None, 600.0, 8, 0.0))
    assert len([name for name in os.listdir(workdir.ledger) if "-" in name]) == 1
    assert commits_of(workdir).newest().farm == FARM


@pytest.mark.parametrize("hint", [b"", b"nonsense", b"000009-deadbeef 7\n", b"\xff" * 64, b"../../etc 1\n", b"1 2 3"])
def test_a_hint_may_contain_anything(workdir: Workdir, hint: bytes) -> None:
    commits = commits_of(workdir)
    for seq in range(1, 12):
        commits.commit(taking("a"), "a", seq)
    Path(workdir.head).write_bytes(hint)
    assert commits_of(workdir).newest().revision == 11
    os.unlink(workdir.head)
    assert commits_of(workdir).newest().revision == 11


def test_a_corrupt_revision_is_never_skipped(workdir: Workdir) -> None:
    commits = commits_of(workdir)
    state = commits.commit(taking("a"), "a", 1)
    path = Path(workdir.revision(state.epoch, 1))
    path.write_bytes(path.read_bytes().replace(b'"revision":1', b'"revision":7'))
    with pytest.raises(Damaged, match=str(path)):
        commits_of(workdir).newest()


def test_a_revision_of_a_newer_format_is_refused(workdir: Workdir) -> None:
    commits = commits_of(workdir)
    state = commits.commit(taking("a"), "a", 1)
    path = workdir.revision(state.epoch, 1)
    os.unlink(path)
    durable.prepare(path, states_of_format(state, 2))
    with pytest.raises(NotAFarm, match="format 2"):
        commits_of(workdir).newest()


def states_of_format(state: State, number: int) -> bytes:
    from taskfarmer.formats.sealed import sealed

    return sealed({**to_document(state), "format": number})


def test_the_new_epoch_of_a_lost_commit_is_removed(workdir: Workdir, monkeypatch: pytest.MonkeyPatch) -> None:
    mine, other = commits_of(workdir), commits_of(workdir)
    for seq in range(1, 8):
        mine.commit(taking("a"), "a", seq)
    other.newest()
    real = epochs.make
    once: list[str] = []

    def make_slowly(workdir: Workdir, number: int) -> str:
        name = real(workdir, number)
        if not once:
            once.append(name)
            other.commit(taking("b"), "b", 1)
        return name

    monkeypatch.setattr(epochs, "make", make_slowly)
    state = mine.commit(taking("a"), "a", 8)
    assert state.revision == 9
    assert not os.path.exists(workdir.epoch(once[0]))
    assert state.epoch != once[0]
