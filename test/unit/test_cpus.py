"""`-n auto`: the CPUs that a process may use, according to its affinity and the quotas of its cgroups."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from support.farming import eventually, need
from support.house import TOP, House
from taskfarmer import cpus

V1 = "4:memory:{path}\n3:cpu,cpuacct:{path}\n2:cpuset:/\n1:name=systemd:/init.scope\n"
V2 = "0::{path}\n"


class Mounts:
    """Cgroup file systems as folders, and the matching lines of /proc/PID/mountinfo."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.lines = ["21 1 8:1 / / rw shared:1 - ext4 /dev/vda1 rw", "22 21 0:5 / /proc rw - proc proc rw", "odd line"]

    def mount(self, name: str, kind: str, options: str, root: str = "/") -> Path:
        point = self.folder / name
        point.mkdir(parents=True)
        escaped = str(point).replace("\\", "\\134").replace(" ", "\\040")
        self.lines.append(
            f"30 21 0:{len(self.lines)} {root} {escaped} rw,nosuid shared:9 master:1 - {kind} {kind} {options}"
        )
        return point

    def v1(self, root: str = "/", name: str = "cpu,cpuacct") -> Path:
        self.mount(f"memory{len(self.lines)}", "cgroup", "rw,memory", root)
        return self.mount(name, "cgroup", "rw,cpu,cpuacct", root)

    def v2(self, root: str = "/", name: str = "unified") -> Path:
        return self.mount(name, "cgroup2", "rw,nsdelegate", root)

    def quota(self, groups: str) -> int | None:
        return cpus.quota(groups, "\n".join(self.lines) + "\n")


@pytest.fixture
def mounts(tmp_path: Path) -> Mounts:
    return Mounts(tmp_path / "a folder\\with a difficult name")


def limit(folder: Path, version: int, time: object, period: object = 100000) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    if version == 2:
        (folder / "cpu.max").write_text(f"{time} {period}\n")
    else:
        (folder / "cpu.cfs_quota_us").write_text(f"{time}\n")
        (folder / "cpu.cfs_period_us").write_text(f"{period}\n")


@pytest.mark.parametrize(
    ("time", "period", "count"),
    [
        (100000, 100000, 1),
        (150000, 100000, 2),
        (250001, 100000, 3),
        (400000, 100000, 4),
        (1000, 100000, 1),
        (50000, 25000, 2),
        (6400000, 100000, 64),
    ],
)
@pytest.mark.parametrize("version", [1, 2])
def test_a_quota_is_rounded_up_to_whole_cpus(mounts: Mounts, version: int, time: int, period: int, count: int) -> None:
    point = mounts.v1() if version == 1 else mounts.v2()
    limit(point / "job", version, time, period)
    assert mounts.quota((V1 if version == 1 else V2).format(path="/job")) == count


@pytest.mark.parametrize("version", [1, 2])
def test_the_smallest_quota_of_all_cgroups_above_counts(mounts: Mounts, version: int) -> None:
    point = mounts.v1() if version == 1 else mounts.v2()
    limit(point / "slice", version, 300000)
    limit(point / "slice" / "job", version, "max" if version == 2 else -1)
    limit(point / "slice" / "job" / "step", version, 800000)
    limit(point / "other", version, 100000)
    groups = (V1 if version == 1 else V2).format(path="/slice/job/step")
    assert mounts.quota(groups) == 3
    limit(point, version, 200000)
    assert mounts.quota(groups) == 2


@pytest.mark.parametrize("version", [1, 2])
def test_without_a_quota_or_with_unreadable_files_there_is_no_limit(mounts: Mounts, version: int) -> None:
    groups = (V1 if version == 1 else V2).format(path="/job")
    assert mounts.quota(groups) is None
    point = mounts.v1() if version == 1 else mounts.v2()
    assert mounts.quota(groups) is None
    for time, period in (("max", 100000), (-1, 100000), ("", ""), ("x", 1), (100000, 0), (0, "")):
        limit(point / "job", version, time, period)
        assert mounts.quota(groups) is None, (time, period)
    assert cpus.quota("", "") is None
    assert cpus.quota("nonsense\n\n::\n", "nonsense\n - \n - cgroup2\n") is None


@pytest.mark.parametrize("version", [1, 2])
def test_a_container_whose_mount_starts_at_its_cgroup_is_limited(mounts: Mounts, version: int) -> None:
    point = mounts.v1("/docker/1f") if version == 1 else mounts.v2("/docker/1f")
    groups = V1 if version == 1 else V2
    limit(point, version, 200000)
    limit(point / "inner", version, 100000)
    assert mounts.quota(groups.format(path="/docker/1f")) == 2
    assert mounts.quota(groups.format(path="/docker/1f/inner")) == 1
    assert mounts.quota(groups.format(path="/docker/1f/gone (deleted)")) == 2
    assert mounts.quota(groups.format(path="/docker/1f2")) is None
    assert mounts.quota(groups.format(path="/system.slice")) is None


