"""A work directory that others can write, and the files that others put into it: refused, or not followed."""

from __future__ import annotations

import os
import re
import shutil
import stat
from pathlib import Path

import pytest

from support.farming import need
from support.users import ATTACKER, GROUP, SECRET, VICTIM, User, acting_as, describe, words_as

OPEN = {
    ".": 0o777,
    "./": 0o1777,
    "farm.json": 0o666,
    "tasks": 0o777,
    "ledger": 0o1777,
    "results": 0o777,
    "farmers": 0o777,
    "logs": 0o1777,
}


def everything(folder: Path) -> dict[str, tuple[object, ...]]:
    return {str(path): describe(path) for path in (folder, *sorted(folder.rglob("*")))}


@pytest.fixture
def farm(user: User) -> User:
    """A user with a farm."""
    done = user.run()
    assert done.status == 0, done.said
    user.append()
    return user


@pytest.mark.parametrize("name", OPEN)
def test_a_work_directory_that_all_users_can_write_is_refused(farmed: User, name: str) -> None:
    path = farmed.workdir / name
    mode = stat.S_IMODE(path.stat().st_mode)
    path.chmod(OPEN[name])
    before = everything(farmed.workdir)
    done = farmed.run()
    assert (done.status, len(done.said.splitlines())) == (2, 1), done.said
    assert f"{path}: all users can write there, and so run commands as you; chmod o-w" in done.said
    assert everything(farmed.workdir) == before
    path.chmod(mode)


def test_a_work_directory_is_used_again_after_it_was_closed_to_others(farm: User) -> None:
    farm.workdir.chmod(0o777)
    assert farm.run().status == 2
    farm.workdir.chmod(0o775)
    assert farm.run().status == 0


def test_no_verb_changes_such_a_work_directory(farm: User) -> None:
    farm.workdir.chmod(0o777)
    (farm.workdir / "finished").unlink()  # so that there is something to repair
    before = everything(farm.workdir)
    for words in (
        ("run", farm.list, "--dry-run"),
        ("submit", farm.list),
        ("submit", farm.list, "--dry-run"),
        ("retry", farm.workdir, 0),
        ("stop", farm.workdir),
        ("check", farm.workdir, "--repair"),
    ):
        done = farm.verb(*words)
        assert (done.status, len(done.lines_with("all users can write there"))) == (2, 1), done.said
        assert everything(farm.workdir) == before


def test_a_farm_is_not_created_in_a_directory_that_all_users_can_write(user: User) -> None:
    for place in ("-w", "--logs-dir"):
        done = user.run(place, user.scratch)
        assert (done.status, len(done.lines_with(f"{user.scratch}: all users can write there"))) == (2, 1), done.said
        assert (list(user.scratch.iterdir()), user.workdir.exists()) == ([], False)
    assert user.run("-w", user.scratch / "mine").status == 0


def test_a_separate_log_directory_is_checked_as_well(user: User) -> None:
    logs = user.home / "logs"
    assert user.run("--logs-dir", logs).status == 0
    logs.chmod(0o777)
    user.append()
    done = user.run()
    assert (done.status, len(done.lines_with(f"{logs}: all users can write there"))) == (2, 1), done.said
    assert not (logs / "log_2").exists()


@pytest.mark.parametrize("way", ["itself", "a link to it"])
def test_a_work_directory_that_another_user_created_in_a_shared_directory_is_refused(user: User, way: str) -> None:
    work = user.scratch / "work"
    with acting_as(ATTACKER):
        if way == "itself":
            work.mkdir(0o755)
        else:
            work.symlink_to(user.folder_of_his)
    before = user.belongings()
    done = user.run("-w", work)
    assert (done.status, len(done.said.splitlines())) == (2, 1), done.said
    assert f"{work}: belongs to another user, who can run commands as you there" in done.said
    assert user.belongings() == before


def test_the_owner_of_the_task_list_may_own_the_work_directory_too(user: User) -> None:
    """A user who starts a farmer on another user's list intends to run the commands of that user."""
    theirs = user.scratch / "list"
    with acting_as(ATTACKER):
        theirs.write_text("true\n")
    made = user.verb("run", theirs, before=words_as(*user.options, uid=ATTACKER), umask=0o002)
    assert made.status == 0, made.said
    refused = user.run("-w", f"{theirs}_workdir")
    assert (refused.status, len(refused.lines_with("belongs to another user"))) == (2, 1), refused.said
    done = user.verb("run", theirs)
    assert "belongs to another user" not in done.said
    assert not done.lines_with("warning: ")[1:], done.said


def test_a_group_shares_a_farm(user: User) -> None:
    """With the usual umask of groups (002), in a directory of the group, and without a warning."""
    project = user.scratch / "project"
    project.mkdir()
    os.chown(project, ATTACKER, GROUP)
    project.chmod(0o2775)
    tasks = project / "list"
    tasks.write_text("true\n")
    tasks.chmod(0o664)
    for uid, count in ((ATTACKER, 1), (VICTIM, 2), (ATTACKER, 3)):
        member = words_as(*user.options, uid=uid, groups=f"--groups={GROUP}")
        done = user.verb("run", tasks, umask=0o002, before=member)
        assert (done.status, done.lines_with("warning")) == (0, []), done.said
        assert len((project / "list_workdir" / "finished").read_text().splitlines()) == count
        with open(tasks, "a") as file:
            file.write("true\n")


