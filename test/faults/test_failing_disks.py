"""When a disk becomes read-only or loses power, a farmer reports that, and its recorded results survive."""

from __future__ import annotations

import re
import signal
from collections.abc import Iterator

import pytest

from support.disks import Ext4
from support.farming import eventually
from support.farms import Farm

TROUBLE = 74


@pytest.fixture
def disk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ext4]:
    one = Ext4(tmp_path_factory.mktemp("disk"))
    with one.mounted():
        yield one


@pytest.mark.parametrize("end", ["read-only", "without power"])
def test_a_disk_that_fails_during_a_run_loses_no_counted_result(farm: Farm, disk: Ext4, end: str) -> None:
    farm.workdir = disk.point / "farm"
    go = f"while ! [ -e {farm.folder}/go ]; do sleep 0.02; done"
    stay = "[ $TASKFARMER_ATTEMPT = 2 ] || sleep 1000"
    farm.write(*["true"] * 20, farm.marked(go), farm.marked(stay), *["true"] * 20)
    farmer = farm.start("-n", 2, "-w", farm.workdir, "--grace", 1, "--lease", 4)
    farm.wait_for_tasks(20, 21)
    eventually(lambda: len(farm.check(views=False).finished) >= 20, "twenty are recorded")
    before = farm.check(views=False).finished
    (disk.becomes_read_only if end == "read-only" else disk.loses_power)()
    said = "Read-only file system" if end == "read-only" else "Input/output error"
    (farm.folder / "go").touch()
    farmer.says("running tasks continue, no new ones are started")
    assert re.search(rf"warning: {farm.workdir}/\S+: {said}", farmer.said), farmer.said
    assert not farmer.ended
    farmer.signal(signal.SIGINT)
    farmer.says("SIGINT: stopping: terminating running tasks")
    farmer.signal(signal.SIGINT)
    assert farmer.wait() == TROUBLE, farmer.said
    assert "not recorded: " in farmer.said
    farm.no_survivors()
    disk.remount()
    report = farm.check(views=False)
    assert report.finished >= before
    assert 20 not in report.finished
    last = farm.run("-n", 2, "-w", farm.workdir)
    assert last.wait() == 0, last.said
    report = farm.check()
    assert report.finished == set(range(42))
    assert {line.attempt for line in report.lines if line.task in before} == {1}
