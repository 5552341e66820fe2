"""Tests mount in a private namespace: the machine's mounts do not change."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from support.farming import has_private_mounts, need


def test_the_machine_does_not_see_a_mount_of_a_test(tmp_path: Path) -> None:
    need(os.getuid() == 0 and has_private_mounts(), "a mount namespace needs root")
    made = subprocess.run(["mount", "-t", "tmpfs", "tmpfs", tmp_path], capture_output=True, text=True)
    need(made.returncode == 0, f"tmpfs: {made.stderr.strip()}")
    try:
        assert str(tmp_path) in Path("/proc/self/mounts").read_text()
        assert str(tmp_path) not in Path("/proc/1/mounts").read_text()
    finally:
        subprocess.run(["umount", tmp_path], check=True)


def test_a_node_that_a_test_starts_does_not_keep_an_unmounted_file_system_alive(tmp_path: Path) -> None:
    need(os.getuid() == 0 and has_private_mounts(), "a mount namespace needs root")
    made = subprocess.run(["mount", "-t", "tmpfs", "tmpfs", tmp_path], capture_output=True, text=True)
    need(made.returncode == 0, f"tmpfs: {made.stderr.strip()}")
    words = ["unshare", "--mount", "--propagation", "slave", "sh", "-c", "echo; read x; cat /proc/self/mounts"]
    node = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert node.stdin and node.stdout
    try:
        assert node.stdout.readline() == "\n"  # it has a private mount namespace now
    finally:
        subprocess.run(["umount", tmp_path], check=True)
    seen = node.communicate("\n", timeout=60)[0]
    assert seen and str(tmp_path) not in seen
