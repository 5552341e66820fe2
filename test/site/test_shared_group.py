"""With `--shared-group` members of a group work on one farm, even if their umasks differ; other users cannot."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from support.checker import check
from support.farming import eventually, kill_at_once, mounts, need
from support.members import JOINER, MAKER, OUTSIDER, Project
from support.users import GROUP


def sound(project: Project) -> None:
    report = check(project.workdir, views=True, retried=True)
    assert report.problems == []
    assert project.closed_to_the_group() == set()


@pytest.mark.parametrize("umask", [0o022, 0o077])
def test_a_farm_that_one_member_made_is_finished_by_another(project: Project, umask: int) -> None:
    project.write(f"test $(id -u) = {JOINER}", "umask; : > made", "true")
    scratch = project.folder.parent / "scratch"
    scratch.mkdir()
    os.chown(scratch, MAKER, MAKER)
    options = ("--shared-group", "--epoch-length", 2, "-n", 2)
    made = project.run(MAKER, *options, umask=umask, SCRATCH=str(scratch))
    assert made.status == 1, made.said
    assert made.lines_with(f"members of group {GROUP} may join"), made.said
    farm = json.loads((project.workdir / "farm.json").read_text())
    assert (farm["shared_group"], farm["lock"]) == (True, None), "the lock is where all members can take it"
    assert (project.workdir / "logs" / "log_1").read_text() == f"{umask:04o}\n", "the umask of tasks is the user's"
    assert (project.folder / "made").stat().st_mode & 0o777 == 0o666 & ~umask
    sound(project)

    assert f"members of {GROUP} may join" in project.verb(JOINER, "status", project.workdir).out
    assert project.verb(JOINER, "retry", project.workdir, "--failed").status == 0
    project.append("umask; until [ -e list_workdir/jobs/9-0.json ]; do sleep 0.05; done")
    joined = project.run(JOINER, SLURM_JOB_ID="9")  # the job whose end it asks for and records in the farm
    assert (joined.status, joined.lines_with("warning")) == (0, []), joined.said
    assert "attempt 2" in (project.workdir / "logs" / "log_0").read_text(), "the maker's log was appended to"
    assert (project.workdir / "logs" / "log_3").read_text() == "0077\n"
    assert project.verb(JOINER, "check", project.workdir).status == 0
    sound(project)

    (project.workdir / "finished").unlink()
    assert project.verb(MAKER, "check", project.workdir, "--repair", umask=umask).status == 0
    project.append("true")
    again = project.run(MAKER, umask=umask)
    assert (again.status, again.lines_with("warning")) == (0, []), again.said
    sound(project)
    assert check(project.workdir, retried=True).finished == {0, 1, 2, 3, 4}


@pytest.mark.parametrize("umask", [0o022, 0o077])
def test_a_user_outside_of_the_group_gets_an_error_and_changes_nothing(project: Project, umask: int) -> None:
    project.write("true", "false")
    assert project.run(MAKER, "--shared-group", umask=umask).status == 1
    before = {path: path.lstat().st_mtime_ns for path in project.workdir.rglob("*")}
    project.append("true")
    for words in (
        ("run", project.list),
        ("run", project.list, "--shared-group"),
        ("retry", project.workdir, "--failed"),
        ("stop", project.workdir),
    ):
        done = project.verb(OUTSIDER, *words, umask=0o022)
        assert (done.status, len(done.said.splitlines())) == (2, 1), done.said
        assert "ermission denied" in done.said
        assert "group" in done.said
    seen = project.verb(OUTSIDER, "status", project.workdir)
    if umask == 0o022:
        assert seen.status == 0, "what others may read is up to the maker's umask"
    elif not project.options:
        assert (seen.status, len(seen.said.splitlines())) == (2, 1), seen.said
    assert {path: path.lstat().st_mtime_ns for path in project.workdir.rglob("*")} == before


def test_members_that_create_the_same_farm_at_once_create_one(project: Project) -> None:
    project.write(*["true"] * 40)
    farmers = [project.start(uid, "--shared-group", "-n", 2) for uid in (MAKER, JOINER) * 3]
    ended = [farmer.wait(60) for farmer in farmers]
    said = "".join(path.read_text() for path in sorted(project.folder.glob("said-*")))
    assert ended == [0] * 6, said
    assert len([line for line in said.splitlines() if "may join" in line]) == 1, said
    assert check(project.workdir).complete
    sound(project)


def test_a_member_takes_over_from_a_killed_farmer_and_stops_a_running_one(project: Project) -> None:
    project.write("true", "[ -e go ] || { : > begun; exec sleep 1000; }")
    first = project.start(MAKER, "--shared-group", "-n", 2, "--lease", 10)
    eventually((project.folder / "begun").exists, "the task runs")
    eventually(lambda: [*project.workdir.glob("results/*")], "there is a journal that the other one has to sync")
    kill_at_once(first.pid)
    first.wait(20)
    (project.folder / "begun").unlink()
    second = project.start(JOINER)
    eventually((project.folder / "begun").exists, "the other member runs it")
    assert project.verb(MAKER, "stop", project.workdir).status == 0
    assert second.wait(60) == 75, (project.folder / "said-1").read_text()
    (project.folder / "go").touch()
    assert project.run(MAKER).status == 0
    assert check(project.workdir).finished == {0, 1}
    sound(project)


def test_a_directory_of_a_foreign_group_cannot_be_shared(project: Project) -> None:
    project.workdir.mkdir()
    os.chown(project.workdir, MAKER, GROUP + 1)
    done = project.run(MAKER, "--shared-group")
    assert (done.status, len(done.said.splitlines())) == (2, 1), done.said
    assert f"{project.workdir}: --shared-group: belongs to group {GROUP + 1}, and you are not a member" in done.said
    assert list(project.workdir.iterdir()) == []


@pytest.mark.parametrize("option", ["--chmod-ignore", "--create-for-group=0"])
def test_a_file_system_that_does_not_keep_modes_and_groups_is_refused(project: Project, option: str) -> None:
    """This happens if permissions of a mount are fixed (CIFS, some FUSE file systems)."""
    need(shutil.which("bindfs"), "bindfs is not installed")
    seen = project.folder.parent / "seen"
    project.workdir.mkdir()
    os.chown(project.workdir, MAKER, GROUP)
    if "group" in option:
        project.workdir.chmod(0o2775)  # of the group; files created in it are not
    with mounts(project.folder, seen, options=("-o", "allow_other", option)):
        done = project.verb(MAKER, "run", seen / "list", "--shared-group")
        assert (done.status, len(done.said.splitlines())) == (2, 1), done.said
        assert "--shared-group: this file system does not keep the group and the mode" in done.said
        assert list(project.workdir.iterdir()) == []
        assert project.verb(MAKER, "run", seen / "list").status == 0, "without the option it may be made"


def test_a_farm_that_was_created_without_the_option_stays_private(project: Project) -> None:
    assert project.run(MAKER, umask=0o022).status == 0
    assert "shared_group" not in json.loads((project.workdir / "farm.json").read_text())
    assert "may join" not in project.verb(MAKER, "status", project.workdir).out
    modes = {path: path.lstat().st_mode for path in project.workdir.rglob("*")}
    done = project.run(MAKER, "--shared-group", umask=0o022)
    assert (done.status, len(done.lines_with("--shared-group: this farm was created without it"))) == (0, 1), done.said
    assert modes.items() <= {path: path.lstat().st_mode for path in project.workdir.rglob("*")}.items()


def test_a_private_lock_dir_is_reported(project: Project) -> None:
    locks = project.folder.parent / "locks"
    locks.mkdir()
    os.chown(locks, MAKER, MAKER)
    project.write("true")
    done = project.run(MAKER, "--shared-group", "--lock-dir", locks)
    assert (done.status, len(done.lines_with("only you can access; other members of group"))) == (0, 1), done.said
    project.append("true")
    assert project.run(JOINER).status == 0
    sound(project)


def test_a_script_that_was_submitted_is_the_groups_too(project: Project, place: Path) -> None:
    """`sbatch` is a stub."""
    program = place / "sbatch"
    program.write_text("#!/bin/sh\necho 17\n")
    program.chmod(0o755)
    project.write("true")
    path = f"{place}:{os.environ['PATH']}"
    done = project.verb(MAKER, "submit", project.list, "--shared-group", PATH=path)
    assert done.status == 0, done.said
    assert project.run(MAKER, "--shared-group").status == 0
    assert project.verb(JOINER, "submit", project.list, PATH=path).status == 2, "there is nothing left"
    project.append("true")
    again = project.verb(JOINER, "submit", project.list, PATH=path)
    assert again.status == 0, again.said
    assert len(list((project.workdir / "jobs" / "submitted").glob("*.sh"))) == 2
    assert project.closed_to_the_group() == set()


def test_the_group_of_a_process_counts_in_addition_to_that_of_its_user(project: Project) -> None:
    """After `newgrp` the group is the first one of the process."""
    assert project.run(MAKER, "--shared-group").status == 0
    words = project.words(OUTSIDER, "retry", project.workdir, "--failed")
    words[words.index(f"--regid={OUTSIDER}")] = f"--regid={GROUP}"
    done = subprocess.run(words, capture_output=True, text=True, timeout=60, check=False, env={**os.environ})
    assert done.returncode == 0, done.stderr
