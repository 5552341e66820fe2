"""Create `farm-format-1.tar.xz` and `farm-format-1.json`: a farm of format 1 with every kind of line in it.

    PYTHONPATH=.:test python test/data/make_farm.py NAME

writes `NAME.tar.xz` and `NAME.json` into this folder. Real farmers create the farm, on a node with a separate host
name (which needs root, for unshare(1)); they are stopped, killed, and killed again. Only a farewell note is written by
hand, because farmers write one only if hundreds leave at once. Such an archive is never recreated: later versions must
always be able to open the files of an earlier one. A change of the format adds another archive.

The farmers that were killed are dead for each reader on any machine: the lease is one second.
"""

from __future__ import annotations

import io
import json
import lzma
import os
import re
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Collection
from pathlib import Path
from typing import Any

from support.checker import Problem, Report, check, intervals, sealed
from support.farming import Farmer, Field, eventually

HERE = Path(__file__).parent

NODE = "oldnode"
LOST, KILLED = 7, 8
ODD: dict[int, bytes] = {
    0: b"echo finished",
    1: b"false",
    2: b"sh -c 'exit 3'",
    3: b"echo a carriage\rreturn",
    4: b"printf '\xe9\xff not UTF-8\\n'",
    5: b'{"command": looks like our own form',
    6: b"while [ -e hold-6 ]; do sleep 0.05; done",
    LOST: b"while [ -e hold-7 ]; do sleep 0.05; done",
    KILLED: b"while [ -e hold ]; do sleep 0.05; done",
    9: b"kill -9 $$",
    10: b"sleep 2",
    11: b"sleep 2",
}
FIRST, SECOND, THIRD = 70, 100, 140
"""The length of the list at each run: more than a block of 64, and grown twice."""


def command(number: int) -> bytes:
    if number >= SECOND:
        return b"while [ -e hold ]; do sleep 0.05; done; echo %d" % number
    # long tasks make a farmer claim fewer at a time, so that the others get some
    return ODD.get(number, b"sleep 0.4; echo %d" % number if number >= FIRST else b"echo %d" % number)


def write(field: Field, count: int) -> None:
    lines = [command(number) + b"\n" for number in range(count)]
    if count == THIRD:
        lines.insert(-2, b"#TASKFARMER --time 1h\n")
    field.list.write_bytes(b"".join(lines))


def signs(field: Field) -> set[Path]:
    """The files of farmers that run or were killed."""
    return set((field.workdir / "farmers").glob("*.alive"))


def running(field: Field, before: Collection[Path] = ()) -> set[int]:
    """The tasks that farmers report as running, except those in the files `before`."""
    found: set[int] = set()
    for path in signs(field) - set(before):
        try:
            found |= {slot[1] for slot in sealed(path)["running"]}
        except (OSError, Problem):
            continue  # it is being written
    return found


def start(field: Field, *more: object) -> Farmer:
    options = ("-n", 2, "--lease", 1, "--epoch-length", 24, "--max-deaths", 1)
    return field.start(*options, *more, node=NODE)


def killed_while(field: Field, *tasks: int) -> None:
    """Start a farmer, and kill it with all its tasks when it runs these tasks."""
    before = signs(field)
    farmer = start(field, "--wait")
    eventually(lambda: farmer.ended or set(tasks) <= running(field, before), f"{tasks} run", 40)
    assert not farmer.ended, farmer.said
    farmer.kill_tree()
    farmer.wait()


def taskfarmer(field: Field, *words: str) -> None:
    environment = {name: value for name, value in os.environ.items() if name != "SCRATCH"}
    environment["PYTHONPATH"] = str(HERE.parents[1])
    subprocess.run([sys.executable, "-m", "taskfarmer", *words], cwd=field.folder, env=environment, check=True)


def live(field: Field) -> None:
    """Run the history of the farm."""
    holds = [field.folder / name for name in ("hold", "hold-6", "hold-7")]
    for hold in holds:
        hold.touch()
    write(field, FIRST)
    farmer = start(field)
    eventually(lambda: {6, LOST} <= running(field), "tasks that wait", 40)
    farmer.signal(15)  # they are released
    assert farmer.wait(40) == 75, farmer.said
    holds[1].unlink()
    killed_while(field, LOST, KILLED)
    holds[0].unlink()
    killed_while(field, LOST)
    farmer = start(field, "--wait")  # task 7 is lost
    assert farmer.wait(60) == 1, farmer.said
    holds[2].unlink()
    taskfarmer(field, "retry", field.workdir.name, "0", "1", "2")
    write(field, SECOND)
    assert start(field).wait(60) == 1
    taskfarmer(field, "retry", field.workdir.name, "2", str(KILLED), "20")
    holds[0].touch()
    write(field, THIRD)
    killed_while(field, KILLED)
    assert start(field, "--timeout", 6).wait(60) == 75  # some of them run out of time
    victims = [start(field, "--wait") for _ in range(3)]
    eventually(lambda: three_at_work(field.workdir), "three farmers at work", 60)
    for victim in victims:
        victim.kill_tree()
    eventually(lambda: not field.strays(), "the end of all tasks")


