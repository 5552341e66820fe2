"""The file system of a path, and the implications of its type and options."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from taskfarmer.storage.filesystems import fs_facts
from taskfarmer.storage.mounts import Mount, find_mount, mount_of, parse

TABLE = rb"""22 27 0:21 / /proc rw,relatime - proc proc rw
27 1 254:0 / / rw,relatime - ext4 /dev/vda rw,discard
30 27 0:40 / /home rw,nosuid shared:3 - nfs4 server:/home rw,vers=4.2,local_lock=none
31 27 0:41 / /my\040data rw - lustre 10.0.0.1@tcp:/l\134x rw,flock
32 27 0:42 / /home/deep rw master:1 shared:2 - tmpfs tmpfs rw,size=4k
33 27 0:43 / /home/deep rw - xfs /dev/vdb rw
a line that is none
"""


@pytest.mark.parametrize(
    ("path", "point", "type"),
    [
        ("/", "/", "ext4"),
        ("/homes", "/", "ext4"),
        ("/home", "/home", "nfs4"),
        ("/home/anna/farm", "/home", "nfs4"),
        ("/my data/farm", "/my data", "lustre"),
        ("/home/deep/er", "/home/deep", "xfs"),
    ],
)
def test_a_path_is_on_the_longest_mount_that_fits_and_on_the_newest_of_equals(path: str, point: str, type: str) -> None:
    mount = find_mount(path, parse(TABLE))
    assert mount is not None
    assert (mount.point, mount.type) == (point, type)


def test_options_of_the_mount_and_of_the_file_system_are_both_listed() -> None:
    mounts = parse(TABLE)
    assert len(mounts) == 6
    assert mounts[2].options == ("rw", "nosuid", "vers=4.2", "local_lock=none")
    assert mounts[2].option("local_lock") == "none"
    assert mounts[2].option("nosuid") == ""
    assert mounts[2].option("nolock") is None
    assert mounts[3].source == r"10.0.0.1@tcp:/l\x"


def test_a_real_path_has_the_device_of_its_mount(tmp_path: Path) -> None:
    mount = mount_of(str(tmp_path))
    assert mount is not None
    assert os.stat(mount.point).st_dev == os.stat(tmp_path).st_dev


@pytest.mark.parametrize(
    ("type", "options", "shared", "locks"),
    [
        ("lustre", "rw,flock,lazystatfs", True, "shared"),
        ("lustre", "rw,localflock", True, "local"),
        ("lustre", "rw,noflock", True, "none"),
        ("lustre", "rw", True, "unknown"),
        ("nfs", "rw,vers=3,local_lock=none", True, "shared"),
        ("nfs", "rw,vers=3,nolock,local_lock=all", True, "local"),
        ("nfs", "rw,vers=3,local_lock=flock", True, "local"),
        ("nfs", "rw,vers=3,local_lock=posix", True, "shared"),
        ("nfs4", "rw,vers=4.2,local_lock=none", True, "shared"),
        ("gpfs", "rw", True, "unknown"),
        ("beegfs", "rw", True, "unknown"),
        ("fuse.glusterfs", "rw", True, "shared"),
        ("fuse", "rw", None, "unknown"),
        ("ext4", "rw", False, "unknown"),
        ("fuse.sshfs", "rw", True, "local"),
        ("tmpfs", "rw", False, "unknown"),
        ("overlay", "rw", False, "unknown"),
        ("brandnewfs", "rw", None, "unknown"),
    ],
)
def test_type_and_options_of_a_mount_determine_whether_locks_are_shared(
    type: str, options: str, shared: bool | None, locks: str
) -> None:
    found = fs_facts(Mount("/x", type, "x", tuple(options.split(","))))
    assert (found.shared, found.locks) == (shared, locks)
