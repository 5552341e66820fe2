"""Files that a doctor left are removed if its process is known to have exited, and otherwise only when they are old."""

from __future__ import annotations

import os
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from taskfarmer.doctor.place import OLD, Place
from taskfarmer.formats.sealed import sealed
from taskfarmer.peers.identity import new_identity


def gone_process() -> int:
    child = subprocess.Popen(["true"])
    child.wait()
    return child.pid


@pytest.mark.parametrize(
    ("theirs", "age", "removed"),
    [
        ({}, 0.0, True),
        ({"pid": os.getpid()}, 0.0, False),
        ({"host": "machine of the same snapshot"}, 0.0, False),
        ({"boot": "another"}, 0.0, False),
        ({"namespace": 1}, 0.0, False),
        ({"pid": "../.."}, 0.0, False),
        ({"boot": "another"}, OLD + 1.0, True),
    ],
)
def test_files_of_another_doctor(tmp_path: Path, theirs: dict[str, Any], age: float, removed: bool) -> None:
    me = replace(new_identity(0, "0", {}), farmer="mine")
    place, other = Place(str(tmp_path), "mine"), Place(str(tmp_path), "other")
    says = {"host": me.host, "boot": me.boot, "namespace": me.pid_namespace, "pid": gone_process()}
    # our start time stands for that of the other doctor if the pid is ours
    document = {**says, "pid_start": me.pid_start, **theirs}
    os.close(other.create(other.sign("other")))
    Path(other.sign("other")).write_bytes(sealed(document))
    place.sweep(me, os.stat(other.sign("other")).st_mtime + age)
    assert (place.doctors() == []) is removed