def three_at_work(workdir: Path) -> bool:
    report = check(workdir, retried=True)
    entries = report.state.get("farmers", {}).values()
    return len(entries) == 3 and all(entry[1] for entry in entries) and "!" in str(entries)


def add_farewell_note(workdir: Path) -> None:
    state = check(workdir, retried=True).state
    last = max(state["farmers"])
    (workdir / "farmers" / f"{last}.farewell").write_bytes(b"farewell\n")


def expected(report: Report) -> dict[str, Any]:
    """The contents that every reader of the farm must see, now and after its completion."""
    ends = {task: line.outcome for line in sorted(report.lines, key=lambda one: one.attempt) for task in [line.task]}
    failing = sorted({1, 2, 5, 9, LOST})
    return {
        "counts": {
            "tasks": len(report.tasks),
            "unprocessed": len(report.unprocessed),
            "held": len(report.held),
            "finished": len(report.finished),
            "failed": len(report.failed),
        },
        "failed": sorted(report.failed),
        "farmers": sorted(report.state["farmers"]),
        "attempts": {str(task): attempt for task, attempt in sorted(report.attempts.items()) if attempt > 1},
        "last_outcome": {str(task): ends[task] for task in (1, 2, LOST)},
        "failed_at_the_end": failing,
        "results": len(report.lines),
    }


def every_kind_is_there(workdir: Path, report: Report) -> None:
    """Fail if this run happens to lack some kind of line; then it has to be repeated."""
    outcomes = {line.outcome for line in report.lines}
    assert outcomes == {"finished", "failed", "returned", "lost"}, outcomes
    places = [entry[1] for entry in report.state["farmers"].values()] + [report.state["returned"]]
    assert any("!" in text for text in places), places
    assert any("@" in text for text in places), places
    assert any("^" in text for text in places), places
    assert any("~" in text for text in places), places
    assert report.state["segments"][2]["timed"]
    assert report.state["times"]
    assert report.state["longest"]
    assert len(report.state["segments"]) == 3
    assert report.state["departed"], report.state
    assert report.state["closed_bytes"], report.state
    assert len([path for path in (workdir / "ledger").iterdir() if path.is_dir()]) > 1
    assert any(re.search(r"\.\d+$", path.name) for path in (workdir / "results").iterdir())
    assert any(running.get("running") for running in map(sealed, (workdir / "farmers").glob("*.alive")))
    assert list((workdir / "farmers").glob("*.farewell"))
    assert intervals(report.state["returned"], report.state) or report.held


def pack(folder: Path, target: Path) -> None:
    """Pack the list and its farm into an archive that contains nothing else."""
    gathered = io.BytesIO()
    with tarfile.open(fileobj=gathered, mode="w", format=tarfile.PAX_FORMAT) as archive:
        paths = [folder / "list.txt", folder / "list.txt_workdir", *(folder / "list.txt_workdir").rglob("*")]
        for path in sorted(paths):
            info = archive.gettarinfo(path, str(path.relative_to(folder)))
            info.mtime = info.uid = info.gid = 0
            info.uname = info.gname = ""
            info.mode = 0o755 if info.isdir() else 0o644
            with path.open("rb") if path.is_file() else io.BytesIO() as file:
                archive.addfile(info, file if path.is_file() else None)
    target.write_bytes(lzma.compress(gathered.getvalue(), preset=9))


def main(name: str) -> None:
    with tempfile.TemporaryDirectory(prefix="farm-") as folder:
        field = Field(Path(folder), "list.txt")
        try:
            live(field)
        finally:
            field.close()
        add_farewell_note(field.workdir)
        report = check(field.workdir, retried=True)
        assert report.problems == [], report.problems
        every_kind_is_there(field.workdir, report)
        pack(field.folder, HERE / f"{name}.tar.xz")
        (HERE / f"{name}.json").write_text(json.dumps(expected(report), indent=1) + "\n")


if __name__ == "__main__":
    main(sys.argv[1])
