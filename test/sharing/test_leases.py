"""A silent farmer that may still run keeps its whole lease: locks and host names do not prove that it has exited."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from support.checker import Problem, check, sealed
from support.farming import TEST, Field, eventually, need, send, tree
from taskfarmer.peers import lockproofs
from taskfarmer.peers.heartbeat import Presence
from taskfarmer.peers.identity import Identity, new_identity
from taskfarmer.peers.lockproofs import LockProofs, node_of
from taskfarmer.storage import locks
from taskfarmer.storage.layout import Workdir
from taskfarmer.storage.mounts import Mount

LEASE = 40
BEATS = 5
"""Heartbeats of the observer (2 s each) while the other farmer is stopped: two missed ones, and some more."""
ME = replace(new_identity(1, "0", {}), host="here", boot="this", pid_namespace=1)


@pytest.mark.parametrize(
    ("them", "file_system", "verdict", "ended"),
    [
        ({"pid_namespace": 2}, "ext4", "shared", True),
        ({"pid_namespace": 2, "host": "container"}, "tmpfs", "shared", True),
        ({"pid_namespace": 2}, "ext4", "local", False),
        ({"pid_namespace": 2}, "ext4", "unknown", False),
        ({"pid_namespace": 2}, "nfs4", "shared", False),
        ({"pid_namespace": 2}, "ceph", "shared", False),
        ({"pid_namespace": 2}, "virtiofs", "shared", False),
        ({"pid_namespace": 2}, "fuse", "shared", False),
        ({"pid_namespace": 2}, None, "shared", False),
        ({"pid_namespace": 2, "boot": "another"}, "ext4", "shared", False),
        ({"boot": "another"}, "ext4", "shared", False),
        ({"host": "another"}, "ext4", "shared", False),
        ({"pid_namespace": 0}, "ext4", "shared", False),
    ],
)
def test_a_free_lock_is_evidence_only_within_one_kernel(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    them: dict[str, Any],
    file_system: str | None,
    verdict: Any,
    ended: bool,
) -> None:
    (tmp_path / "farmers").mkdir()
    workdir = Workdir.at(str(tmp_path))
    other: Identity = replace(ME, farmer="other-1-00000000", **them)
    mount = Mount("/", file_system, "source", ()) if file_system else None
    monkeypatch.setattr(lockproofs, "mount_of", lambda path: mount)
    found = LockProofs(workdir, ME, 60.0)
    found.verdicts[node_of(other)] = verdict
    presence = Presence(workdir, other)
    assert not found.has_ended(other)
    presence.close()
    assert locks.alive_is_free(workdir.alive(other.farmer))
    assert found.has_ended(other) is ended
    os.unlink(workdir.alive(other.farmer))
    assert not found.has_ended(other), "a purge removed the file of a farmer that lives"


class Twin:
    """A farmer on a node that has the host name of another node, but a different boot ID."""

    def __init__(self, field: Field, number: int, *options: object) -> None:
        boot = field.folder / f"boot-{number}"
        boot.write_text(f"{number:08x}-0000-4000-8000-000000000000\n")
        inner = (
            f'hostname twin; mount -t proc proc /proc; mount --bind {boot} /proc/sys/kernel/random/boot_id; exec "$@"'
        )
        words = ["unshare", "--mount", "--uts", "--pid", "--fork", "--kill-child", "sh", "-c", inner, "sh"]
        words += [sys.executable, "-m", "taskfarmer", "run", str(field.list), *map(str, options)]
        self.log = field.folder / f"said-{number}"
        with open(self.log, "wb") as log:
            self.process = subprocess.Popen(
                words,
                cwd=field.folder,
                env={**os.environ, "PYTHONPATH": str(TEST.parent)},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )

    @property
    def said(self) -> str:
        return self.log.read_text(errors="replace")

    def send(self, number: int) -> None:
        """Send a signal to all processes of the node except the one that holds its namespaces."""
        for pid in tree(self.process.pid)[1:]:
            send(pid, number)


def beats(field: Field) -> dict[str, int]:
    found = {}
    for path in field.workdir.glob("farmers/*.alive"):
        try:
            found[path.stem] = int(sealed(path)["beat"])
        except (OSError, Problem):
            continue  # it is being written
    return found


def test_a_farmer_of_a_node_with_our_host_name_keeps_its_lease(tmp_path: Path) -> None:
    """If two nodes have the same name and different boot IDs, they are not one node that rebooted."""
    need(os.getuid() == 0 and shutil.which("unshare"), "namespaces need root")
    field = Field(tmp_path)
    field.write([f"until [ -e {tmp_path}/go ]; do sleep 0.1; done"] * 4)
    twins: list[Twin] = []
    try:
        twins.append(Twin(field, 1, "-n", 2, "--lease", LEASE))
        eventually(lambda: len(check(field.workdir).held) == 2, "the first has tasks", 60)
        (asleep,) = eventually(lambda: beats(field), "the first one's heartbeat")
        twins.append(Twin(field, 2, "-n", 2))
        eventually(lambda: len(check(field.workdir).held) == 4, "the second has the others", 60)
        twins[0].send(signal.SIGSTOP)
        (awake,) = eventually(lambda: {*beats(field)} - {asleep}, "the second one's heartbeat")
        before = eventually(lambda: beats(field).get(awake), "its number")
        eventually(lambda: beats(field).get(awake, 0) >= before + BEATS, "the second one has checked", 120)
        twins[0].send(signal.SIGCONT)
        (tmp_path / "go").touch()
        ended = [twin.process.wait(60) for twin in twins]
        early = re.findall(r"is dead \((?!no heartbeat).*", twins[1].said)
        assert early == []
        if "is dead" not in twins[1].said:  # otherwise this machine is so slow that the lease expired
            assert ended == [0, 0], [twin.said for twin in twins]
            assert check(field.workdir, views=True).complete
    finally:
        for twin in twins:
            twin.send(signal.SIGCONT)
            for pid in reversed(tree(twin.process.pid)):
                send(pid, signal.SIGKILL)
            twin.process.wait(20)
        field.close()
