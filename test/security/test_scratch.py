"""Locks in scratch space, where any user may create files: farmers do not follow, change or await foreign files."""

from __future__ import annotations

import copy
import json
import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.users import GROUP, PLANTS, VICTIM, Plant, User, close_held, describe, held_file, planted


def lock_of(user: User) -> str | None:
    found: str | None = json.loads((user.workdir / "farm.json").read_text())["lock"]
    return found


def test_the_lock_is_in_a_folder_that_no_other_user_may_enter(user: User) -> None:
    done = user.run(umask=0, SCRATCH=str(user.scratch))
    assert (done.status, done.lines_with("warning")) == (0, []), done.said
    found = os.lstat(user.private)
    assert (stat.S_IMODE(found.st_mode), found.st_uid) == (0o700, VICTIM)
    lock = Path(str(lock_of(user)))
    assert lock.parent == user.private
    assert stat.S_IMODE(os.lstat(lock).st_mode) == 0o600


@pytest.mark.parametrize("plant", PLANTS, ids=lambda plant: plant.__name__)
def test_a_foreign_file_in_place_of_the_folder_is_not_used(user: User, plant: Plant) -> None:
    there = planted(plant, user.private, user)
    before = user.belongings()
    done = user.run(SCRATCH=str(user.scratch))
    assert done.status == 0, done.said
    assert len(done.lines_with("warning")) == len(done.lines_with(f"SCRATCH={user.scratch}: cannot create")) == 1
    assert lock_of(user) is None
    assert (describe(user.private), user.belongings()) == (there, before)
    assert os.listdir(user.scratch) == [user.private.name]


@pytest.mark.parametrize("plant", PLANTS[::3], ids=lambda plant: plant.__name__)
def test_a_lock_dir_with_a_foreign_file_in_place_of_the_folder_is_refused(user: User, plant: Plant) -> None:
    there = planted(plant, user.private, user)
    before = user.belongings()
    done = user.run("--lock-dir", user.scratch)
    assert (done.status, len(done.said.splitlines())) == (2, 1)
    assert f"--lock-dir {user.scratch}: cannot create a private directory there" in done.said
    assert not user.workdir.exists()
    assert (describe(user.private), user.belongings()) == (there, before)


@pytest.mark.parametrize("mode", [0o770, 0o701])
def test_a_folder_of_the_user_that_others_may_enter_is_not_used(user: User, mode: int) -> None:
    user.private.mkdir()
    user.private.chmod(mode)
    os.chown(user.private, VICTIM, VICTIM)
    done = user.run(SCRATCH=str(user.scratch))
    assert (done.status, len(done.lines_with("cannot create a private directory"))) == (0, 1), done.said
    assert list(user.private.iterdir()) == []


def test_scratch_space_without_the_sticky_bit_is_not_used(user: User) -> None:
    user.scratch.chmod(0o777)
    done = user.run("--lock-dir", user.scratch)
    assert (done.status, len(done.said.splitlines())) == (2, 1)
    done = user.run(SCRATCH=str(user.scratch))
    assert (done.status, len(done.lines_with("cannot create a private directory"))) == (0, 1), done.said
    assert lock_of(user) is None
    assert os.listdir(user.scratch) == []


@pytest.fixture
def exchanged(farmed: User) -> Iterator[Path]:
    """The folder of the farm's lock now belongs to another user, who could replace it if there is no sticky bit."""
    kept = farmed.private.with_name("kept")
    farmed.private.rename(kept)
    farmed.private.mkdir()
    farmed.private.chmod(0o777)
    yield Path(str(lock_of(farmed)))
    close_held()
    farmed.private.rename(farmed.private.with_name(f"tried-{len(os.listdir(farmed.scratch))}"))
    kept.rename(farmed.private)


@pytest.mark.parametrize("plant", PLANTS, ids=lambda plant: plant.__name__)
def test_farmers_work_without_a_lock_that_was_replaced_since_the_farm_was_created(
    farmed: User, exchanged: Path, plant: Plant
) -> None:
    there = planted(plant, exchanged, farmed)
    before = farmed.belongings()
    farmed.append()
    done = farmed.run()
    assert done.status == 0, done.said
    warned = f"{exchanged}: not a lock file in a private folder"
    assert len(done.lines_with("warning")) == len(done.lines_with(warned)) == 1
    assert (describe(exchanged), farmed.belongings()) == (there, before)


@pytest.mark.parametrize("plant", PLANTS[:3], ids=lambda plant: plant.__name__)
def test_a_folder_that_was_replaced_by_something_else_is_not_followed(farmed: User, plant: Plant) -> None:
    kept = farmed.private.with_name("kept")
    farmed.private.rename(kept)
    try:
        there = planted(plant, farmed.private, farmed)
        before = farmed.belongings()
        farmed.append()
        done = farmed.run()
        assert (done.status, len(done.lines_with("without the lock"))) == (0, 1), done.said
        assert (describe(farmed.private), farmed.belongings()) == (there, before)
    finally:
        farmed.private.rename(farmed.private.with_name(f"tried-{len(os.listdir(farmed.scratch))}"))
        kept.rename(farmed.private)


@pytest.fixture(scope="module")
def shared(farmed: User) -> User:
    """The same user with a farm whose lock is in the work directory, which a group may write."""
    shared = copy.copy(farmed)
    shared.workdir = farmed.home / "shared"
    assert shared.run("-w", shared.workdir).status == 0
    os.chown(shared.workdir, VICTIM, GROUP)
    shared.workdir.chmod(0o775)
    return shared


@pytest.mark.parametrize(
    "plant",
    [pytest.param(one, marks=[pytest.mark.campaign] if one is held_file else []) for one in PLANTS],
    ids=lambda plant: plant.__name__,
)
def test_a_file_that_a_group_member_puts_in_place_of_the_lock_does_no_harm(shared: User, plant: Plant) -> None:
    """If the attacker holds the lock, the farmer waits for it; the campaign proves that."""
    lock = shared.workdir / "lock"
    lock.rename(shared.workdir / f"lock-{len(os.listdir(shared.workdir))}")
    there = planted(plant, lock, shared, GROUP)
    before = shared.belongings()
    shared.append()
    done = shared.run("-w", shared.workdir)
    assert done.status == 0, done.said
    if plant is not held_file:
        assert len(done.lines_with("this farmer works without the lock")) == 1, done.said
    assert (describe(lock), shared.belongings()) == (there, before)