def test_the_log_of_a_task_is_not_written_through_a_link(farm: User) -> None:
    (farm.workdir / "logs" / "log_2").symlink_to(farm.file)
    before = farm.belongings()
    done = farm.run("--timeout", "1")
    assert done.status == 75, done.said
    assert len(done.lines_with("logs/log_2: a symbolic link, which is not followed; the log cannot be opened")) >= 1
    assert farm.belongings() == before
    (farm.workdir / "logs" / "log_2").unlink()
    assert farm.run().status == 0


def test_no_other_file_is_written_through_a_link(farm: User) -> None:
    names = ("finished", "failed", "toprocess", "timeline.json", "views.json", "ledger/HEAD", "lock")
    for name in names:
        (farm.workdir / name).unlink()
        (farm.workdir / name).symlink_to(farm.file)
    before = farm.belongings()
    done = farm.run()
    assert done.status == 0, done.said
    assert farm.belongings() == before
    assert farm.file.read_text() == SECRET
    # views are rebuilt; the others are a hint and a lock, which farmers can do without
    assert [name for name in names if (farm.workdir / name).is_symlink()] == ["ledger/HEAD", "lock"]


WRITING = {"O_WRONLY", "O_RDWR", "O_CREAT"}
OPENED = re.compile(r'openat?\((?:AT_FDCWD|\d+)(?:<[^>]*>)?, "([^"]*)", ([A-Z_|]+)')


def test_every_file_that_is_opened_for_writing_is_new_or_not_a_link(user: User) -> None:
    """According to the kernel, in a farm's life: created, grown, failed, retried, epochs changed, views repaired."""
    need(shutil.which("strace"), "strace is not installed")
    user.append("exit 3")
    trace = user.home / "trace"
    strace = ["strace", "-f", "-qq", "-e", "trace=open,openat,creat", "-A", "-o", str(trace), *user.before]
    for words in (
        f"run {user.list} --epoch-length 2",
        f"run {user.list} -n 2",
        f"retry {user.workdir} --failed",
        f"run {user.list}",
        f"check {user.workdir} --repair",
    ):
        user.append(f"echo more of {words.split()[0]}")
        user.verb(*words.split(), before=strace, SCRATCH=str(user.scratch))
        if "retry" in words:
            (user.workdir / "failed").unlink()
    written = set()
    for path, words in OPENED.findall(trace.read_text()):
        flags = frozenset(words.split("|"))
        if path.startswith((str(user.workdir), str(user.scratch), "log_")) and flags & WRITING:
            written.add((re.sub(r"\d+|[0-9a-f]{8,}", "N", os.path.basename(path)), flags))
    assert len({name for name, _ in written}) > 10, written
    assert {(name, flags) for name, flags in written if not flags & {"O_EXCL", "O_NOFOLLOW"}} == set()


@pytest.mark.parametrize(
    ("umask", "never", "somewhere"),
    [(0o000, 0o002, 0o020), (0o002, 0o002, 0o020), (0o077, 0o077, 0o400)],
)
def test_the_umask_is_honoured_and_no_file_is_writable_by_all(
    user: User, umask: int, never: int, somewhere: int
) -> None:
    user.append("umask; exit 3")
    done = user.verb("run", user.list, umask=umask)
    assert done.status == 1, done.said
    modes = {str(path): stat.S_IMODE(os.lstat(path).st_mode) for path in (user.workdir, *user.workdir.rglob("*"))}
    assert len(modes) > 15
    assert {path for path, mode in modes.items() if mode & never} == set()
    assert {path for path, mode in modes.items() if not mode & somewhere} <= {str(user.workdir / "lock")}
    assert (user.workdir / "logs" / "log_2").read_text() == f"{umask:04o}\n"
    user.append()
    assert user.verb("run", user.list, umask=umask).status == 1


def test_a_task_list_that_all_users_can_write_causes_a_warning(user: User) -> None:
    user.list.chmod(0o666)
    done = user.run()
    assert (done.status, len(done.lines_with("warning"))) == (0, 1), done.said
    assert f"warning: {user.list}: all users can write this task list, and so run commands as you" in done.said


def test_a_task_list_that_all_users_can_replace_causes_a_warning(user: User) -> None:
    tasks = user.scratch / "list"
    with acting_as(ATTACKER):
        tasks.write_text("true\n")
    sticky = user.verb("run", tasks, "-w", user.workdir)
    assert (sticky.status, sticky.lines_with("warning")) == (0, []), sticky.said
    user.scratch.chmod(0o777)
    done = user.verb("run", tasks, "-w", user.workdir)
    assert (done.status, len(done.lines_with("warning"))) == (0, 1), done.said
    assert f"all users can replace this task list, and so run commands as you; chmod o-w {user.scratch}" in done.said