@pytest.mark.parametrize("version", [1, 2])
def test_for_a_mount_from_outside_of_the_namespace_only_its_root_counts(mounts: Mounts, version: int) -> None:
    point = mounts.v1("/../..") if version == 1 else mounts.v2("/../..")
    groups = V1 if version == 1 else V2
    limit(point, version, 500000)
    assert mounts.quota(groups.format(path="/")) == 5
    assert mounts.quota(groups.format(path="/job")) == 5


@pytest.mark.parametrize("version", [1, 2])
def test_a_process_outside_of_its_namespace_reads_no_files_outside_the_mount(mounts: Mounts, version: int) -> None:
    point = mounts.v1() if version == 1 else mounts.v2()
    limit(point.parent / "other", version, 100000)
    assert mounts.quota((V1 if version == 1 else V2).format(path="/../other")) is None


def test_in_hybrid_mode_the_version_that_has_the_controller_counts(mounts: Mounts) -> None:
    groups = V1.format(path="/job") + V2.format(path="/user.slice")
    old, new = mounts.v1(), mounts.v2()
    (new / "user.slice").mkdir()
    limit(old / "job", 1, 300000)
    assert mounts.quota(groups) == 3
    limit(new / "user.slice", 2, 200000)
    assert mounts.quota(groups) == 2


def test_a_quota_and_the_affinity_are_both_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    bound = len(os.sched_getaffinity(0))
    for found, usable in ((None, bound), (1, 1), (bound + 7, bound)):
        monkeypatch.setattr(cpus, "quota", lambda groups, mounts, found=found: found)
        assert cpus.usable_cpus() == usable


@pytest.fixture
def half_a_cpu() -> Iterator[Path]:
    """A real cgroup inside another one that has half a CPU; its folder."""
    old, new = Path("/sys/fs/cgroup/cpu"), Path("/sys/fs/cgroup")
    controllers = new / "cgroup.subtree_control"
    version = 1 if (old / "cpu.cfs_quota_us").exists() else 2
    able = version == 1 or (controllers.exists() and "cpu" in controllers.read_text().split())
    need(os.getuid() == 0 and able and os.access(old if version == 1 else new, os.W_OK), "no cgroup can be made here")
    outer = (old if version == 1 else new) / f"taskfarmer-test-{os.getpid()}"
    inner = outer / "inner"
    try:
        inner.mkdir(parents=True)
        if version == 1:
            (outer / "cpu.cfs_quota_us").write_text("50000")
        else:
            (outer / "cpu.max").write_text("50000 100000")
        yield inner
    finally:
        for folder in (inner, outer):
            eventually(lambda folder=folder: _removed(folder), f"{folder} is empty", 60)


def _removed(folder: Path) -> bool:
    with suppress(OSError):
        folder.rmdir()
    return not folder.exists()


def test_a_farmer_in_a_real_cgroup_has_as_many_slots_as_its_quota_gives(house: House, half_a_cpu: Path) -> None:
    need(len(os.sched_getaffinity(0)) > 1, "one CPU only")
    house.write("true\n" * 3)

    def farmer(*options: str, folder: Path | None = None) -> str:
        enter = f"echo $$ > {folder}/cgroup.procs; " if folder else ""
        words = ["sh", "-c", f'{enter}exec "$@"', "sh", sys.executable, str(TOP / "pytaskfarmer.py"), "list.txt"]
        done = subprocess.run(
            [*words, *options], cwd=house.folder, env=house.environ, capture_output=True, text=True, timeout=120
        )
        assert done.returncode == 0, done.stderr
        return done.stderr

    assert "; 1 at a time" in farmer("-n", "auto", "-w", "limited", folder=half_a_cpu)
    assert "; 3 at a time" in farmer("-n", "3", "-w", "given", folder=half_a_cpu)
    assert "; 1 at a time" not in farmer("-n", "auto", "-w", "free")


def test_cgroup_files_are_read_only_for_n_auto(house: House) -> None:
    house.write("true\n")
    program = [sys.executable, "-X", "importtime", str(TOP / "pytaskfarmer.py"), "list.txt", "-q"]
    assert "taskfarmer.cpus" not in house.process([*program, "-n", "1"]).stderr
    assert "taskfarmer.cpus" in house.process([*program, "-n", "auto", "-w", "other"]).stderr
