"""Two users of a group share a farm on a node whose /proc hides processes of other users (hidepid)."""

from __future__ import annotations

import shlex
import subprocess

from support.checker import check
from support.farming import need
from support.members import JOINER, MAKER, Project
from support.users import variables

HIDING = "mount -t proc -o hidepid=2 proc /proc || exit 99; "
UNTIL_BEGUN = "until [ -e begun ]; do sleep 0.1; done"


def run_script(project: Project, script: str) -> list[int]:
    """Run a script on a separate node; the pids that it prints.

    `$first` and `$second` start the farmers of two users.
    """
    first = project.words(MAKER, "run", project.list, "--shared-group", "-n", 1, "--grace", 1)
    second = project.words(JOINER, "run", project.list, "-n", 1, "--grace", 1)
    status = project.words(JOINER, "status", project.workdir)
    script = script.replace("$status", f"{shlex.join(status)} >status")
    named = script.replace("$first", f"{shlex.join(first)} 2>said-0").replace(
        "$second", f"{shlex.join(second)} 2>said-1"
    )
    done = subprocess.run(
        ["unshare", "--mount", "--pid", "--fork", "--kill-child", "bash", "-c", HIDING + named],
        cwd=project.folder,
        env=variables(project.folder),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=120,
    )
    need(done.returncode != 99, "a /proc with hidepid cannot be mounted here")
    assert done.returncode == 0, done.stderr
    return [int(word) for word in done.stdout.split()]


def farmer_output(project: Project) -> str:
    return "".join(path.read_text() for path in project.folder.glob("said-*"))


def test_the_other_user_s_farmer_is_not_mistaken_for_killed(project: Project) -> None:
    project.write("umask 0; : > begun; until [ -e go ]; do sleep 0.1; done", "true")
    script = f"$first & {UNTIL_BEGUN}; $second; echo $?; $status; : > go; wait $!; echo $?"
    assert run_script(project, script) == [0, 0], farmer_output(project)
    assert "/proc does not show its owner" in (project.folder / "status").read_text()
    assert "gone" not in farmer_output(project)
    assert check(project.workdir, views=True).finished == {0, 1}


def test_the_other_user_s_farmer_that_was_killed_is_replaced_at_once(project: Project) -> None:
    project.write("umask 0; [ -e begun ] || { : > begun; exec sleep 1000; }", "true")
    script = f"$first & {UNTIL_BEGUN}; kill -9 $!; wait $!; echo $?; $second; echo $?"
    assert run_script(project, script) == [137, 0], farmer_output(project)
    assert "is gone); released its tasks" in farmer_output(project)
    assert check(project.workdir, views=True).finished == {0, 1}
