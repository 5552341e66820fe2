"""Farmers that start at the same instant."""

from __future__ import annotations

from checker import check
from farming import Field, gate


def test_32_farmers_that_start_at_the_same_instant_run_each_of_2000_tasks_once(field: Field) -> None:
    field.appending(2000)
    with gate(field.folder / "gate") as closed:
        farmers = [field.start("--proc", 2, "--lease", 120, after=closed) for _ in range(32)]
    assert [farmer.wait(120) for farmer in farmers] == [0] * 32, [f.said for f in farmers if f.wait()]
    report = check(field.workdir, views=True)
    assert report.problems == []
    assert len(report.finished) == 2000
    assert field.runs() == dict.fromkeys(range(2000), 1)
    assert len(report.state["segments"]) == 1
    assert sorted(path.suffix for path in (field.workdir / "tasks").iterdir()) == ["", ".index"]
