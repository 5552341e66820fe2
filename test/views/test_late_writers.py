"""A process that is suspended just before it writes a view, and resumes after all others, leaves exact views.

The race is forced: a shim (stops.c) suspends the process at that call.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from support.checker import check
from support.farming import TEST, Farmer, Field, eventually, send

TASKS = 40


@contextmanager
def stopping(shim: Path, call: str, name: str, nth: int = 1) -> Iterator[None]:
    """A process started inside the block suspends itself before the `nth` such call."""
    with pytest.MonkeyPatch.context() as patched:
        for variable, value in (("CALL", call), ("NAME", name), ("NTH", str(nth))):
            patched.setenv(f"STOPS_{variable}", value)
        patched.setenv("LD_PRELOAD", str(shim))
        yield


def started(field: Field) -> bool:
    return (field.workdir / "farm.json").exists()


def sleeps(pid: int) -> bool:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "T"


def fell_asleep(farmer: Farmer) -> None:
    eventually(lambda: not farmer.ended and sleeps(farmer.process.pid), lambda: f"asleep: {farmer.said}", 90)


def wake(farmer: Farmer) -> int:
    send(farmer.process.pid, signal.SIGCONT)
    return farmer.wait(120)


def verb(*words: object) -> subprocess.Popen[bytes]:
    environment = {**os.environ, "PYTHONPATH": str(TEST.parent)}
    return subprocess.Popen([sys.executable, "-m", "taskfarmer", *map(str, words)], env=environment)


def views_are_exact(workdir: Path, retried: bool = False) -> None:
    report = check(workdir, views=True, retried=retried)
    assert report.problems == []
    document = json.loads((workdir / "views.json").read_text())
    assert document["sizes"] == {name: (workdir / name).stat().st_size for name in document["sizes"]}
    assert document["revision"] == report.state["revision"]
    done = verb("check", workdir)
    assert done.wait(60) == 0


@pytest.mark.parametrize(
    ("call", "name", "nth"), [("open", "/finished", 2), ("write", "/finished", 1), ("rename", "/views.json", 1)]
)
def test_a_farmer_expelled_in_the_middle_of_an_update_leaves_exact_views(
    field: Field, stops: Path, call: str, name: str, nth: int
) -> None:
    """When the farm is created, each view is opened and none is renamed."""
    field.write(f"sleep 0.4; echo {number}" for number in range(TASKS))
    with stopping(stops, call, name, nth):
        late = field.start("-n", 2, "--lease", 2)
    fell_asleep(late)
    late.stop_tree()
    others = field.start("-n", 16, "--wait")
    assert others.wait(90) == 0, others.said
    views_are_exact(field.workdir)
    late.continue_tree()
    assert late.wait(120) == 74, late.said
    views_are_exact(field.workdir)


@pytest.mark.parametrize(
    ("call", "name", "nth", "lost"),
    [
        ("open", "/finished", 2, False),
        ("write", "/timeline.json", 2, False),
        ("rename", "/toprocess", 1, False),
        ("rename", "/finished", 1, True),
        ("rename", "/views.json", 1, True),
    ],
)
def test_a_farmer_suspended_before_its_last_write_leaves_exact_views(
    field: Field, stops: Path, call: str, name: str, nth: int, lost: bool
) -> None:
    """If `views.json` is `lost`, it rebuilds all views."""
    field.write([*(["true"] * 20), *(["sleep 0.5"] * 20)])
    with stopping(stops, call, name, nth):
        late = field.start("-n", 4)
    eventually(lambda: len(check(field.workdir).finished) >= 20 if started(field) else False, "20 tasks", 60)
    if lost:
        (field.workdir / "views.json").unlink()
    late.signal(signal.SIGTERM)
    fell_asleep(late)
    others = field.run("-n", 20, seconds=90)
    assert others.process.returncode == 0, others.said
    views_are_exact(field.workdir)
    assert wake(late) in (0, 75), late.said
    views_are_exact(field.workdir)


@pytest.mark.parametrize("name", ["/finished", "/toprocess", "/views.json"])
def test_a_farmer_suspended_while_it_creates_the_views_leaves_exact_views(field: Field, stops: Path, name: str) -> None:
    field.write(["true"] * 20)
    with stopping(stops, "open", name):
        late = field.start("-n", 2)
    fell_asleep(late)
    others = field.run("-n", 4)
    assert others.process.returncode == 0, others.said
    views_are_exact(field.workdir)
    assert wake(late) == 0, late.said
    views_are_exact(field.workdir)


@pytest.mark.parametrize(
    ("words", "name"),
    [(["retry", "3", "5-9"], "/toprocess"), (["check", "--repair"], "/finished")],
    ids=["retry", "check"],
)
def test_a_verb_suspended_while_it_rebuilds_the_views_leaves_exact_views(
    field: Field, stops: Path, words: list[str], name: str
) -> None:
    field.write(["true"] * 20)
    assert field.run("-n", 4).process.returncode == 0
    if words[0] == "check":
        assert verb("retry", field.workdir, "3", "5-9").wait(60) == 0
        (field.workdir / "finished").write_text("edited\n")
    with stopping(stops, "rename", name):
        late = verb(words[0], field.workdir, *words[1:])
    try:
        eventually(lambda: sleeps(late.pid), "asleep", 60)
        others = field.run("-n", 4)
        assert others.process.returncode == 0, others.said
        views_are_exact(field.workdir, retried=True)
        late.send_signal(signal.SIGCONT)
        assert late.wait(120) == 0
    finally:
        late.kill()
        late.wait()
    views_are_exact(field.workdir, retried=True)
